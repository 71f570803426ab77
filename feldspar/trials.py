"""Trials before a run: what the teacher writes, and whether the judge and the reward pair can tell
good answers from bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from feldspar.config import Recipe, world_parts
from feldspar.errors import RecipeError
from feldspar.evaluate.exams.read import exam_files, read_exams
from feldspar.generate import (
    JudgeAndPeople,
    LeafPreview,
    calibrate,
    judge_and_people,
    preview_leaves,
)
from feldspar.prepare import open_teachers, place
from feldspar.progress import Progress
from feldspar.records import JudgeScore
from feldspar.reviews import read_reviews
from feldspar.runs import open_step
from feldspar.taxonomy import read_taxonomy
from feldspar.teacher import Spent

if TYPE_CHECKING:
    from feldspar.prefer.agree import Agreement


class Preview(NamedTuple):
    """A few samples of each leaf, and what they cost together."""

    leaves: list[LeafPreview]
    num_paid: int
    """Calls that were not in the journal before."""
    spent: Spent
    """What the run finds paid: all of its calls that the preview made, or found."""


def preview_recipe(recipe: Recipe, folder: Path, progress: Progress, num_samples: int) -> Preview:
    """The first samples of each leaf, with the calls and the journal of the run itself."""
    placed = place(recipe, folder, progress, parts=set())
    taxonomy = placed.wanted_taxonomy("previewing samples")
    leaves = list(read_taxonomy(taxonomy, progress=progress))
    own_exams = [exam for config in placed.evaluate.exam for exam in exam_files(config)]
    with open_teachers(placed, progress) as teachers:
        shown = preview_leaves(
            leaves,
            placed.generate,
            teacher=teachers.teacher,
            judge=teachers.judge,
            avoid=read_exams(own_exams),
            seed=placed.seed,
            num_samples=num_samples,
            progress=progress,
        )
        num_paid = sum(one.num_asked for one in {teachers.teacher, teachers.judge})
        return Preview(shown, num_paid, teachers.budget.spent)


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


def judge_and_people_of(run_path: Path) -> JudgeAndPeople | None:
    """Where a run's judge and its reviewers disagree; None where nobody reviewed its samples."""
    samples = open_step(run_path, "samples")
    return None if samples is None else judge_and_people(samples, read_reviews(run_path))


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
