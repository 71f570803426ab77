"""The benchmarks of the shared data as files in the columns of the hub's data sets.

ARC's choices become two lists, HellaSwag's context is parted again, and its train split is made of
validation items that are not scored; nothing else is changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny_run

SOURCE = tiny_run.SHARED / "data" / "benchmarks"


def write_benchmarks(folder: Path) -> dict[str, Path]:
    """A folder for each of the five tasks, by its name."""
    arc = {
        "train": [_arc(r) for r in _rows("arc_challenge/train.jsonl")],
        "test": [_arc(r) for r in _rows("arc_challenge/test.jsonl")],
    }
    hellaswag = [_hellaswag(r) for r in _rows("hellaswag/val_3000.jsonl")]
    splits = {
        "mmlu": {
            "dev": _rows("mmlu/dev.jsonl"),
            "test": _rows("mmlu/test_50_per_subject.jsonl"),
        },
        "arc_challenge": arc,
        "hellaswag": {"train": hellaswag[100:400], "validation": hellaswag[:100]},
        "winogrande": {
            "train": _rows("winogrande/train_m.jsonl"),
            "validation": _rows("winogrande/dev.jsonl"),
        },
        "gsm8k": {"train": _rows("gsm8k/train.jsonl"), "test": _rows("gsm8k/test.jsonl")},
    }
    for task, of_task in splits.items():
        (folder / task).mkdir(parents=True)
        for split, rows in of_task.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / task / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return {task: folder / task for task in splits}


def _arc(row: dict[str, Any]) -> dict[str, Any]:
    choices = {key: [choice[key] for choice in row["choices"]] for key in ("text", "label")}
    return {**row, "choices": choices}


def _hellaswag(row: dict[str, Any]) -> dict[str, Any]:
    label, _, context = row["ctx"].partition(": ")
    first, mark, last = context.rpartition(". ")
    return {
        "ind": row["ind"],
        "activity_label": label,
        "ctx_a": first + mark.strip(),
        "ctx_b": last,
        "ctx": context,
        "endings": row["endings"],
        "label": str(row["label"]),
    }


def _rows(name: str) -> list[dict[str, Any]]:
    text = (SOURCE / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]
