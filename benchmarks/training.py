"""Training speed on a CPU: `fit` against TRL, a padded Trainer, and the machine's own matmul peak.

    python benchmarks/training.py [--quick] [--sizes 12M 60M] [--dtypes float32 bfloat16] [--out F]

2,000 synthetic chats with lognormal lengths (median 120 tokens, at most 1,024), vocabulary 8k. All
arms train the same samples in the same order, `--batch` samples an optimizer step, one after the
other in each round, each round beginning with another arm; all rounds count together. An
arm's first step in a round is not timed. The peer arms are given rows that are tokenised already.
Needs `trl`, `accelerate` and `datasets` beside Feldspar.

Beside AMX, oneDNN can be told to use less: ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 shows a processor
that has avx512_bf16 alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from training_arms import (
    ARMS,
    CPU_TIMES,
    SIZES,
    VOCABULARY,
    Job,
    chats,
    make_bench_student,
)

from feldspar.cli.main import WAITING
from feldspar.student.token_rows import TokenRows, tokenise
from feldspar.student.training.settings import FitSettings

CPU_SIZES = ("1M", "12M", "60M", "135M")
FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile")


class Timed(NamedTuple):
    """Wall and CPU seconds of one arm's timed steps, and the tokens in them."""

    seconds: float
    cpu_seconds: float
    total_tokens: int
    supervised_tokens: int
    flops: float


