"""Preference tuning as a part of a run: its reward pair, its prompts, and who judges its rounds."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from feldspar.config import PreferConfig
from feldspar.evaluate.mt_bench.run import ScoreChats
from feldspar.examine import open_examiners
from feldspar.prefer.prompts import PROMPTS_STEP
from feldspar.prefer.reward import find_pair
from feldspar.prefer.rounds import PREFERRED_STEP
from feldspar.prepare import Prepared
from feldspar.records import Checkpoint, RateCheckpoint, Sample, ScoreCheckpoint, ScoreItems
from feldspar.runs import Rows, Run
from feldspar.student.model import find_model


def tune(
    run: Run,
    prepared: Prepared,
    sft: Checkpoint,
    samples: Iterable[Sample],
    score: ScoreCheckpoint,
    kept: ScoreItems | None,
) -> Rows[Checkpoint]:
    """Answers picked by their reward, and fine-tuning on them, in rounds."""
    recipe = run.recipe
    assert recipe.prefer is not None
    # Found first: either may be a hub id, or a tokenizer alone, its model served.
    models = _models(recipe.prefer)
    prompts = run.step(PROMPTS_STEP)(samples, recipe.prefer)
    with ExitStack() as stack:
        return run.step(PREFERRED_STEP, reads=models)(
            sft,
            prompts,
            recipe.prefer,
            train=recipe.train.model_copy(update={"phase": (), "merge": None, "kl": None}),
            student=prepared.student,
            score=score,
            kept=kept,
            rate=rounds_judge(run, prepared, stack),
            seed=recipe.seed,
        )


def _models(config: PreferConfig) -> dict[str, Path]:
    """What rewards, by its role: the pair, or the reward model."""
    if config.reward == "reward-model":
        # Of a server it is the name and revision in the recipe that decide.
        if config.reward_model is None:
            return {}
        return {"reward model": find_model(config.reward_model)}
    pair = find_pair(config)
    return {"aligned": Path(pair.aligned.path), "base": Path(pair.base.path)}


def rounds_judge(run: Run, prepared: Prepared, stack: ExitStack) -> RateCheckpoint | None:
    """MT-Bench for each round's model, where the recipe has it run. `stack` closes its judge."""
    config = run.recipe.evaluate.mt_bench
    if config is None or prepared.mt_bench is None:
        return None
    return ScoreChats(
        prepared.mt_bench,
        config,
        base=prepared.base,
        judge=stack.enter_context(open_examiners(run, config.judge)).judge,
        student=prepared.student,
        folder=run.path / "answers" / "mt-bench",
        seed=run.recipe.seed,
        progress=run.progress,
        num_resamples=run.recipe.evaluate.num_resamples,
    )
