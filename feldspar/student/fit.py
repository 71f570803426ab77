"""The door to training: `fit`, in one process or several, and the phase trainer over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from feldspar.progress import SILENT, Progress
from feldspar.student.distributed.job import WantedFit
from feldspar.student.distributed.launcher import fit_distributed
from feldspar.student.distributed.placed import fit_placed
from feldspar.student.model import Student, save_checkpoint
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.loop import Loop
from feldspar.student.training.objective import CrossEntropy, Objective
from feldspar.student.training.phase_trainer import OnCheckpoint, PhaseSteps
from feldspar.student.training.process_group import LaunchSettings
from feldspar.student.training.resume_state import forget_state
from feldspar.student.training.schedule import Schedule
from feldspar.student.training.settings import FitSettings, key_of_fit


def fit(
    student: Student,
    rows: TokenRows,
    schedule: Schedule,
    settings: FitSettings,
    *,
    folder: Path,
    on_checkpoint: Callable[[int], None] = lambda step: None,
    progress: Progress = SILENT,
    launch: LaunchSettings | None = None,
    objective: Objective | None = None,
) -> None:
    """Train the student's weights in place through all steps of the schedule.

    `objective` takes the place of the answers' cross-entropy. `folder` holds metrics.jsonl and the
    state, which the caller forgets when the outcome is safe. After a kill `on_checkpoint` may be
    called again for its last step. With `launch` other processes share each step; the result is the
    same to rounding, and a state of any number goes on.
    Raises TrainingError when the loss is not a number or has diverged. On SIGTERM and Ctrl-C the
    state is saved first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if launch is not None and not launch.is_alone:
        together = fit_distributed if launch.places is None else fit_placed
        wanted = WantedFit(
            student=student,
            rows=rows,
            schedule=schedule,
            settings=settings,
            objective=CrossEntropy(rows) if objective is None else objective,
            key=key_of_fit(student, rows, schedule, settings),
        )
        together(
            wanted, folder=folder, on_checkpoint=on_checkpoint, progress=progress, launch=launch
        )
        return
    loop = Loop(student, rows, schedule, settings, folder, objective=objective)
    loop.resume()
    loop.run(on_checkpoint, progress)


class LoopTrainer:
    """The `PhaseTrainer` of this package: its own loop, with `launch` in several processes."""

    def __init__(
        self, *, launch: LaunchSettings | None = None, progress: Progress = SILENT
    ) -> None:
        self._launch, self._progress = launch, progress

    def train(self, phase: PhaseSteps, on_checkpoint: OnCheckpoint) -> None:
        def save_at(step: int) -> None:
            name = phase.schedule.phase
            on_checkpoint(step, partial(save_checkpoint, phase.student, phase=name, step=step))

        launch = self._launch and replace(self._launch, start=phase.start)
        assert launch is None or launch.is_alone or phase.start, "a new model"
        fit(
            phase.student,
            phase.rows,
            phase.schedule,
            phase.settings,
            folder=phase.folder,
            on_checkpoint=save_at,
            progress=self._progress,
            launch=launch,
            objective=phase.objective,
        )

    def forget(self, folder: Path) -> None:
        forget_state(folder)
