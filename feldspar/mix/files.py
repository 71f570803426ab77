"""A user's rows from the files they come in: JSONL, Parquet, plain text, packed or not."""

from __future__ import annotations

import io
import json
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import zstandard

from feldspar.errors import RecipeError
from feldspar.files import ZstdReader
from feldspar.mix.rows import NO_ROW, as_conversation
from feldspar.records import Conversation

TEXT_CHARACTERS = 8192
"""Whole paragraphs up to so many characters make one row of a text file."""
_PARQUET_ROWS = 512
_COLUMNS = ("messages", "text", "unmask", "is_cut", "id")

Given = tuple[int, dict[str, Any] | str]
"""A row's number, counted from 1, and the row, or why it cannot be read."""


class BadRow(NamedTuple):
    """A row that cannot be trained on, and why."""

    source: str
    path: str
    line: int
    """Counted from 1; in Parquet and text files it is the row's number."""
    reason: str


def read_file(path: Path, name: str) -> Iterator[Conversation | BadRow]:
    """Rows of a file as conversations whose source is `name`, in the file's order.

    `.jsonl` and `.json`: one object a line, or one list of objects, with `messages` (InstructLab's
    layout, as it is) or `text`. `.parquet`: the same as columns. `.txt` and `.md`: text, cut
    between paragraphs into rows of at most 8,192 characters. Text is trained on whole. `.zst` after
    any but Parquet is unpacked. Raises RecipeError when the file cannot be read to its end.
    """
    with _explained(path, name):
        for number, given in _given(path):
            row = given if isinstance(given, str) else as_conversation(given, name, number)
            yield BadRow(name, str(path), number, row) if isinstance(row, str) else row


def count_rows(path: Path) -> int:
    """Rows of a file, without reading them as conversations. Raises RecipeError."""
    kind = _kind(path)
    with _explained(path, "data"):
        if kind == ".parquet":
            return int(_parquet(path).metadata.num_rows)
        with _opened(path) as lines:
            if kind in (".txt", ".md"):
                return sum(1 for _ in _stretches(lines))
            first, every_line = _first_line(lines)
            if first.startswith(b"["):
                return sum(1 for _ in _list_rows(every_line))
            return sum(1 for line in every_line if line.strip())


@contextmanager
def _explained(path: Path, name: str) -> Iterator[None]:
    """Every way in which a file cannot be read, as a RecipeError with the file's name."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RecipeError(f"{path}: rows of {name!r} cannot be read: {reason}") from error
    except zstandard.ZstdError as error:
        cure = "make the file again, or copy it again"
        raise RecipeError(
            f"{path}: rows of {name!r} are not whole zstd data: {error}; {cure}"
        ) from error
    except UnicodeDecodeError as error:
        cure = "save it as UTF-8"
        raise RecipeError(f"{path}: {name!r} is not UTF-8 text: {error.reason}; {cure}") from error


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix == ".zst" else suffix


def _given(path: Path) -> Iterator[Given]:
    readers: dict[str, Callable[[Iterable[bytes]], Iterator[Given]]] = {
        ".txt": _text_rows,
        ".md": _text_rows,
        ".jsonl": _json_rows,
        ".json": _json_rows,
    }
    kind = _kind(path)
    if kind == ".parquet":
        yield from _parquet_rows(path)
        return
    if kind not in readers:
        raise RecipeError(
            f"{path}: rows are read from {', '.join(readers)} and .parquet files; rename or convert"
        )
    with _opened(path) as lines:
        yield from readers[kind](lines)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        if path.suffix.lower() != ".zst":
            yield file
            return
        yield io.BufferedReader(ZstdReader(file))


def _json_rows(lines: Iterable[bytes]) -> Iterator[Given]:
    first, lines = _first_line(lines)
    if first.startswith(b"["):
        yield from _list_rows(lines)
        return
    # Binary lines end at \n alone: U+2028 and its like may stand inside a row.
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, _why_not_json(error)
                continue
            yield number, row if isinstance(row, dict) else NO_ROW


def _first_line(lines: Iterable[bytes]) -> tuple[bytes, Iterable[bytes]]:
    """The first line that holds anything, without a mark before it, and all lines."""
    before: list[bytes] = []
    iterator = iter(lines)
    for line in iterator:
        before.append(line)
        if bare := line.removeprefix(BOM_UTF8).strip():
            return bare, chain(before, iterator)
    return b"", before


def _list_rows(lines: Iterable[bytes]) -> Iterator[Given]:
    """The rows of one JSON list; their numbers are their places in it."""
    try:
        rows = json.loads(b"".join(lines))
    except (ValueError, RecursionError) as error:
        yield 1, f"a JSON list that is {_why_not_json(error)}"
        return
    for number, row in enumerate(rows, start=1):
        yield number, row if isinstance(row, dict) else NO_ROW


def _why_not_json(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg}"
    return "not JSON: a number that is too long"


def _text_rows(lines: Iterable[bytes]) -> Iterator[Given]:
    for number, text in enumerate(_stretches(lines), start=1):
        yield number, {"text": text}


def _stretches(lines: Iterable[bytes]) -> Iterator[str]:
    """Whole paragraphs together, as many as fit; a longer one stands alone."""
    stretch: list[str] = []
    size = 0
    for paragraph in _paragraphs(lines):
        if stretch and size + len(paragraph) > TEXT_CHARACTERS:
            yield "\n\n".join(stretch)
            stretch, size = [], 0
        stretch.append(paragraph)
        size += len(paragraph) + 2
    if stretch:
        yield "\n\n".join(stretch)


def _paragraphs(lines: Iterable[bytes]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in chain(lines, [b""]):
        if text := line.decode("utf-8-sig").rstrip():
            paragraph.append(text)
        elif paragraph:
            yield "\n".join(paragraph)
            paragraph = []


def _parquet_rows(path: Path) -> Iterator[Given]:
    file = _parquet(path)
    columns = [c for c in _COLUMNS if c in file.schema_arrow.names]
    if not {"messages", "text"} & set(columns):
        raise RecipeError(f"{path}: no column `messages` or `text`; rename the one that holds rows")
    number = 0
    with _parquet_faults(path):
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _parquet(path: Path) -> Any:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise RecipeError(
            f"{path}: reading Parquet needs pyarrow: pip install 'feldspar[parquet]'"
        ) from None
    with _parquet_faults(path):
        return ParquetFile(path)


@contextmanager
def _parquet_faults(path: Path) -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except ArrowException as error:
        first = str(error).partition("\n")[0]
        raise RecipeError(f"{path}: not a whole Parquet file: {first}; make it again") from error
