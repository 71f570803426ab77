"""How fast answers are scored: padded batches in RewardBench's manner, packed trees, and the limit.

    python benchmarks/reward.py [--prompts 32] [--threads 2] [--out benchmarks/reward_WHAT_DATE.md]

32 prompts of 300 tokens with 16 answers of 20 to 200 each, a Llama of 60 million parameters in
bfloat16 on the CPU. The ways are measured in turn, prompt by prompt, so that a disturbed machine
disturbs all alike; their CPU seconds are compared.

The limit is the linear layers alone, each prompt and each answer once and the head at answers only,
at the best rate of matrix products seen in the same run: nothing can be further ahead of padded
batches than it is. It depends on the processor: AMX makes products ten times as fast, and nothing
else; `ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16` before the command leaves it out.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from feldspar.config import StudentConfig
from feldspar.student.model import Student, make_student
from feldspar.student.scoring.score import Tree, score_trees

VOCABULARY, HIDDEN, LAYERS, WIDE = 32_000, 512, 8, 1536
PROMPT_TOKENS, NUM_ANSWERS, SHORTEST, LONGEST = 300, 16, 20, 200
ROWS_PER_BATCH = 8
"""RewardBench's default."""


class Turn(NamedTuple):
    """CPU seconds for one prompt with its answers."""

    padded: float
    packed: float
    compiled: float
    limit: float


def make_model() -> Student:
    torch.manual_seed(1)
    vocabulary = {f"t{i}": i for i in range(VOCABULARY)} | {"<|pad|>": VOCABULARY - 1}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t0")), pad_token="t1"
    )
    config = LlamaConfig(
        vocab_size=VOCABULARY + 8, hidden_size=HIDDEN, intermediate_size=WIDE,
        num_hidden_layers=LAYERS, num_attention_heads=8, num_key_value_heads=8,
        max_position_embeddings=1024,
    )  # fmt: skip
    student = make_student(
        LlamaForCausalLM(config), tokenizer, StudentConfig(base="", device="cpu", dtype="bfloat16")
    )
    student.model.to(torch.bfloat16)
    return student


def make_tree(rng: random.Random) -> Tree:
    def ids(count: int) -> list[int]:
        return [rng.randrange(2, VOCABULARY) for _ in range(count)]

    answers = [ids(rng.randint(SHORTEST, LONGEST)) for _ in range(NUM_ANSWERS)]
    return Tree(prompt=ids(PROMPT_TOKENS), continuations=answers)


def score_padded(model: LlamaForCausalLM, tree: Tree) -> list[float]:
    """Arrival order, padded on the right, all logits, log-softmax in their own type."""
    totals: list[float] = []
    for start in range(0, len(tree.continuations), ROWS_PER_BATCH):
        rows = [[*tree.prompt, *c] for c in tree.continuations[start : start + ROWS_PER_BATCH]]
        width = max(map(len, rows))
        ids_BT = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask_BT = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        logits = model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits
        found = logits[:, :-1].log_softmax(-1).gather(2, ids_BT[:, 1:, None])[..., 0].float()
        counted = mask_BT[:, 1:].clone()
        counted[:, : len(tree.prompt) - 1] = 0
        totals += (found * counted).sum(1).tolist()
    return totals


def exact(student: Student, tree: Tree) -> list[float]:
    """One answer at a time with float32 weights and sums."""
    model = student.model.float()
    totals = []
    for answer in tree.continuations:
        logits = model(torch.tensor([[*tree.prompt, *answer]])).logits[0].double()
        rows = logits.log_softmax(-1)[len(tree.prompt) - 1 : -1]
        totals.append(float(rows.gather(1, torch.tensor(answer)[:, None]).sum()))
    return totals


def num_operations(tree: Tree) -> int:
    answered = sum(map(len, tree.continuations))
    layers = LAYERS * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * WIDE)
    return 2 * (layers * (len(tree.prompt) + answered) + VOCABULARY * HIDDEN * answered)


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def matmul_rate(first: Tensor, second: Tensor) -> float:
    """Operations per CPU second."""
    operations = 2 * first.shape[0] * first.shape[1] * second.shape[1]
    return operations / cpu_seconds(lambda: first @ second)


