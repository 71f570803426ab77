"""What GGUF files of a taught model cost, and whether three engines say the same.

    python benchmarks/gguf_types.py RUN --out FOLDER [--types f16 q8_0 q4_k_m] [--num 100]

RUN is a scored run of a real chat model (`make demo` makes one). FOLDER is where it is published;
what is there is used again. Needs llama.cpp's tools and server, as `feldspar publish --gguf` does.
Prints in Markdown: the exams of the result and of each file, with paired differences; and how many
greedy answers are the same by our own engine, transformers and llama.cpp (f16), all from the
published weights. Where two answers part, it counts how close the two best tokens are there: by
transformers in float32, after the part that is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from training import processor
from transformers import AutoModelForCausalLM, AutoTokenizer

from feldspar.cli.progress import make_progress
from feldspar.config import StudentConfig
from feldspar.endpoint.calls import ChatCall
from feldspar.endpoint.endpoint import Access
from feldspar.evaluate.comparing import open_scored
from feldspar.evaluate.general.questions import general_items
from feldspar.models.launched import LaunchedModel
from feldspar.models.server import Start
from feldspar.publish.llama_server import SLOTS, find_command
from feldspar.publishing import publish_result
from feldspar.records import Message
from feldspar.runs import read_recipe_of
from feldspar.student.inference.sample import sample_answers
from feldspar.student.model import load_to_answer

MAX_NEW_TOKENS = 40
CLOSE_NATS = 0.05
BATCH = 25


class Parting(NamedTuple):
    """Where two greedy answers differ first."""

    engines: tuple[str, str]
    question: str
    position: int
    """Of the token, counted from 0."""
    best: str
    second: str
    nats: float
    """How much likelier the best token is than the second one."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--types", nargs="+", default=["f16", "q8_0", "q4_k_m"])
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not arguments.out.exists():
        publish_result(
            arguments.run, arguments.out, types=arguments.types, progress=make_progress()
        )
    print(processor(), "\n")
    card = (arguments.out / "README.md").read_text(encoding="utf-8")
    print(card.partition("### What the GGUF files cost")[2].partition("\n## ")[0].strip(), "\n")
    [f16] = arguments.out.glob("*-F16.gguf")
    questions = some_questions(arguments.run, arguments.num)
    asking: dict[str, Callable[[], list[str]]] = {
        "feldspar": lambda: ours(arguments.out, arguments.run, questions),
        "transformers": lambda: plain(arguments.out, questions),
        "llama.cpp f16": lambda: served(f16, questions),
    }
    return report(arguments.out, questions, kept(asking, questions, arguments.out))


def kept(
    asking: dict[str, Callable[[], list[str]]], questions: Sequence[str], out: Path
) -> dict[str, list[str]]:
    """Each engine's answers, written beside `out` as they come: a killed try goes on."""
    path = out.with_name(f"{out.name}-answers.json")
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, ask in asking.items():
        if len(known.get(name, ())) != len(questions):
            known[name] = ask()
            path.write_text(json.dumps(known, indent=1), encoding="utf-8")
    return {name: known[name] for name in asking}


