"""The published benchmarks, whole: Feldspar's numbers beside those of lm_eval called by hand.

    python benchmarks/parity.py --model FOLDER --data FOLDER [--tasks ...] [--limit N] [--out F]

The data folder has one folder for each task, with the rows as the hub has them
(docs/evaluation.md). By hand is lm_eval's own `evaluate` with its own Hugging Face model, the same
task definitions and shots. Every item's score must be the same.
"""

from __future__ import annotations

import argparse
import logging
import platform
import random
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM

from feldspar.config import BenchmarkConfig, StudentConfig
from feldspar.evaluate.benchmarks.run import ask
from feldspar.evaluate.benchmarks.student_lm import StudentLM
from feldspar.evaluate.benchmarks.tasks import find_tasks, load_task

TASKS = ("mmlu", "arc_challenge", "hellaswag", "winogrande", "gsm8k")


def compare(name: str, config: BenchmarkConfig, ours: StudentLM, theirs: HFLM) -> dict[str, Any]:
    """One of lm_eval's tasks by both; scores, items that differ, CPU seconds of each."""
    asked, our_seconds = timed(lambda: ask(ours, name, config))
    random.seed(0)
    task = load_task(name, config)
    found, their_seconds = timed(
        lambda: lm_eval.evaluate(
            theirs, {name: task}, limit=config.limit, bootstrap_iters=0, log_samples=True
        )
    )
    metric, _, filtered = asked.summary["metric"].partition(" (")
    filtered = filtered.rstrip(")") or "none"
    samples = [s for s in found["samples"][name] if s["filter"] == filtered]
    values = {s["doc_id"]: float(s[metric]) for s in samples}
    differ = sum(
        item.value != values[doc_id]
        for item, doc_id in zip(asked.items, sorted(values), strict=True)
    )
    return {
        "items": len(values),
        "shots": asked.summary["num_fewshot"],
        "metric": asked.summary["metric"],
        "ours": asked.summary["value"],
        "by hand": found["results"][name][f"{metric},{filtered}"],
        "differ": differ,
        "seconds": (our_seconds, their_seconds),
    }


def timed(do: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    return do(), time.process_time() - began


def row(task: str, parts: list[dict[str, Any]]) -> str:
    """A line of the table; a group's score is the mean over items of all its tasks."""
    items = sum(part["items"] for part in parts)
    ours, theirs = (
        sum(part[who] * part["items"] for part in parts) / items for who in ("ours", "by hand")
    )
    differ = sum(part["differ"] for part in parts)
    seconds = [sum(part["seconds"][who] for part in parts) for who in (0, 1)]
    return (
        f"| {task} | {parts[0]['shots']} | {parts[0]['metric']} | {items} | {ours:.4f} | "
        f"{theirs:.4f} | {differ} | {seconds[0]:.0f} | {seconds[1]:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    student = StudentConfig(base=arguments.model, device="cpu", dtype="float32")
    ours = StudentLM(arguments.model, student, chat_template=False)
    theirs = HFLM(pretrained=arguments.model, dtype="float32", device="cpu", batch_size=8)
    torch.set_num_threads(1)
    lines = [
        "# The published benchmarks beside lm_eval called by hand\n",
        f"{Path(arguments.model).name}, float32; items as the local files have them"
        f"{f', at most {arguments.limit} a task' if arguments.limit else ''}; one thread of a "
        f"{platform.machine()}; lm_eval {version('lm_eval')}, torch {torch.__version__}.\n",
        "| task | shots | metric | items | ours | by hand | items that differ | CPU s | by hand |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    num_different = 0
    for task in arguments.tasks:
        data = str(arguments.data / task)
        config = BenchmarkConfig(task=task, data=data, limit=arguments.limit)
        parts = [compare(name, config, ours, theirs) for name in find_tasks(config)]
        num_different += sum(part["differ"] for part in parts)
        lines.append(row(task, parts))
        print(lines[-1], flush=True)
    lines.append("\n    python benchmarks/parity.py --model FOLDER --data FOLDER\n")
    if arguments.out:
        arguments.out.write_text("\n".join(lines), encoding="utf-8")
    assert num_different == 0, f"{num_different} items differ"


if __name__ == "__main__":
    main()