def flops_of(size: str, rows: TokenRows, indices: list[int]) -> float:
    """Floating-point operations that a step needs: forward once, backward twice.

    6 per weight of the layers and token, 6 per weight of the head and *supervised* token, causal
    attention 6 * layers * hidden * length^2. What an arm computes beyond (padding, the head at
    other places, the forward pass again) does not count.
    """
    shape = SIZES[size]
    hidden, layers = shape["hidden_size"], shape["num_hidden_layers"]
    keys = 64 * shape.get("num_key_value_heads", hidden // 64)
    linear = layers * hidden * (2 * hidden + 2 * keys + 3 * shape["intermediate_size"])
    head = hidden * shape.get("vocab_size", VOCABULARY)
    total = 0.0
    for index in indices:
        ids, mask = rows.row(index)
        total += 6 * linear * len(ids) + 6 * head * int(mask.sum())
        total += 6 * layers * hidden * len(ids) ** 2
    return total


def time_arm(name: str, job: Job) -> Timed:
    """An arm in a process of its own, its threads waiting as its users' do."""
    for key, value in WAITING.items():
        os.environ.pop(key, None)
        if name.startswith("feldspar"):
            os.environ[key] = value
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(run_arm, name, job, torch.get_num_threads()).result()


def run_arm(name: str, job: Job, num_threads: int) -> Timed:
    """The time between the end of an arm's first step and of its last."""
    torch.set_num_threads(num_threads)
    CPU_TIMES.clear()
    # The peers print their last figures.
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        times = ARMS[name](job)
    gc.collect()
    # Packing peers make other steps of the same samples: what ran after the first is prorated.
    timed = [i for step in job.steps[1:] for i in step]
    everything = [i for step in job.steps for i in step]
    share = 1.0
    if len(times) != len(job.steps):
        tokens = [int(job.rows.lengths[list(x)].sum()) for x in (timed, everything)]
        share = (len(times) - 1) / len(times) * tokens[1] / tokens[0]
    lengths = job.rows.lengths[timed]
    return Timed(
        seconds=(times[-1] - times[0]) / share,
        cpu_seconds=(CPU_TIMES[-1] - CPU_TIMES[0]) / share,
        total_tokens=int(lengths.sum()),
        supervised_tokens=sum(int(job.rows.row(i).mask.sum()) for i in timed),
        flops=flops_of(job.size, job.rows, timed),
    )


def matmul_peak(dtype: str) -> float:
    """Best FLOP/s of several shapes of `linear`, at the threads that are set."""
    kind = getattr(torch, dtype)
    best = 0.0
    for rows, inner, outer in (
        (2048,) * 3,
        (4096, 1024, 4096),
        (4096, 768, 2048),
        (4096, 384, 1024),
    ):
        a, b = torch.randn(rows, inner).to(kind), torch.randn(outer, inner).to(kind)
        for _ in range(8):
            started = time.perf_counter()
            torch.nn.functional.linear(a, b)
            best = max(best, 2 * rows * inner * outer / (time.perf_counter() - started))
    return best


def run_case(size: str, dtype: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All arms, interleaved over rounds; one result an arm."""
    rows = tokenise(make_bench_student(size, dtype).template, [("chats", chats(2000))], 1024)
    order = np.random.default_rng(1).permutation(len(rows)).tolist()
    seen: dict[str, list[Timed]] = {name: [] for name in options.arms}
    peaks = []
    per_round = options.batch * (options.steps + 1)
    for number in range(options.first_round, options.rounds):
        start = number * per_round % (len(order) - per_round + 1)
        cut = order[start : start + per_round]
        steps = tuple(tuple(cut[i : i + options.batch]) for i in range(0, per_round, options.batch))
        names = (
            options.arms[number % len(options.arms) :] + options.arms[: number % len(options.arms)]
        )
        peaks.append(matmul_peak(dtype))
        for name in names:
            with tempfile.TemporaryDirectory() as here:
                job = Job(
                    size=size,
                    dtype=dtype,
                    rows=rows,
                    steps=steps,
                    token_budget=options.token_budget,
                    here=Path(here),
                )
                seen[name].append(time_arm(name, job))
            print(size, dtype, name, seen[name][-1], file=sys.stderr, flush=True)
    peak = max(peaks)
    return [summary(size, dtype, name, seen[name], peak) for name in options.arms]


def summary(size: str, dtype: str, name: str, seen: list[Timed], peak: float) -> dict[str, Any]:
    """Over all rounds together: how much a peer pads is different in each."""
    seconds = sum(t.seconds for t in seen)
    tokens = sum(t.total_tokens for t in seen)
    return {
        "size": size,
        "dtype": dtype,
        "arm": name,
        "tokens_per_second": tokens / seconds,
        "supervised_per_second": sum(t.supervised_tokens for t in seen) / seconds,
        "share_of_peak": sum(t.flops for t in seen) / seconds / peak,
        "cpu_ms_per_token": 1e3 * sum(t.cpu_seconds for t in seen) / tokens,
        "peak_gflops": peak / 1e9,
        "seconds": [round(t.seconds, 2) for t in seen],
    }


def table(results: list[dict[str, Any]]) -> str:
    head = (
        "| size | dtype | arm | total tokens/s | supervised tokens/s | x TRL | share of the peak "
    )
    lines = [head + "| CPU ms a token |", "|---|---|---|---:|---:|---:|---:|---:|"]
    for r in results:
        case = [o for o in results if (o["size"], o["dtype"]) == (r["size"], r["dtype"])]
        base = next((o["tokens_per_second"] for o in case if o["arm"] == "trl"), math.nan)
        lines.append(
            f"| {r['size']} | {r['dtype']} | {r['arm']} | {r['tokens_per_second']:,.0f} | "
            f"{r['supervised_per_second']:,.0f} | {r['tokens_per_second'] / base:.2f} | "
            f"{r['share_of_peak']:.3f} | {r['cpu_ms_per_token']:.3f} |"
        )
    return "\n".join(lines)


def processor() -> str:
    """Its name, and which of the vector extensions that matter here it has."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or platform.machine()
    text = path.read_text()
    name = next((x.split(":")[1].strip() for x in text.splitlines() if "model name" in x), "CPU")
    flags = next((x.split(":")[1].split() for x in text.splitlines() if x.startswith("flags")), [])
    return f"{name}, {os.cpu_count()} cores, {' '.join(f for f in FEATURES if f in flags)}"


def report(results: list[dict[str, Any]], options: argparse.Namespace) -> str:
    libraries = ("torch", "transformers", "trl", "accelerate")
    peaks = {(r["dtype"]): r["peak_gflops"] for r in results}
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA", "not limited")
    return "\n".join(
        [
            "# Training speed on a CPU",
            "",
            f"{processor()}; {torch.get_num_threads()} threads; ONEDNN_MAX_CPU_ISA {isa}; "
            f"Python {platform.python_version()}, "
            + ", ".join(f"{name} {version(name)}" for name in libraries)
            + ".",
            "Matmul peak: " + ", ".join(f"{d} {p:,.0f} GFLOP/s" for d, p in peaks.items()) + ".",
            f"{options.rounds} rounds of {options.steps} timed steps of {options.batch} samples "
            "each, the same samples for every arm, arms interleaved, each in a process of its own; "
            "all rounds together. Threads wait as the command line has it "
            f"({' '.join(f'{k}={v}' for k, v in WAITING.items())}), the peers' as torch has it.",
            "",
            table(results),
            "",
            f"    {options.environment}python benchmarks/training.py {' '.join(sys.argv[1:])}",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Training speed on a CPU, against peers.")
    parser.add_argument("--sizes", nargs="+", default=["12M", "60M"], choices=CPU_SIZES)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--first-round", type=int, default=0, help="begin with this, to go on")
    parser.add_argument("--steps", type=int, default=2, help="timed steps a round")
    parser.add_argument("--batch", type=int, default=64, help="samples an optimizer step")
    parser.add_argument(
        "--token-budget", type=int, default=FitSettings(learning_rate=1).tokens_per_micro_batch
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="one round of one step")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.steps = 1, 1
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA")
    options.environment = f"ONEDNN_MAX_CPU_ISA={isa} " if isa else ""
    torch.set_num_threads(options.threads)
    results = [
        r
        for size in options.sizes
        for dtype in options.dtypes
        for r in run_case(size, dtype, options)
    ]
    text = report(results, options)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
        options.out.with_suffix(".json").write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
