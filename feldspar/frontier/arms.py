"""Arms: one recipe under different settings and seeds, each a run of its own."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from feldspar.config import Recipe, read_recipe
from feldspar.errors import RecipeError

RECIPE_ARM = "the recipe"
"""Name of the arm that sets nothing."""
_MOST_LETTERS = 80
"""Of a folder's name."""
_OPENING, _CLOSING, _QUOTES = "[{(", "]})", "\"'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Settings over the recipe, under a name."""

    name: str
    settings: tuple[str, ...]
    """`section.key=value`, as `--set` takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRun:
    """An arm under one seed."""

    arm: Arm
    number: int
    """Of the seed, from 0: two arms are paired where it is the same."""
    recipe: Recipe


def parse_arms(named: Sequence[str], varied: Sequence[str]) -> list[Arm]:
    """Every named arm (`NAME: KEY=V; KEY=V`) with every combination of what varies (`KEY=V1,V2`).

    >>> [arm.name for arm in parse_arms([], ["train.learning_rate=1e-4,3e-4"])]
    ['learning_rate=1e-4', 'learning_rate=3e-4']

    Raises RecipeError where one cannot be read, or two arms have one name.
    """
    bases = [_named(text) for text in named] or [Arm(name="", settings=())]
    choices = [_varied(text) for text in varied]
    short = _short_names([choice[0].partition("=")[0] for choice in choices])
    arms = []
    for base, settings in itertools.product(bases, itertools.product(*choices)):
        words = [f"{short[key]}={v}" for key, _, v in (s.partition("=") for s in settings)]
        name = ", ".join(filter(None, [base.name, *words])) or RECIPE_ARM
        arms.append(Arm(name=name, settings=(*base.settings, *settings)))
    names = [arm.name for arm in arms]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RecipeError(f"two arms are called {twice!r}; give each its own name and values")
    return arms


def arm_runs(
    path: Path, settings: Sequence[str], arms: Sequence[Arm], num_seeds: int
) -> list[ArmRun]:
    """Each arm under each seed: `seed` and `world.seed` of the recipe, and the ones after.

    Seed by seed, so that a study that is stopped early has all arms of its first seeds. Raises
    RecipeError for an arm whose recipe cannot be.
    """
    first = read_recipe(path, settings)
    for arm in arms:
        own = [s for s in arm.settings if s.partition("=")[0].strip() in ("seed", "world.seed")]
        if own and num_seeds > 1:
            raise RecipeError(
                f"arm {arm.name!r} sets {own[0]}, so its {num_seeds} seeds would be one run; leave "
                "it out, or take --seeds 1"
            )
    return [
        ArmRun(arm=arm, number=number, recipe=_recipe(path, settings, arm, first, number))
        for number in range(num_seeds)
        for arm in arms
    ]


def folder_name(arm: Arm, number: int) -> str:
    """A plain name for the run's folder, different for each arm and seed."""
    plain = re.sub(r"[^\w.,=+\[\]-]+", "-", arm.name).strip("-.")[:_MOST_LETTERS]
    mark = hashlib.sha256(repr((arm.name, arm.settings)).encode()).hexdigest()[:6]
    return f"{plain}-{mark}-seed-{number + 1}"


def _recipe(path: Path, settings: Sequence[str], arm: Arm, first: Recipe, number: int) -> Recipe:
    seeds = [f"seed={first.seed + number}"]
    if first.world is not None:
        seeds.append(f"world.seed={first.world.seed + number}")
    try:
        recipe = read_recipe(path, [*settings, *seeds, *arm.settings])
    except RecipeError as error:
        raise RecipeError(f"arm {arm.name!r}: {error}") from None
    return recipe.model_copy(update={"name": folder_name(arm, number)})


def _named(text: str) -> Arm:
    name, colon, rest = text.partition(":")
    settings = tuple(s.strip() for s in _split(rest, ";") if s.strip())
    if not colon or not name.strip() or not all("=" in s for s in settings):
        raise RecipeError(f"--arm {text}: write it as NAME: section.key=value; section.key=value")
    return Arm(name=name.strip(), settings=settings)


def _varied(text: str) -> list[str]:
    key, equals, values = text.partition("=")
    found = [value.strip() for value in _split(values, ",")]
    if not equals or not key.strip() or not all(found):
        raise RecipeError(f"--vary {text}: write it as section.key=VALUE,VALUE")
    return [f"{key.strip()}={value}" for value in found]


def _split(text: str, separator: str) -> Iterator[str]:
    """Where it stands in no brackets and no quotes: `[1, 2],3` is `[1, 2]` and `3`."""
    depth, start, quote = 0, 0, ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        elif letter in _OPENING:
            depth += 1
        elif letter in _CLOSING:
            depth -= 1
        elif letter == separator and depth == 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last word of each key, or all of it where two end alike."""
    lasts = [key.rpartition(".")[2] for key in keys]
    return {
        key: last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)
    }
