"""What a study will cost: each arm's plan, without what an arm before it makes for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from feldspar.config import Recipe
from feldspar.frontier.arms import ArmRun
from feldspar.keys import content_key
from feldspar.planning import plan_recipe
from feldspar.progress import Progress

STEPS = ("samples", "phases", "trained")
"""What arms share, in order: one that is not shared is made, and so is all after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmPlan:
    """What one arm's run takes beyond the runs before it."""

    arm: str
    seed: int
    """Number of the seed, from 1."""
    shares: tuple[str, ...]
    """Of `STEPS`, what an earlier run makes."""
    calls: int
    """To teacher and judge, if nothing is in the journal."""
    optimizer_steps: int
    hours: float | None
    """Of teacher and training; None where a rate is not known."""


def plan_study(runs: Sequence[ArmRun], recipe_folder: Path, progress: Progress) -> list[ArmPlan]:
    """In the order they are run. Exams are not in the hours, as in `plan`."""
    made: set[str] = set()
    planned = []
    for run in runs:
        keys = _keys(run.recipe)
        shares = tuple(step for step, key in zip(STEPS, keys, strict=True) if key in made)
        made.update(keys)
        whole = plan_recipe(run.recipe, recipe_folder, progress)
        writes, trains = "samples" not in shares, "trained" not in shares
        hours = [whole.teacher_hours] * writes + [whole.training_hours] * trains
        known = [hour for hour in hours if hour is not None]
        planned.append(
            ArmPlan(
                arm=run.arm.name,
                seed=run.number + 1,
                shares=shares,
                calls=sum(c.calls for c in whole.calls if writes or c.step != "samples"),
                optimizer_steps=sum(p.num_steps for p in whole.phases) if trains else 0,
                hours=sum(known) if len(known) == len(hours) else None,
            )
        )
    return planned


def _keys(recipe: Recipe) -> tuple[str, ...]:
    """What decides `STEPS`, as far as the recipe says it."""
    train = recipe.train
    written = (recipe.world, recipe.taxonomy, recipe.teacher, recipe.judge, recipe.generate)
    samples = content_key("samples", *written, recipe.seed)
    mixing = [phase.of_mixing() for phase in train.phase]
    phases = content_key("phases", samples, recipe.mix, mixing, recipe.data, recipe.student.base)
    trained = content_key(
        "trained", phases, train.of_phases(), train.of_optimizer(), recipe.student,
        recipe.evaluate.of_exams(),
    )  # fmt: skip
    return samples, phases, trained