def run(num_prompts: int, student: Student) -> tuple[list[Turn], float]:
    rng = random.Random(1)
    operands = [(torch.randn(2048, k).bfloat16(), torch.randn(k, n).bfloat16())
                for k, n in ((512, 1536), (1536, 512), (512, 4096), (1024, 4096))]  # fmt: skip
    faster = replace(student, compile=True)
    rate = 0.0
    measured = []
    for number in range(num_prompts + 1):
        tree = make_tree(rng)
        rate = max(rate, *(matmul_rate(*pair) for pair in operands for _ in range(2)))
        padded = cpu_seconds(lambda tree=tree: score_padded(student.model, tree))
        packed = cpu_seconds(lambda tree=tree: score_trees(student, [tree]))
        compiled = cpu_seconds(lambda tree=tree: score_trees(faster, [tree]))
        if number:  # the first is for warming up and compiling
            measured.append((padded, packed, compiled, num_operations(tree)))
            print(
                f"{number}: {padded:.2f} s, {packed:.2f} s, {compiled:.2f} s, "
                f"{rate / 1e9:.0f} GFLOP/s",
                flush=True,
            )
    return [Turn(*seconds, n / rate) for *seconds, n in measured], rate


def errors(student: Student) -> tuple[float, float, float]:
    """Largest error per token: packed in bfloat16, padded in bfloat16, packed in float32."""
    tree = make_tree(random.Random(2))
    lengths = [len(answer) for answer in tree.continuations]
    packed = [s.total for s in score_trees(student, [tree])[0]]
    padded = score_padded(student.model, tree)
    expected = exact(student, tree)
    plain = Student(
        model=student.model, tokenizer=student.tokenizer, template=student.template,
        device=student.device, dtype=torch.float32,
    )  # fmt: skip
    whole = [s.total for s in score_trees(plain, [tree])[0]]

    def worst(found: list[float]) -> float:
        return max(abs(f - e) / n for f, e, n in zip(found, expected, lengths, strict=True))

    return worst(packed), worst(padded), worst(whole)


def shares(student: Student) -> dict[str, float]:
    """Which part of a packed pass is what: of each operation the least time of five passes."""
    tree = make_tree(random.Random(2))
    least: dict[str, float] = {}
    for _ in range(5):
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            score_trees(student, [tree])
        for row in seen.key_averages():
            before = least.get(row.key, float("inf"))
            least[row.key] = min(before, row.self_cpu_time_total)
    kinds = dict.fromkeys(("products", "attention", "rest"), 0.0)
    for name, spent in least.items():
        is_product = name in ("aten::mm", "aten::addmm", "aten::bmm")
        kinds["products" if is_product else "attention" if "attention" in name else "rest"] += spent
    return {kind: spent / sum(least.values()) for kind, spent in kinds.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    student = make_model()
    with torch.inference_mode():
        turns, rate = run(arguments.prompts, student)
        parts = shares(replace(student, compile=True))
        packed_error, padded_error, float_error = errors(student)
    padded, packed, compiled, limit = (sum(column) for column in zip(*turns, strict=True))
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA")
    command = f"ONEDNN_MAX_CPU_ISA={isa} " if isa else ""
    command += f"python benchmarks/reward.py --prompts {len(turns)} --threads {arguments.threads}"
    page = f"""# Scoring sixteen answers to a prompt

{len(turns)} prompts of {PROMPT_TOKENS} tokens, {NUM_ANSWERS} answers of {SHORTEST} to {LONGEST}
each; Llama of {student.num_parameters / 1e6:.0f} million parameters, bfloat16, {arguments.threads}
thread(s). CPU seconds, measured in turn within one run.

| method | CPU seconds | times padded batches | of the limit |
|---|---:|---:|---:|
| padded batches of {ROWS_PER_BATCH}, all logits | {padded:.1f} | 1.0 | {limit / padded:.2f} |
| packed trees (`score_trees`) | {packed:.1f} | {padded / packed:.1f} | {limit / packed:.2f} |
| the same, layers compiled | {compiled:.1f} | {padded / compiled:.1f} | {limit / compiled:.2f} |
| limit: linear layers at {rate / 1e9:.0f} GFLOP/s | {limit:.1f} | {padded / limit:.1f} | 1.00 |

Of a compiled pass {parts["products"]:.0%} are matrix products, {parts["attention"]:.0%}
attention, {parts["rest"]:.0%} the rest: norms, rotation, activation, log-sum-exp, copies.

Largest error of an answer against one answer at a time in float32, in nats per token: packed
{packed_error:.1e}, padded {padded_error:.1e} (bfloat16 both); packed in float32 {float_error:.1e}.

{os.cpu_count()} cores, {platform.processor() or platform.machine()}, Python
{platform.python_version()}, torch {version("torch")}, transformers {version("transformers")}.
Again: `{command}`
"""
    print(page)
    if arguments.out:
        arguments.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
