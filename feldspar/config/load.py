"""A recipe read from its TOML file, with settings laid over it and its paths made real."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from pydantic import ValidationError

from feldspar.config.base import CREDENTIALS, Part
from feldspar.config.recipe import Recipe
from feldspar.errors import RecipeError
from feldspar.files import is_utf8
from feldspar.keys import is_path


def read_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a TOML recipe, with `section.key=value` settings laid over it.

    Raises RecipeError naming the file, the key and the cure.
    """
    if not is_utf8(path.absolute()):
        raise RecipeError(
            f"{path.absolute()}: a name in it is not UTF-8; rename that folder or file"
        )
    tree = _read_tree(path, ())
    for setting in settings:
        _set(tree, setting)
    tree.setdefault("name", _default_name(path))
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"{path}: {_first_faults(error)}") from None


def _default_name(path: Path) -> str:
    """The file's name; the folder's where the file is called recipe.toml, as in every project."""
    folder = path.absolute().parent.name
    is_told_apart = path.stem != "recipe" or not folder or folder.startswith(".")
    return path.stem if is_told_apart else folder


def _read_tree(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The recipe's tables, laid over those of the recipes it extends. `above` extend this one."""
    if path.resolve() in above:
        raise RecipeError(f"{path}: it extends itself; take one `extends` out")
    try:
        # Editors on Windows put a mark before the text.
        tree = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe; `feldspar init NAME` writes one") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror or error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    except (ValueError, RecursionError) as error:
        why = "a number is too long" if isinstance(error, ValueError) else "it is nested too deep"
        raise RecipeError(f"{path}: not a recipe: {why}") from error
    merged: dict[str, Any] = {}
    for other in _extended(path, tree.get("extends", [])):
        merged = _laid_over(merged, _read_tree(path.parent / other, (*above, path.resolve())))
        # Else two recipes would write one run.
        merged.pop("name", None)
    return _laid_over(merged, tree)


def _extended(path: Path, extends: object) -> list[str]:
    named = [extends] if isinstance(extends, str) else extends
    if not isinstance(named, list) or not all(isinstance(name, str) and name for name in named):
        raise RecipeError(f"{path}: `extends` must be a recipe's file name, or a list of them")
    return named


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` over `below`: tables key by key, lists of tables by `name`, other values whole;
    "none" takes a table out."""
    merged = dict(below)
    for key, value in above.items():
        old = below.get(key)
        if isinstance(old, dict) and value == "none":
            del merged[key]
        elif isinstance(old, dict) and isinstance(value, dict):
            merged[key] = _laid_over(old, value)
        elif _has_names(old) and _has_names(value):
            named = {table["name"]: table for table in old}
            for table in value:
                named[table["name"]] = _laid_over(named.get(table["name"], {}), table)
            merged[key] = list(named.values())
        else:
            merged[key] = value
    return merged


def _has_names(value: object) -> TypeGuard[list[dict[str, Any]]]:
    """Whether it is a list of tables that all have a name; an empty one takes others out."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(t, dict) and isinstance(t.get("name"), str) for t in value)


def lay_settings(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """A recipe that was read before, with `section.key=value` settings laid over it."""
    tree = recipe.model_dump(mode="json")
    for setting in settings:
        _set(tree, setting)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"--set: {_first_faults(error)}") from None


P = TypeVar("P", bound=Part)

MAX_SHOWN_BITS = 1000
PACKAGE = "package:"
"""What begins the name of a file in a package, which lies nowhere before it is fetched."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


BANK = "bank:general"
"""The package's own questions for base replay, where a recipe names `prompts`."""
_BANK_PATH = Path(__file__).parents[1] / "mix" / "bank" / "questions.jsonl"


def place_paths(part: P, folder: Path, world: Mapping[str, str]) -> P:
    """The same part with every path real: `world` gives the paths behind `world:NAME`."""
    return _with_paths(part, lambda value, name: _place(value, folder, world, name))


def move_paths(part: P, then: Path, now: Path) -> P:
    """The same part for a run that was at `then` and is at `now`: what came along has the path it
    has now, and anything else stays."""

    def moved(value: str, _: str) -> str:
        if not Path(value).is_absolute():
            return value
        beside = Path(os.path.normpath(now / os.path.relpath(value, then)))
        return str(beside) if beside.exists() else value

    return _with_paths(part, moved)


def _with_paths(part: P, change: Callable[[str, str], str]) -> P:
    """The same part with `change(path, field)` in place of every path."""
    changes: dict[str, object] = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if is_path(field) and isinstance(value, str):
            changes[name] = change(value, name)
        elif isinstance(value, Part):
            changes[name] = _with_paths(value, change)
        elif isinstance(value, tuple) and value and isinstance(value[0], Part):
            changes[name] = tuple(_with_paths(v, change) for v in value)
    return part.model_copy(update=changes)


def world_parts(part: Part) -> set[str]:
    """The parts of the micro-world that a recipe names: {"taxonomy", "student", ...}."""
    parts: set[str] = set()
    place_paths(part, Path(), _Recorder(parts))
    return parts


class _Recorder(dict[str, str]):
    """Notes every name that is looked up."""

    def __init__(self, seen: set[str]) -> None:
        super().__init__()
        self.seen = seen

    def __missing__(self, name: str) -> str:
        self.seen.add(name)
        return name


def _place(value: str, folder: Path, world: Mapping[str, str], name: str) -> str:
    if value.startswith(PACKAGE):
        return value
    if name == "prompts" and value == BANK:
        return str(_BANK_PATH)
    if value.startswith("world:"):
        try:
            return world[value.removeprefix("world:")]
        except KeyError:
            cure = f"there are: {', '.join(sorted(world))}" if world else "add a [world] table"
            raise RecipeError(f"{name} = {value!r}: no such part of the world; {cure}") from None
    try:
        for place in (folder / Path(value).expanduser(), Path(value).expanduser()):
            if place.exists():
                return str(place.resolve())
    except (OSError, ValueError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise RecipeError(f"{name} = {shown(value)}: no path: {why}") from error
    return value if _HUB_ID.fullmatch(value) else str(folder / value)


def _set(tree: dict[str, Any], setting: str) -> None:
    """Apply `a.b.c=VALUE`, VALUE in TOML or else a plain string; `train.phase.2.num_epochs=3` goes
    into a list; VALUE `none` removes the key."""
    key, equals, value = setting.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {setting}: write it as section.key=value")
    node: Any = tree
    if not is_utf8(setting):
        raise RecipeError(f"--set {setting}: not UTF-8; type it anew")
    *parents, last = key.strip().split(".")
    try:
        for part in parents:
            if isinstance(node, list):
                node = node[int(part)]
                continue
            if node.get(part) is None:
                # Of a recipe that was read before: a table that it does not have.
                node[part] = {}
            node = node[part]
        slot: Any = int(last) if isinstance(node, list) else last
        if value.strip() == "none":
            del node[slot]
        else:
            node[slot] = _toml_value(value.strip())
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        raise RecipeError(f"--set {setting}: the recipe has no place {key!r}") from None


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def shown(value: object, limit: int = 80) -> str:
    """A value for a message: short, on one line, whatever it is."""
    if isinstance(value, int) and value.bit_length() > MAX_SHOWN_BITS:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def _first_faults(error: ValidationError, limit: int = 3) -> str:
    faults = []
    for fault in error.errors()[:limit]:
        place = ".".join(str(part) for part in fault["loc"]) or "recipe"
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = "unknown key; see docs/recipe.md for the keys there are"
        elif fault["type"] == "missing":
            message = "is missing; add it"
        elif fault["type"] != CREDENTIALS and not isinstance(fault["input"], dict):
            message = f"{message}, got {shown(fault['input'])}"
        faults.append(f"{place}: {message}")
    if len(error.errors()) > limit:
        faults.append(f"and {len(error.errors()) - limit} more")
    return "; ".join(faults)
