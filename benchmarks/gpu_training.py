"""Full fine-tuning on one large GPU: speed, MFU and memory of 7B parameters, and 1B against TRL.

    python benchmarks/gpu_training.py [--out benchmarks/gpu_training_WHAT_DATE.md]

Random weights, 4,096 tokens of context, chats with lognormal lengths (median 120 tokens); one case
has rows of 4,096 tokens. Takes under eight minutes on an H200: cases that would begin after
`--minutes` are left out and named. Without a CUDA device it says so and ends; `--tiny` runs every
case with a model of 600,000 weights on whatever is there. TRL is timed where it is installed.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from training_arms import Job, chats, make_bench_student, run_trl

from feldspar.records import Conversation
from feldspar.student.token_rows import TokenRows, tokenise
from feldspar.student.training.loop import Loop
from feldspar.student.training.optimizer import OptimizerStates
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings
from feldspar.student.training.signals import Stops

CONTEXT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One measurement of ours; `rows` are chats, or all of 4,096 tokens."""

    size: str
    recompute: str
    token_budget: int
    batch: int
    rows: str = "chats"
    states: OptimizerStates = "bfloat16"


CASES = (
    Case(size="7B", recompute="never", token_budget=4096, batch=256),
    Case(size="7B", recompute="always", token_budget=16384, batch=256),
    Case(size="7B", recompute="always", token_budget=16384, batch=8, rows="4,096 tokens"),
    Case(size="7B", recompute="auto", token_budget=8192, batch=256),
    Case(size="1B", recompute="never", token_budget=16384, batch=256, states="float32"),
)


def run_case(case: Case, size: str, steps: int) -> dict[str, Any]:
    """Medians over `steps` optimizer steps after a first that is not counted."""
    torch.manual_seed(0)
    student = make_bench_student(size, "bfloat16", device_kind())
    rows = rows_of(student.template, case, steps)
    schedule = Schedule(
        sources=(SourceRows(name="chats", num_rows=len(rows)),),
        batch_samples=case.batch,
        num_epochs=1,
        phase="benchmark",
        seed=1,
    )
    settings = FitSettings(
        learning_rate=1e-5,
        tokens_per_micro_batch=case.token_budget,
        optimizer_states=case.states,
        activation_checkpointing=case.recompute,
    )
    reset_peak()
    with tempfile.TemporaryDirectory() as here:
        # Not `fit`: it would hash the weights and write a state of tens of gigabytes.
        loop = Loop(student, rows, schedule, settings, Path(here), key="benchmark")
        for _ in range(min(steps + 1, schedule.num_steps)):
            loop.do_step(Stops())
        lines = [json.loads(x) for x in (Path(here) / "metrics.jsonl").read_text().splitlines()]
    timed = lines[1:] or lines
    recomputed = "yes" if loop.forward.checkpoint_activations else "no"
    return {
        "parameters": student.num_parameters,
        "recomputed": recomputed,
        "tokens_per_second": statistics.median(x["tokens_per_second"] for x in timed),
        "mfu": statistics.median(x["mfu"] for x in timed),
        "peak_gib": peak_gib(),
        "seconds": [x["seconds"] for x in timed],
        "shares": {
            name: round(statistics.median(x[f"{name}_seconds"] / x["seconds"] for x in timed), 3)
            for name in ("data", "forward", "backward", "optimizer")
        },
    }


def rows_of(template: Any, case: Case, steps: int) -> TokenRows:
    num = case.batch * (steps + 1)
    picked: Sequence[Conversation] = chats(num, longest=CONTEXT)
    if case.rows != "chats":
        picked = chats(num, median=10 * CONTEXT, longest=CONTEXT)
    return tokenise(template, [("chats", picked)], CONTEXT)


def run_trl_case(case: Case, size: str, steps: int) -> dict[str, Any]:
    """SFTTrainer, its defaults, with the samples and the step size of our case."""
    student = make_bench_student(size, "bfloat16", "cpu")
    rows = rows_of(student.template, case, steps)
    del student
    order = list(range(len(rows)))
    batches = tuple(tuple(order[i : i + case.batch]) for i in range(0, len(order), case.batch))
    reset_peak()
    with tempfile.TemporaryDirectory() as here, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        job = Job(
            size=size,
            dtype="bfloat16",
            rows=rows,
            steps=batches,
            token_budget=0,
            here=Path(here),
            device=device_kind(),
        )
        with redirect_stdout(sys.stderr):
            times = run_trl(job)
    tokens = sum(int(rows.lengths[list(batch)].sum()) for batch in batches[1:])
    return {
        "recomputed": "yes",
        "tokens_per_second": tokens / (times[-1] - times[0]),
        "peak_gib": peak_gib(),
    }


def device_kind() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def reset_peak() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0


def attempt(name: str, case: Case, run: Any, size: str, steps: int) -> dict[str, Any]:
    """A result, or why there is none: one case that does not fit must not cost the others."""
    try:
        result: dict[str, Any] = run(case, size, steps)
    except torch.OutOfMemoryError:
        result = {"failed": "out of memory", "peak_gib": peak_gib()}
    print(name, case, result, file=sys.stderr, flush=True)
    return {"arm": name, "case": case, **result}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    started = time.monotonic()
    jobs: list[tuple[str, Case, Any]] = [("feldspar", case, run_case) for case in CASES]
    if find_spec("trl") is not None:
        jobs.append(("trl", CASES[-1], run_trl_case))
    results = []
    for name, case, run in jobs:
        if time.monotonic() - started > 60 * options.minutes:
            results.append({"arm": name, "case": case, "failed": "left out: no time"})
            continue
        if options.tiny:
            case = Case(
                size=case.size,
                recompute=case.recompute,
                token_budget=case.token_budget,
                batch=8,
                rows=case.rows,
                states=case.states,
            )
        results.append(
            attempt(name, case, run, "tiny" if options.tiny else case.size, options.steps)
        )
        reset_peak()
    return results


def table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| model | arm | rows | tokens at once | moments | recomputed | tokens/s | MFU | peak GiB "
        "| data, forward, backward, optimizer |",
        "|---|---|---|---:|---|---|---:|---:|---:|---|",
    ]
    for r in results:
        case: Case = r["case"]
        head = f"| {case.size} | {r['arm']} | {case.rows} "
        head += f"| {case.token_budget:,} | {case.states} " if r["arm"] == "feldspar" else "| | "
        if "failed" in r:
            lines.append(f"{head}| {case.recompute} | {r['failed']} | | | |")
            continue
        shares = ", ".join(f"{v:.2f}" for v in r.get("shares", {}).values())
        mfu = f"{r['mfu']:.3f}" if "mfu" in r else ""
        lines.append(
            f"{head}| {r['recomputed']} | {r['tokens_per_second']:,.0f} | {mfu} "
            f"| {r['peak_gib']:.1f} | {shares} |"
        )
    return "\n".join(lines)


def report(results: list[dict[str, Any]]) -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return "\n".join(
        [
            "# Training speed on a GPU",
            "",
            f"{device}; {versions()}. MFU is against the matmul peak measured at the start.",
            "",
            table(results),
            "",
            f"    python benchmarks/gpu_training.py {' '.join(sys.argv[1:])}",
            "",
        ]
    )


def versions() -> str:
    found = [f"Python {platform.python_version()}", f"CUDA {torch.version.cuda}"]
    for name in ("torch", "transformers", "trl"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description="Training speed on one large GPU.")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to try the script")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a case")
    parser.add_argument("--minutes", type=float, default=6.5, help="no case begins later")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.tiny:
        print("no CUDA device here: nothing was measured")
        return
    text = report(measure(options))
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
