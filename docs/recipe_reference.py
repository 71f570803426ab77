"""Writes docs/recipe.md from feldspar/config/: `python docs/recipe_reference.py`."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from feldspar.config import Part, Recipe
from feldspar.keys import decisions

HEADER = """\
# Recipe reference

A recipe is a TOML file. Unknown keys are errors. Paths are relative to the recipe's folder or, if
they do not exist there, to the working directory. `world:NAME` names a part of the micro-world. Any
key can be set on the command line: `--set train.learning_rate=1e-4`,
`--set train.phase.0.num_epochs=3`; `--set prefer=none` removes a key.

What a key decides says what a change of it makes anew. *result*: the steps that depend on it.
*rounding* (the same computation in another order), *speed* (time, memory, money, disk) and *place*
(where something lies; of a file, its content counts): no step, also in the middle of a run.

This page is made from `feldspar/config/` by `python docs/recipe_reference.py`.
"""


def reference() -> str:
    """The whole page as Markdown."""
    return HEADER + "".join(_tables(Recipe, "", set()))


def _tables(part: type[Part], prefix: str, seen: set[str]) -> Iterator[str]:
    title = f"[{prefix}]" if prefix else "top level"
    yield f"\n## `{title}`\n\n{_one_line(part.__doc__)}\n\n"
    yield "| key | default | decides | meaning |\n|---|---|---|---|\n"
    inner: list[tuple[type[Part], str]] = []
    decides = decisions(part)
    for key, field in part.model_fields.items():
        parts = _parts_in(field.annotation)
        name = _written(key, field)
        about = f"{decides[key]} | {_one_line(field.description)}"
        yield f"| `{name}` | {_default(field, parts)} | {about} |\n"
        inner += [(p, f"{prefix}.{name}".lstrip(".")) for p in parts]
    for p, place in inner:
        if place not in seen:
            seen.add(place)
            yield from _tables(p, place, seen)


def _written(name: str, field: FieldInfo) -> str:
    """A key as a recipe has it: `from` is a word of Python's own."""
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else name


def _parts_in(annotation: Any) -> list[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation):
        return [p for a in typing.get_args(annotation) for p in _parts_in(a)]
    return []


def _default(field: FieldInfo, parts: list[type[Part]]) -> str:
    if field.is_required():
        return "required"
    default = field.default
    if parts:
        return "none" if default is None or default == () else "see below"
    return f"`{default!r}`" if default not in (None, "", ()) else "none"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    Path(__file__).with_name("recipe.md").write_text(reference(), encoding="utf-8")
