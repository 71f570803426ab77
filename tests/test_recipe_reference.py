"""docs/recipe.md is what the recipe's tables say of themselves."""

import importlib.util
from pathlib import Path

from feldspar.config import Part, Recipe

DOCS = Path(__file__).parents[1] / "docs"


def tables(part: type[Part]) -> set[type[Part]]:
    found = {part}
    for field in part.model_fields.values():
        for inner in parts_in(field.annotation):
            found |= set() if inner in found else tables(inner)
    return found


def parts_in(annotation: object) -> list[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    return [p for a in getattr(annotation, "__args__", ()) for p in parts_in(a)]


def test_every_key_is_explained() -> None:
    silent = [
        f"{table.__name__}.{name}"
        for table in tables(Recipe)
        for name, field in table.model_fields.items()
        if not field.description
    ]
    assert silent == []


def test_the_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("reference", DOCS / "recipe_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (DOCS / "recipe.md").read_text(encoding="utf-8")
    assert written == module.reference(), "run: python docs/recipe_reference.py"
