"""Our sampler against transformers' `generate` with num_return_sequences, at the same lengths.

    python benchmarks/sampling.py [--dtype bfloat16] [--prompts 8] [--their-prompts 1] [--rounds 3]

A Llama of 58 million random weights on the CPU; prompts of 300 tokens, 16 answers each of 20 to 200
tokens, drawn at temperature 1. Both are made to end each answer at the same token, whatever is
drawn. `generate` takes one prompt after another, so it is given fewer of them: its tokens a second
are the same. Rounds are interleaved in one process; what counts is the ratio.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.generation import LogitsProcessor, LogitsProcessorList

from feldspar.config import StudentConfig
from feldspar.student.inference import engine as engine_module
from feldspar.student.inference.engine import Engine, EngineRow, Request
from feldspar.student.model import Student, make_student

VOCABULARY, PROMPT_TOKENS, NUM_ANSWERS = 32000, 300, 16
SHORTEST, LONGEST = 20, 200


def make(dtype: str) -> Student:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=2048,
    )
    words = {f"w{i}": i for i in range(VOCABULARY - 8)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")
    student_config = StudentConfig(base="", device="cpu", dtype=dtype)
    return make_student(LlamaForCausalLM(config), fast, student_config)


class EndAt(LogitsProcessor):
    """Leaves only the stop token at each row's length, and never before."""

    def __init__(self, lengths: list[int], start: int, stop_id: int) -> None:
        self.lengths, self.start, self.stop_id = torch.tensor(lengths), start, stop_id

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        ends = self.lengths <= input_ids.shape[1] - self.start + 1
        scores[:, self.stop_id] = torch.where(ends, 1e9, -torch.inf)
        return scores


class EndingEngine(Engine):
    """Ours, told where each answer ends."""

    lengths: dict[tuple[int, int], int]

    def _read(self, rows: list[EngineRow]) -> None:
        for row in rows:
            if len(row.ids) == self.lengths[row.request.keys[0], row.draw]:
                row.finish = "stop"


def ours(student: Student, prompts: list[list[int]], lengths: list[list[int]]) -> int:
    engine = EndingEngine(student)
    engine.lengths = {}
    for number, (ids, of_prompt) in enumerate(zip(prompts, lengths, strict=True)):
        keys = [number * NUM_ANSWERS + draw for draw in range(NUM_ANSWERS)]
        engine.lengths |= {(keys[0], draw): n for draw, n in enumerate(of_prompt)}
        engine.add(Request(ids=ids, keys=keys, max_new_tokens=LONGEST, temperature=1.0))
    num_tokens = 0
    while engine.is_busy:
        num_tokens += len(engine.step())
    return num_tokens


def theirs(student: Student, model: Any, prompts: list[list[int]], lengths: list[list[int]]) -> int:
    num_tokens = 0
    stop_id = student.template.stop_id
    for ids, of_prompt in zip(prompts, lengths, strict=False):
        output = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            num_return_sequences=NUM_ANSWERS,
            max_new_tokens=LONGEST,
            eos_token_id=stop_id,
            pad_token_id=student.template.pad_id,
            logits_processor=LogitsProcessorList([EndAt(of_prompt, len(ids), stop_id)]),
        )
        new = output[:, len(ids) :]
        num_tokens += int((new != student.template.pad_id).sum())
    return num_tokens


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--their-prompts", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    student = make(arguments.dtype)
    plain = student.model
    if arguments.dtype == "bfloat16":
        plain = LlamaForCausalLM(student.model.config).to(torch.bfloat16).eval()
        plain.load_state_dict(student.model.state_dict())
    rng = random.Random(1)
    prompts = [
        [rng.randrange(VOCABULARY - 16) for _ in range(PROMPT_TOKENS)]
        for _ in range(arguments.prompts)
    ]
    spread = np.linspace(SHORTEST, LONGEST, NUM_ANSWERS).round().astype(int).tolist()
    lengths = [rng.sample(spread, NUM_ANSWERS) for _ in prompts]
    few = prompts[: arguments.their_prompts]
    ways = {
        "transformers": lambda: theirs(student, plain, few, lengths),
        "feldspar": lambda: ours(student, prompts, lengths),
    }
    for number in range(arguments.rounds):
        found = {}
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            num_tokens = way()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            found[name] = wall / num_tokens, cpu / num_tokens
            line = {"round": number, "way": name, "tokens": num_tokens, "wall_s": round(wall, 2)}
            line |= {"cpu_s": round(cpu, 2), "tokens_per_cpu_s": round(num_tokens / cpu)}
            print(json.dumps(line), flush=True)
        ratios = [a / b for a, b in zip(found["transformers"], found["feldspar"], strict=True)]
        print(
            json.dumps(
                {
                    "round": number,
                    "wall_ratio": round(ratios[0], 2),
                    "cpu_ratio": round(ratios[1], 2),
                    "max_rows": engine_module.MAX_ROWS,
                }
            )
        )


if __name__ == "__main__":
    main()
