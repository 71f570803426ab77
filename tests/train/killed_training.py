"""Trains two phases in a folder, and kills itself at the N-th learning rate asked for."""

import os
import signal
from pathlib import Path

from tiny_base import CONFIG, STUDENT, FakeScore, phase, save_base, source

from feldspar.steps import Workspace
from feldspar.student.training import loop as loops
from feldspar.student.training.settings import FitSettings
from feldspar.train.phases import train_phases


def main(here: Path, kill_at: int) -> None:
    loops._STATE_SECONDS = 0.0
    asked = 0
    learning_rate_at = FitSettings.learning_rate_at

    def counted(self: FitSettings, step: int, num_steps: int) -> float:
        nonlocal asked
        asked += 1
        if asked == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return learning_rate_at(self, step, num_steps)

    FitSettings.learning_rate_at = counted
    here.mkdir(exist_ok=True)
    base = save_base(here / "base")
    own = source(here, "first", 40)
    phases = [phase("one", own), phase("two", source(here, "second", 40), own)]
    score = FakeScore(lambda name, step: 0.5 + 0.01 * (step % 5))
    for _ in train_phases(
        Workspace(folder=here / "trained"),
        base,
        [planned.phase for planned in phases],
        [planned.training for planned in phases],
        CONFIG,
        student=STUDENT,
        scores={"exams": score},
        min_selection_items=100,
        seed=1,
    ):
        pass
