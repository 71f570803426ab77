"""Content keys: what a result is known by, and which settings decide it.

    tokens_per_micro_batch: Rounding[Count] = 16384

A field of a recipe or of a record is a *result* unless it is marked:

- **result**: another value may give another result. Counts in every key.
- **rounding**: the same computation in another order. Counts in no key: a run that is under way
  goes on, and what can change is bounded by a test (docs/decisions/021).
- **speed**: time, memory, money or disk. Counts in no key.
- **place**: where something lies or who is asked. Counts in no key; a file's content is handed to
  `Run.step` as one of the files that a step reads.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

T = TypeVar("T")

Decides = Literal["result", "rounding", "speed", "place"]


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """What a field decides. Stands in `Annotated`."""

    decides: Decides


Rounding = Annotated[T, Mark("rounding")]
Speed = Annotated[T, Mark("speed")]
Place = Annotated[T, Mark("place")]


def content_key(*values: object) -> str:
    """sha256 (hex) of what of the values decides a result.

    Takes records, tables of a recipe, and plain values in any nesting. A value with a `key: str` is
    known by it. Raises AssertionError for anything else, which no key could cover.
    """
    text = json.dumps([content_of(value) for value in values], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def content_of(value: object) -> Any:
    """A value as JSON, without fields that decide no result, and without places.

    >>> content_of((1, Path("/tmp/x"), {"b": "c"}))
    [1, None, {'b': 'c'}]
    """
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(key := getattr(value, "key", None), str):
        return key
    if isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
        names = deciding_fields(value if isinstance(value, type) else type(value))
        return {name: content_of(getattr(value, name)) for name in names}
    if isinstance(value, (list, tuple)):
        return [content_of(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): content_of(v) for k, v in value.items()}
    if isinstance(value, Path):
        return None
    raise AssertionError(f"{type(value).__name__} has no key: give it one, or hand in its records")


@functools.cache
def deciding_fields(record: type) -> tuple[str, ...]:
    """The names of a record's or table's fields that decide a result."""
    return tuple(name for name, decides in decisions(record).items() if decides == "result")


@functools.cache
def decisions(record: type) -> dict[str, Decides]:
    """What each field of a record or table decides, in their order."""
    if issubclass(record, BaseModel):
        return {name: _of_table(field) for name, field in record.model_fields.items()}
    assert dataclasses.is_dataclass(record), record
    hints = get_type_hints(record, include_extras=True)
    names = [field.name for field in dataclasses.fields(record)]
    return {name: _marked(getattr(hints[name], "__metadata__", ())) for name in names}


def is_path(field: FieldInfo) -> bool:
    """Whether a table's field names a file or a folder."""
    extra = [field.json_schema_extra] + [
        getattr(m, "json_schema_extra", None) for m in field.metadata
    ]
    return any(isinstance(e, dict) and e.get("format") == "path" for e in extra)


def _of_table(field: FieldInfo) -> Decides:
    return "place" if is_path(field) else _marked(field.metadata)


def _marked(metadata: Any) -> Decides:
    return next((m.decides for m in metadata if isinstance(m, Mark)), "result")
