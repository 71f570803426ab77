"""The recipes that come with Feldspar, and copies of them to start from."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

import feldspar
from feldspar.errors import RecipeError
from feldspar.files import write_texts_together

_PACKAGE = Path(feldspar.__file__).parent


class Copied(NamedTuple):
    """Files of a recipe in a folder."""

    written: list[Path]
    kept: list[Path]
    """Those that were there before and were left as they are."""


def shipped_folder() -> Path:
    """In an installed package they lie within it; in a clone, next to it."""
    within = _PACKAGE / "recipes"
    return within if within.is_dir() else _PACKAGE.parent / "recipes"


def shipped_names() -> list[str]:
    """`merlinite-7b`, `overlays/paper-volumes`, ..."""
    folder = shipped_folder()
    found = (p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.toml"))
    return sorted(found, key=lambda name: ("/" in name, name))


def copy_recipe(name: str, folder: Path, *, keeps_files: bool = False) -> Copied:
    """Write a shipped recipe, those that it extends, and its taxonomy and exams where it has any.

    Files that are there are left alone with `keeps_files`, and are a RecipeError without.
    """
    shipped = shipped_folder()
    if name not in shipped_names():
        raise RecipeError(f"--recipe {name}: no such recipe; there are: {_told(shipped_names())}")
    files = [p.relative_to(shipped) for p in sorted((shipped / name).rglob("*")) if p.is_file()]
    files = [*_with_extended(f"{name}.toml"), *files]
    copied = Copied([], [])
    for file in files:
        path = folder / file
        if path.exists() and not keeps_files:
            raise RecipeError(f"{path} is there already; name another folder")
        (copied.kept if path.exists() else copied.written).append(path)
    texts: dict[Path, str] = {}
    for path in copied.written:
        text = (shipped / path.relative_to(folder)).read_text(encoding="utf-8")
        if path.suffix == ".toml":
            # Their comments show commands as they are typed in a clone.
            text = text.replace("recipes/", "")
        texts[path] = text
    write_texts_together(texts)
    return copied


def _with_extended(file: str) -> list[Path]:
    """A recipe's file and those it extends, relative to the shipped folder."""
    shipped = shipped_folder().resolve()
    found: list[Path] = []
    left = [shipped / file]
    while left:
        path = left.pop(0)
        found.append(path.relative_to(shipped))
        extends = tomllib.loads(path.read_text(encoding="utf-8")).get("extends", [])
        names = [extends] if isinstance(extends, str) else extends
        left += [(path.parent / other).resolve() for other in names]
    return list(dict.fromkeys(found))


def _told(names: list[str]) -> str:
    return ", ".join(name for name in names if "/" not in name)
