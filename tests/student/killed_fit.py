"""Trains a tiny student in a folder, and kills itself after some steps."""

import os
import signal
from pathlib import Path

import torch
from tiny import chats, make_tiny

from feldspar.student.fit import fit
from feldspar.student.model import save_checkpoint
from feldspar.student.token_rows import tokenise
from feldspar.student.training import loop as loops
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings


def main(here: Path, kill_at: int | None, optimizer_states: str) -> None:
    student = make_tiny()
    rows = tokenise(student.template, [("colours", chats(60))], 200)
    schedule = Schedule(
        sources=(SourceRows(name="colours", num_rows=60),),
        batch_samples=16,
        num_epochs=4,
        phase="p",
        seed=3,
    )
    settings = FitSettings(
        learning_rate=1e-2,
        warmup_steps=3,
        checkpoint_steps=(4, 16),
        optimizer_states=optimizer_states,
    )
    loops._STATE_SECONDS = 0.0
    learning_rate_at = FitSettings.learning_rate_at

    def counted(self: FitSettings, step: int, num_steps: int) -> float:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return learning_rate_at(self, step, num_steps)

    FitSettings.learning_rate_at = counted
    fit(student, rows, schedule, settings, folder=here)
    save_checkpoint(student, here / "out", phase="p", step=16)
    # One process has nothing to do with several.
    assert not torch.distributed.is_initialized()