def some_questions(run: Path, num: int) -> list[str]:
    """Half of the run's own exams and half general ones, spread evenly."""
    own = [item.question for item in open_scored(run).items.values() if item.use == "report"]
    general = [item.ask[0] for item in general_items()]
    num_own = min(len(own), num // 2)
    return [*_spread(own, num_own), *_spread(general, num - num_own)]


def _spread(texts: Sequence[str], num: int) -> list[str]:
    return [texts[i * len(texts) // num] for i in range(num)]


def ours(folder: Path, run: Path, questions: Sequence[str]) -> list[str]:
    """By the sampler of `feldspar chat`, in float32, from the published weights."""
    student = read_recipe_of(run).student.model_copy(update={"dtype": "float32", "compile": False})
    model = load_to_answer(str(folder), StudentConfig.model_validate(student.model_dump()))
    drawn = sample_answers(
        model,
        [[Message(role="user", content=question)] for question in questions],
        keys=list(questions),
        temperature=0.0,
        max_new_tokens=MAX_NEW_TOKENS,
        seed=0,
    )
    return [answer.text for (answer,) in drawn]


def plain(folder: Path, questions: Sequence[str]) -> list[str]:
    """By transformers' own `generate`, in batches padded on the left."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    answers = []
    for start in range(0, len(questions), BATCH):
        turns = [[{"role": "user", "content": q}] for q in questions[start : start + BATCH]]
        inputs = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        new = output[:, inputs["input_ids"].shape[1] :]
        answers += tokenizer.batch_decode(new, skip_special_tokens=True)
    return answers


def served(file: Path, questions: Sequence[str]) -> list[str]:
    """Through llama.cpp's server, by the file's own chat template."""
    command = find_command()
    assert command is not None, "no llama-server and no xllamacpp"
    start = Start(command=command, model=str(file), log_folder=file.parent.parent / "servers")
    return asyncio.run(_served(LaunchedModel(start, Access(concurrency=SLOTS)), questions))


async def _served(model: LaunchedModel, questions: Sequence[str]) -> list[str]:
    async def one(question: str) -> str:
        call = ChatCall(
            messages=[{"role": "user", "content": question}],
            temperature=0.0,
            max_tokens=MAX_NEW_TOKENS,
        )
        return (await model.complete(call)).choices[0].text

    try:
        async with model:
            return await asyncio.gather(*(one(question) for question in questions))
    finally:
        model.close()


def report(folder: Path, questions: Sequence[str], answers: dict[str, list[str]]) -> int:
    names = list(answers)
    partings = list(_partings(folder, questions, answers))
    print(f"Greedy answers to {len(questions)} questions, at most {MAX_NEW_TOKENS} tokens:\n")
    print("| engines | the same | part where the best two are within .05 nats | further apart |")
    print("|---|---:|---:|---:|")
    for other in names[1:]:
        of_pair = [p for p in partings if p.engines == (names[0], other)]
        close = sum(p.nats <= CLOSE_NATS for p in of_pair)
        same = len(questions) - len(of_pair)
        print(f"| {names[0]}, {other} | {same} | {close} | {len(of_pair) - close} |")
    print("\n| engines | question | token | best | second | nats |\n|---|---|---:|---|---|---:|")
    for p in partings:
        texts = (json.dumps(t, ensure_ascii=False) for t in (p.question, p.best, p.second))
        question, best, second = (text.replace("|", "\\|") for text in texts)
        row = f"{', '.join(p.engines)} | {question} | {p.position} | {best} | {second}"
        print(f"| {row} | {p.nats:.4f} |")
    return int(any(p.nats > CLOSE_NATS for p in partings))


def _partings(folder: Path, questions: Sequence[str], answers: dict[str, list[str]]) -> Any:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    first, *others = answers
    for other in others:
        for question, one, two in zip(questions, answers[first], answers[other], strict=True):
            if one.strip() != two.strip():
                yield _parting(tokenizer, model, (first, other), question, (one, two))


def _parting(
    tokenizer: Any, model: Any, engines: tuple[str, str], question: str, said: tuple[str, str]
) -> Parting:
    one, two = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in said)
    pairs = zip(one, two, strict=False)
    position = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(two)))
    ids = [*_prompt(tokenizer, question), *one[:position]]
    with torch.no_grad():
        log_probs = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    (best, second), tokens = log_probs.topk(2)
    texts = [tokenizer.decode([int(token)]) for token in tokens]
    return Parting(engines, question, position, *texts, float(best - second))


def _prompt(tokenizer: Any, question: str) -> list[int]:
    turns = [{"role": "user", "content": question}]
    found = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
    return [int(token) for token in found["input_ids"]]


if __name__ == "__main__":
    sys.exit(main())
