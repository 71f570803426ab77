"""Files and folders that are there whole or not at all: written beside, flushed, renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART_SUFFIX = ".part"
"""Of what is being written; a killed process leaves it, and nobody reads it."""


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder beside `path` to write into; it takes `path`'s place when the block ends
    well."""
    beside = path.with_name(path.name + PART_SUFFIX)
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    for file in beside.rglob("*"):
        if file.is_file():
            _flush(file)
    if path.exists():
        shutil.rmtree(path)
    beside.replace(path)
    _flush(path.parent)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a file name beside `path` to write to; it is renamed when the block ends well."""
    beside = path.with_name(path.name + PART_SUFFIX)
    try:
        yield beside
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _flush(beside)
    beside.replace(path)
    _flush(path.parent)


def write_bytes_whole(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    with whole_file(path) as beside:
        beside.write_bytes(content)


def write_text_whole(path: Path, text: str) -> None:
    """Write a text as UTF-8, with its line ends as they are."""
    write_bytes_whole(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write a value that `json` knows, indented; folders above it are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_whole(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
