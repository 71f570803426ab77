"""Which model of a recipe a stage's calls go to."""

from __future__ import annotations

from typing import NamedTuple

from feldspar.config import ModelSizeConfig, Recipe, TeacherConfig


class AskedModel(NamedTuple):
    """A role of the recipe and its model."""

    role: str
    """`teacher`, `judge`, `MT-Bench judge` or `server`."""
    config: TeacherConfig
    size: ModelSizeConfig | None
    """As `[plan]` states it; None where it does not."""


def who_is_asked(step: str, is_judge: bool, recipe: Recipe) -> AskedModel:
    """The role that answers a stage of a step."""
    plan, evaluate = recipe.plan, recipe.evaluate
    if step == "mt-bench" and is_judge and evaluate.mt_bench and evaluate.mt_bench.judge:
        return AskedModel("MT-Bench judge", evaluate.mt_bench.judge, None)
    if not is_judge and step in ("mt-bench", "served-exams", "general") and evaluate.server:
        return AskedModel("server", evaluate.server, None)
    if is_judge and recipe.judge is not None:
        return AskedModel("judge", recipe.judge, plan.judge)
    return AskedModel("teacher", recipe.teacher, plan.teacher)
