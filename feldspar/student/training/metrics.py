"""Numbers of each optimizer step, one JSON line each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from feldspar.files import whole_file


def append_metrics(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def forget_after(path: Path, phase: str, step: int) -> None:
    """Take out what a killed run wrote of steps that will be done again, torn lines too."""
    if not path.is_file():
        return
    kept = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if line["phase"] != phase or line["step"] <= step:
            kept.append(text + "\n")
    with whole_file(path) as beside:
        beside.write_text("".join(kept), encoding="utf-8")
