"""Files and folders that are there whole or not at all: written beside, flushed, renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder beside `path` to write into; it is renamed when the block ends well."""
    beside = path.with_name(path.name + ".part")
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
    beside = path.with_name(path.name + ".part")
    try:
        yield beside
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _flush(beside)
    beside.replace(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
