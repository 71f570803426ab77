"""Rows for other programs, as they come: JSON lines or Parquet, in columns known before."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

from feldspar.errors import RunError

Format = Literal["jsonl", "parquet"]
Column = Literal["text", "flag", "texts", "messages"]
"""What a column holds: a text, true or false, a list of texts, or a list of role and content."""
Row = Mapping[str, object]
Write = Callable[[Row], None]
ROWS_PER_GROUP = 5000
"""Of a Parquet file: what is held in memory at a time."""


def write_table(
    path: Path, columns: Mapping[str, Column], form: Format
) -> AbstractContextManager[Write]:
    """Open a new file and give what writes one row to it.

    Raises RunError for Parquet without pyarrow.
    """
    return _write_jsonl(path) if form == "jsonl" else _write_parquet(path, columns)


@contextmanager
def _write_jsonl(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:

        def write(row: Row) -> None:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

        yield write


@contextmanager
def _write_parquet(path: Path, columns: Mapping[str, Column]) -> Iterator[Write]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise RunError("Parquet needs pyarrow: pip install 'feldspar[parquet]'") from None
    text = pyarrow.string()
    message = pyarrow.struct([("role", text), ("content", text)])
    kinds: dict[Column, Any] = {
        "text": text,
        "flag": pyarrow.bool_(),
        "texts": pyarrow.list_(text),
        "messages": pyarrow.list_(message),
    }
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    group: list[Row] = []
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
            group.clear()

        def write(row: Row) -> None:
            group.append(row)
            if len(group) == ROWS_PER_GROUP:
                flush()

        yield write
        flush()
