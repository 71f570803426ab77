"""The whole method, top to bottom: taxonomy, generation, phases with replay, preferences, exams.

Every step is computed once, kept in the run directory and found again; see runs.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from feldspar.config import Recipe, TeacherConfig, place_paths, world_parts
from feldspar.errors import RecipeError
from feldspar.progress import Progress
from feldspar.records import Checkpoint, ExamItem, Score
from feldspar.runs import Joined, Rows, Run
from feldspar.taxonomy import files_read, read_taxonomy

Until = Literal["samples", "phases", "trained", "preferred", "scores"]


def run_recipe(
    recipe: Recipe, folder: Path, run_path: Path, progress: Progress, *, until: Until = "scores"
) -> Rows[Score] | None:
    """Do the whole method, or its steps up to `until`; gives the scores of every checkpoint.

    `folder` is the recipe's. Raises FeldsparError where the user can mend it.
    """
    recipe = place(recipe, folder, progress)
    with Run(run_path, recipe, progress) as run:
        ...
    return None


def place(recipe: Recipe, folder: Path, progress: Progress) -> Recipe:
    """The recipe with real paths; makes the parts of the micro-world that it names."""
    parts = world_parts(recipe)
    if recipe.world is None:
        return place_paths(recipe, folder, {})
    from feldspar.world import make_world

    return place_paths(recipe, folder, make_world(recipe.world, cache_folder(), parts, progress))


def cache_folder() -> Path:
    """Where what can be made again is kept: FELDSPAR_CACHE, or `~/.cache/feldspar`."""
    return Path(os.environ.get("FELDSPAR_CACHE") or Path.home() / ".cache" / "feldspar")
