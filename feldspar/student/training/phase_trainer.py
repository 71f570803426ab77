"""The one door through which phases, preference rounds and new models are trained.

The package's own trainer is `LoopTrainer` (student/fit.py). Another one needs no schedule of its
own: `PhaseSteps.step` gives the rows of each optimizer step as token ids and masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from feldspar.records import Checkpoint
from feldspar.student.model import Student
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.objective import Objective
from feldspar.student.training.schedule import Schedule
from feldspar.student.training.settings import FitSettings
from feldspar.tokens.arrays import TokenRow


class StepRows(NamedTuple):
    """An optimizer step, made real."""

    rows: list[TokenRow]
    learning_rate: float
    num_trained: int
    """Trained tokens of all rows: the step's loss is the sum of their cross-entropies over this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSteps:
    """What is trained: a student, and which rows each optimizer step sees."""

    student: Student
    """Loaded, with its template's tokens. A trainer may change its weights."""
    start: str = ""
    """The model directory it was loaded from, for trainers that load it in other processes; empty
    for a new model."""
    rows: TokenRows
    schedule: Schedule
    settings: FitSettings
    """`checkpoint_steps` name the steps after which checkpoints are wanted; the last is one."""
    folder: Path
    """For metrics.jsonl, with a line of `phase`, `step` (from 1), `loss` and `grad_norm` for each
    step, and for what a trainer keeps to go on after a kill."""
    objective: Objective | None = None
    """None: the answers' cross-entropy."""

    def step(self, number: int) -> StepRows:
        """Step `number`, counted from 0."""
        indices = self.schedule.step(number)
        return StepRows(
            rows=[self.rows.row(i) for i in indices],
            learning_rate=self.settings.learning_rate_at(number, self.schedule.num_steps),
            num_trained=int(self.rows.trained[indices].sum()),
        )

    def steps(self) -> Iterator[StepRows]:
        return map(self.step, range(self.schedule.num_steps))


SaveCheckpoint = Callable[[Path], Checkpoint]
"""Writes a model directory that plain transformers loads, whole or not at all."""
OnCheckpoint = Callable[[int, SaveCheckpoint], object]
"""(steps done, save): called at each of `checkpoint_steps`, in order; after a kill maybe again."""


class PhaseTrainer(Protocol):
    """Whatever trains a phase. The same rows in the same steps, whoever does it."""

    def train(self, phase: PhaseSteps, on_checkpoint: OnCheckpoint) -> None:
        """Do all steps, or those that are left of an earlier try in the same folder."""

    def forget(self, folder: Path) -> None:
        """Delete what was kept in a folder to go on with: the outcome is safe."""
