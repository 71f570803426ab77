"""Files and folders that are there whole or not at all: written beside, flushed, renamed."""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import zstandard

_PIECE_BYTES = 1 << 17

PART_SUFFIX = ".part"
"""Of what is being written; a killed process leaves it, and nobody reads it."""
_PART = re.compile(r".+\.part(-[0-9a-f]{8})?", re.DOTALL)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder beside `path` to write into; it takes `path`'s place when the block ends
    well. Where `path` is a link, that of the folder it leads to."""
    path = path.resolve()
    beside = path.with_name(path.name + PART_SUFFIX)
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    _flush_files(beside)
    # Set aside first: what was there takes its time to delete, and a kill must not find neither.
    old = _own_place(path)
    if path.exists():
        path.replace(old)
    beside.replace(path)
    _flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def first_folder(path: Path) -> Iterator[Path]:
    """As `whole_folder`, where several processes may write the same: the first one's stays."""
    beside = _own_place(path)
    beside.mkdir(parents=True)
    try:
        yield beside
        _flush_files(beside)
        try:
            beside.replace(path)
        except OSError:
            if not path.is_dir():
                raise
        _flush(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def whole_file(path: Path, *, is_shared: bool = False) -> Iterator[Path]:
    """Give a file name beside `path` to write to; it is renamed when the block ends well.

    `is_shared`: several processes may write the same at once. A device or a pipe is written to as
    it is.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    beside = _own_place(path) if is_shared else path.with_name(path.name + PART_SUFFIX)
    try:
        yield beside
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _flush(beside)
    beside.replace(path)
    _flush(path.parent)


def checksummed() -> zstandard.ZstdCompressor:
    """What compresses every .zst file here: a bit that flips later is an error when it is read."""
    return zstandard.ZstdCompressor(level=3, write_checksum=True)


class ZstdReader(io.RawIOBase):
    """What a .zst file holds, frame after frame.

    Raises zstandard.ZstdError where the file ends inside a frame: the library's own reader takes a
    file that was cut for a shorter one.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._is_inside = False
        self.num_frames = 0
        """That have ended so far."""
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
                self.num_frames += 1
                self._packed = self._frame.unused_data
                self._frame = zstandard.ZstdDecompressor().decompressobj()
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


def write_bytes_whole(path: Path, content: bytes, *, is_shared: bool = False) -> None:
    """Write a file that is there whole or not at all."""
    with whole_file(path, is_shared=is_shared) as beside:
        beside.write_bytes(content)


def write_text_whole(path: Path, text: str) -> None:
    """Write a text as UTF-8, with its line ends as they are."""
    write_bytes_whole(path, text.encode("utf-8"))


def walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, where a folder that cannot be looked into is an OSError: `os.walk`, `glob` and
    `rglob` leave it out without a word."""

    def fail(error: OSError) -> None:
        raise error

    return os.walk(folder, onerror=fail)


def files_below(folder: Path, suffix: str = "") -> list[Path]:
    """Every file in a folder and the folders in it whose name ends so, sorted; none where there is
    no folder. Raises OSError where one of them cannot be looked into."""
    if not folder.exists():
        return []
    found = (Path(place, name) for place, _, names in walk(folder) for name in names)
    return sorted(path for path in found if path.name.endswith(suffix) and path.is_file())


def is_utf8(text: str | Path) -> bool:
    """Whether it can be written down: names of files may hold bytes that are no text."""
    try:
        str(text).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def write_texts_together(texts: Mapping[Path, str]) -> None:
    """Write new files, folders above them included; where one fails, the others are taken back, so
    that the same command can be repeated."""
    written: list[Path] = []
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text_whole(path, text)
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object, *, is_shared: bool = False) -> None:
    """Write a value that `json` knows, indented; folders above it are made. `is_shared`: several
    processes may write the same at once, as in the cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    write_bytes_whole(path, text.encode("utf-8"), is_shared=is_shared)


def is_part(name: str) -> bool:
    """Whether a file or folder of this name is one that is being written."""
    return _PART.fullmatch(name) is not None


def _own_place(path: Path) -> Path:
    return path.with_name(f"{path.name}{PART_SUFFIX}-{secrets.token_hex(4)}")


def _flush_files(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            _flush(file)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
