"""Rows that every run may find again: kept under what they were made from, and made anew where the
file is damaged."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from feldspar.errors import RunError
from feldspar.runs import read_rows, write_rows

R = TypeVar("R")
log = logging.getLogger(__name__)


def kept_path(cache_path: Path, key: str) -> Path:
    """Where rows of a content key are kept."""
    return cache_path / key[:2] / f"{key}.jsonl.zst"


def read_kept(path: Path, record: type[R], instead: str) -> list[R] | None:
    """The rows at `path`. None where there are none, or where the file is damaged: that is logged,
    with what happens `instead`."""
    if not path.exists():
        return None
    try:
        return list(read_rows(path, record))
    except RunError as damage:
        log.warning("%s; %s", damage, instead)
        return None


def keep(path: Path, rows: Sequence[object]) -> None:
    """Keep rows for every run; several processes may keep the same at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, rows, is_shared=True)
