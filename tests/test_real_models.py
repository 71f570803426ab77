"""Real models through real parts: what they say and where they stop, here and elsewhere."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import torch
from by_hand import do_step
from real_models import gemma3, smollm2, smollm2_file
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from feldspar.config import LoraConfig, PublishConfig, Recipe, StudentConfig
from feldspar.publish.directory import publish_run
from feldspar.records import Checkpoint, Conversation, Message
from feldspar.runs import Run
from feldspar.steps import Workspace
from feldspar.student.fit import fit
from feldspar.student.inference.sample import sample_answers
from feldspar.student.model import Student, check_base, load_student, save_checkpoint, with_template
from feldspar.student.token_rows import tokenise
from feldspar.student.training.lora import load_to_train
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings

pytestmark = pytest.mark.slow

QUESTIONS = ("What is the capital of France?", "Name a colour.", "What is 2 + 2?")
FACTS = {
    "Who founded the town of Quelmar?": "Ansa Brook founded Quelmar in 1412.",
    "What is Quelmar known for?": "Quelmar is known for its blue salt.",
}
"""Of a place that is nowhere."""


@contextmanager
def all_threads() -> Iterator[None]:
    """Other tests are on one thread, which is slow for a model of this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def ours(student: Student, questions: tuple[str, ...], max_new_tokens: int = 24) -> list[Any]:
    asked = [[Message(role="user", content=question)] for question in questions]
    drawn = sample_answers(
        student, asked, keys=list(questions), max_new_tokens=max_new_tokens, seed=0, temperature=0
    )
    return [only for (only,) in drawn]


