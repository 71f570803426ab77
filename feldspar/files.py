"""Files and folders that are there whole or not at all: written beside, flushed, renamed."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import zstandard

_PIECE_BYTES = 1 << 17


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


class ZstdReader(io.RawIOBase):
    """What a .zst file holds, frame after frame.

    Raises zstandard.ZstdError where the file ends inside a frame: the library's own reader takes a
    file that was cut for a shorter one.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._is_inside = False
        self._packed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            packed = self._packed or self._file.read(_PIECE_BYTES)
            if not packed:
                if self._is_inside:
                    raise zstandard.ZstdError("the file ends in the middle; it was cut")
                return 0
            self._packed = b""
            self._ready = memoryview(self._frame.decompress(packed))
            self._is_inside = not self._frame.eof
            if self._frame.eof:
                self._packed = self._frame.unused_data
                self._frame = zstandard.ZstdDecompressor().decompressobj()
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
