"""What lies around a folder of runs: the recipes that runs are started from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from feldspar.config import read_recipe
from feldspar.errors import RecipeError, RunError

_NO_RECIPES = ("pyproject.toml",)
_PLACES = ("*.toml", "recipes/*.toml", "*/recipe.toml")


class RecipeFile(NamedTuple):
    """A recipe of the project."""

    path: str
    """Within the project, with `/`."""
    run_name: str
    """Of its run; empty where it cannot be read."""
    fault: str
    """Why it cannot be read; empty where it can."""


class Project:
    """The folder that the runs' folder lies in, and its recipes: in it, in its `recipes/`, and the
    `recipe.toml` of a folder in it, as `feldspar init` makes them."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs.absolute()
        self.folder = self.runs.parent

    def recipes(self) -> list[RecipeFile]:
        return [self._read(path) for path in self._paths()]

    def recipe_path(self, named: str) -> Path:
        """Raises RunError where the project has no such recipe: no name leads out of it."""
        path = next((p for p in self._paths() if self._within(p) == named), None)
        if path is None:
            raise RunError(f"no recipe {named!r} in {self.folder}")
        return path

    def _paths(self) -> list[Path]:
        found = [path for place in _PLACES for path in sorted(self.folder.glob(place))]
        # recipes/recipe.toml is in two places.
        found = list(dict.fromkeys(found))
        return [path for path in found if path.is_file() and path.name not in _NO_RECIPES]

    def _within(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _read(self, path: Path) -> RecipeFile:
        try:
            return RecipeFile(self._within(path), read_recipe(path).name, "")
        except RecipeError as error:
            return RecipeFile(self._within(path), "", str(error))