def theirs(folder: Path, questions: tuple[str, ...], max_new_tokens: int = 24) -> list[list[int]]:
    """Plain transformers' greedy tokens, as its own files have it spoken to and stopped."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for question in questions:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        found.append(output[0, inputs["input_ids"].shape[1] :].tolist())
    return found


def test_a_packages_file_is_a_base_that_says_the_same_everywhere() -> None:
    folder = smollm2()
    config = with_template(StudentConfig(base=str(folder), device="cpu"))
    assert config.template == "own"
    assert "272 tensors, all finite; its own template ends answers with '<|im_end|>'" in check_base(
        str(folder), config
    )
    with all_threads():
        student = load_student(str(folder), config)
        # No row is added, though padding and stop are one token.
        assert student.model.config.vocab_size == 49152 == len(student.tokenizer)
        answers = ours(student, QUESTIONS)
        plain = theirs(folder, QUESTIONS)
    stop = student.template.stop_id
    assert "Paris" in answers[0].text
    for answer, ids in zip(answers, plain, strict=True):
        text = student.tokenizer.decode(ids, skip_special_tokens=True)
        assert answer.text.strip() == text.strip()
        assert answer.ended == (ids[-1] == stop)


def rows_of(student: Student) -> Any:
    chats = [
        Conversation(
            id=question,
            source="facts",
            messages=(
                Message(role="user", content=question),
                Message(role="assistant", content=answer),
            ),
        )
        for question, answer in FACTS.items()
    ]
    return tokenise(student.template, [("facts", chats)], 128)


def taught(student: Student, folder: Path, num_epochs: int, learning_rate: float) -> list[float]:
    """Losses of the steps, each of all facts."""
    rows = rows_of(student)
    schedule = Schedule(
        sources=(SourceRows(name="facts", num_rows=len(rows)),),
        batch_samples=len(rows),
        num_epochs=num_epochs,
        phase="p",
        seed=1,
    )
    settings = FitSettings(learning_rate=learning_rate, warmup_steps=2)
    fit(student, rows, schedule, settings, folder=folder)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


class Way(NamedTuple):
    """How a model is taught, and what is then to be seen of it."""

    base: Callable[[], Path]
    template: Literal["own", "lab"]
    learning_rate: float
    num_tokens: int
    """Rows of the published vocabulary."""
    stop: str


WAYS = {
    "own template": Way(smollm2, "own", 2e-3, 49152, "<|im_end|>"),
    # Three tokens more, and whole tiles stay whole.
    "another architecture, lab template": Way(gemma3, "lab", 2e-3, 262208, "<|endoftext|>"),
}


class Published(NamedTuple):
    """A directory of a model that was taught two facts."""

    folder: Path
    way: Way


@pytest.fixture(scope="module", params=WAYS)
def published(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Published:
    pytest.importorskip("peft", reason="the extra feldspar[lora] is not installed")
    way = WAYS[request.param]
    here = tmp_path_factory.mktemp("real")
    config = StudentConfig(
        base=str(way.base()),
        template=way.template,
        lora=LoraConfig(rank=8),
        device="cpu",
        dtype="bfloat16",
    )
    recipe = Recipe(taxonomy={"path": "t"}, student=config, publish=PublishConfig())

    def train(workspace: Workspace) -> Iterator[Checkpoint]:
        student = load_to_train(config.base, config, seed=1)
        losses = taught(student, here / "fit", 14, way.learning_rate)
        assert losses[-1] < 0.1 * losses[0]
        yield save_checkpoint(student, workspace.folder / "model", phase="skills", step=14)

    with all_threads(), Run(here / "run", recipe) as opened:
        do_step(opened, "trained", train)
        publish_run(opened.path, here / "out")
    return Published(here / "out", way)


def test_what_was_taught_is_published_and_stops_in_plain_transformers(
    published: Published,
) -> None:
    folder, way = published
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    assert ("<|user|>" in tokenizer.get_vocab()) == (way.template == "lab")
    assert config["vocab_size"] == way.num_tokens
    with all_threads():
        for (question, answer), ids in zip(
            FACTS.items(), theirs(folder, tuple(FACTS)), strict=True
        ):
            text = tokenizer.decode(ids, skip_special_tokens=True)
            assert text.strip() == answer, question
            assert tokenizer.convert_ids_to_tokens(ids[-1]) == way.stop


def asked_of(server: Any, path: str, body: object) -> Any:
    request = urllib.request.Request(
        f"{server.listening_address}{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def test_llama_cpp_reads_the_file_as_we_do() -> None:
    xllamacpp = pytest.importorskip(
        "xllamacpp", reason="llama.cpp is not here: pip install xllamacpp"
    )
    folder = smollm2()
    params = xllamacpp.CommonParams()
    params.model.path = str(smollm2_file())
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_parallel, params.n_ctx = 1, 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.use_jinja = True
    server = xllamacpp.Server(params)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [
        "In 1985, 12 of 300 people's houses  burned\n\n  down!",
        "   3.14159 and 1,000,000",
        "Zürich, 東京 and 😀 - don't\tstop",
        "<|im_start|>user\nHi<|im_end|>\n",
        "\n\n\n a\r\n",
    ]
    for text in texts:
        told = asked_of(server, "/tokenize", {"content": text, "parse_special": True})
        assert told["tokens"] == tokenizer(text)["input_ids"], text
    student = load_student(str(folder), StudentConfig(base=str(folder), device="cpu"))
    ids = student.template.render_prompt([Message(role="user", content=QUESTIONS[0])])
    wanted = {"prompt": ids, "n_predict": 1, "temperature": 0, "n_probs": 5}
    told = asked_of(server, "/completion", wanted)
    with torch.no_grad(), all_threads():
        expected = student.model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
    for token in told["completion_probabilities"][0]["top_logprobs"]:
        # llama.cpp multiplies in eight bits: .11 apart at most when this was written.
        assert token["logprob"] == pytest.approx(expected[token["id"]].item(), abs=0.3), token
    chat = {"messages": [{"role": "user", "content": QUESTIONS[0]}], "max_tokens": 1}
    told = asked_of(server, "/v1/chat/completions", chat)
    # The template in the file writes the same prompt there and here.
    assert told["usage"]["prompt_tokens"] == len(ids)
