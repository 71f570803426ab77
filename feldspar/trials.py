"""Trials before a run: can the judge and the reward pair tell good answers from bad ones?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from feldspar.config import Recipe, world_parts
from feldspar.errors import RecipeError
from feldspar.generate import calibrate
from feldspar.prepare import open_teachers, place
from feldspar.progress import Progress
from feldspar.records import JudgeScore
from feldspar.taxonomy import read_taxonomy

if TYPE_CHECKING:
    from feldspar.prefer.agree import Agreement


def calibrate_judge(recipe: Recipe, folder: Path, progress: Progress) -> list[JudgeScore]:
    """How well the recipe's judge tells known good pairs from corrupted ones."""
    placed = place(recipe, folder, progress, parts=set())
    taxonomy = placed.wanted_taxonomy("trying a judge on seeds")
    leaves = list(read_taxonomy(taxonomy, progress=progress))
    with open_teachers(placed, progress) as teachers:
        return list(
            calibrate(
                leaves, placed.generate, judge=teachers.judge, seed=placed.seed, progress=progress
            )
        )


def agree_with_pairs(
    recipe: Recipe, folder: Path, source: str, progress: Progress
) -> list[Agreement]:
    """How often the recipe's reward prefers the chosen answers of stored pairs, in a file or in a
    data set of the hub."""
    from feldspar.prefer.agree import agree
    from feldspar.prefer.pairs import find_pairs

    if recipe.prefer is None:
        raise RecipeError("the recipe has no [prefer] table, so it names no models to agree with")
    if recipe.prefer.reward != "log-ratio":
        raise RecipeError(
            'prefer.reward = "reward-model": `agree` sets a reward model beside a pair; name the '
            "pair with `--set prefer.reward=log-ratio` and prefer.aligned and prefer.base"
        )
    pairs = find_pairs(source)
    placed = place(recipe, folder, progress, parts=world_parts(recipe.prefer))
    assert placed.prefer is not None
    return agree(
        pairs,
        placed.prefer,
        student=placed.student,
        log_folder=Path(placed.journal).parent / "servers",
        progress=progress,
    )
