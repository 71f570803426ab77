"""Does one round on the toy models, killed on the way.

Killed when a shard of answers, or of the base's reading, is written, or in a step of the fit.
"""

import os
import signal
from pathlib import Path

import pytest
from toy_models import prompt

from feldspar.config import PreferConfig, StudentConfig, TrainConfig
from feldspar.prefer import candidates
from feldspar.prefer.rounds import tune_preferences
from feldspar.steps import Workspace
from feldspar.student.model import base_checkpoint
from feldspar.student.training.settings import FitSettings


class NoExams:
    key = "none"

    def __call__(self, checkpoint):
        return []


def do_one_round(here: Path, toy: dict[str, str]) -> None:
    config = PreferConfig(
        aligned=toy["aligned"], base=toy["base"], num_prompts=40, num_answers=2, max_new_tokens=16,
        learning_rate=2e-3, batch_samples=8, control=False,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        # Two shards, so that there is something to go on with.
        patch.setattr(candidates, "PROMPTS_PER_SHARD", 24)
        checkpoints = list(
            tune_preferences(
                Workspace(folder=here),
                base_checkpoint(toy["policy"]), [prompt(n) for n in range(40)], config,
                train=TrainConfig(), student=StudentConfig(base="tiny", max_length=128),
                score=NoExams(), seed=1,
            )
        )  # fmt: skip
    assert [c.phase for c in checkpoints] == ["round-1"]


def die_at(here: Path, where: str, toy: dict[str, str]) -> None:
    write_rows, learning_rate_at = candidates.write_rows, FitSettings.learning_rate_at

    def write_and_die(path, rows):
        written = write_rows(path, rows)
        if path.parent.name == where:
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    def step_and_die(self, step, num_steps):
        if where == "fit" and step == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return learning_rate_at(self, step, num_steps)

    candidates.write_rows, FitSettings.learning_rate_at = write_and_die, step_and_die
    do_one_round(here, toy)
