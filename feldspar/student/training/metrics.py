"""Numbers of each optimizer step, one JSON line each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from feldspar.files import write_bytes_whole
from feldspar.stored import reading
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.schedule import Indices


class SourceMetrics(TypedDict):
    """A source's part of a step."""

    loss: float
    samples: int
    supervised_tokens: int


def by_source(
    rows: TokenRows, step: Indices, counts: NDArray[np.int32], sums: Sequence[float]
) -> dict[str, SourceMetrics]:
    """Of the rows of a `step`, each counted `counts` times, and of sums of losses by source. A
    source without a row in it is left out."""
    names = rows.source_names
    sources = rows.source_of[step]
    samples = np.bincount(sources, minlength=len(names))
    counted = np.bincount(sources, weights=counts, minlength=len(names))
    return {
        name: {"loss": total / count, "samples": int(num), "supervised_tokens": int(count)}
        for name, total, count, num in zip(names, sums, counted, samples, strict=True)
        if count
    }


def append_metrics(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def forget_after(path: Path, phase: str, step: int) -> None:
    """Take out what a killed run wrote of steps that will be done again, and the line that it was
    writing. Raises RunError where another line is damaged."""
    if not path.is_file():
        return
    kept = []
    with reading(path):
        for text in path.read_bytes().split(b"\n")[:-1]:
            line = json.loads(text)
            if line["phase"] != phase or line["step"] <= step:
                kept.append(text + b"\n")
    write_bytes_whole(path, b"".join(kept))
