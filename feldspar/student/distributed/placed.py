"""Training on the nodes of a cluster: the job is handed out, what is trained is taken, and a worker
that is lost costs the steps since the last state.

The process that calls `fit` is none of the workers: it needs no GPU, and outlives them. They meet
at its store, by which they also tell how far they are (`placed_worker.py`); what is large goes over
the run directory, on a disk that all see.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch._C._distributed_c10d import TCPStore

from feldspar.children import child_environment, module_command
from feldspar.errors import DiskError, TrainingError
from feldspar.progress import Progress, Task
from feldspar.student.distributed.fsdp import JOIN_TIMEOUT
from feldspar.student.distributed.job import JOB_FOLDER, WantedFit, make_job, write_job
from feldspar.student.distributed.launcher import CUT_OFF, ended_early
from feldspar.student.training.process_group import LOST, LaunchSettings, PlacedWorkers
from feldspar.student.training.signals import Stopped, stops

log = logging.getLogger(__name__)

MAX_USELESS_TRIES = 3
"""In a row, without a step more than before: what ends workers then is no accident."""
_LOOK_SECONDS = 0.1
_CAUSE_SECONDS = 5.0
"""For the one to be seen dead that another's fault comes from."""
_LOSS_SECONDS = 60.0
"""For a cluster to notice a lost node, when all that is known is that connections to it broke."""
_STOP_SECONDS = 600.0
"""For workers to finish a step and save a state, when they are told to end."""
_ENDED_AS_TOLD = {None, 0, CUT_OFF, 128 + signal.SIGTERM}
"""Statuses of workers that were told to end, or will."""


def fit_placed(
    wanted: WantedFit,
    *,
    folder: Path,
    on_checkpoint: Callable[[int], None],
    progress: Progress,
    launch: LaunchSettings,
) -> None:
    """`fit` by workers that `launch.places` gives; the same result to rounding, however many.

    When one is lost, those for which there are places then go on from the last saved state. Raises
    TrainingError where a worker says what is wrong, and where losses leave no step done.
    """
    assert launch.places is not None
    phase = wanted.schedule.phase
    job_folder = folder.resolve() / JOB_FOLDER
    furthest, num_useless = -1, 0
    while True:
        with launch.places.workers(job_folder) as workers:
            together = replace(launch, num_processes=workers.num)
            attempt = _Attempt(workers, wanted, together, job_folder)
            lost = attempt.run(on_checkpoint, progress)
        if lost is None:
            break
        num_useless = 0 if attempt.step > furthest else num_useless + 1
        furthest = max(furthest, attempt.step)
        if num_useless == MAX_USELESS_TRIES:
            raise ended_early(phase, f"{lost}; {num_useless} tries in a row got no further")
        log.warning("phase %s: %s; going on from the last saved state", phase, lost)
    shutil.rmtree(job_folder, ignore_errors=True)


class _WorkerLost(Exception):
    """A worker, or what connected it, is gone through no fault of the training."""


class _Attempt:
    """One group of workers, from their places to the end of the training or of one of them."""

    def __init__(
        self, workers: PlacedWorkers, wanted: WantedFit, launch: LaunchSettings, folder: Path
    ) -> None:
        self._workers, self._wanted, self._launch = workers, wanted, launch
        self._folder = folder
        self.step = -1
        """The furthest that was told of."""
        self._task: Task | None = None
        self._told = b""
        family = socket.AF_INET6 if ":" in workers.host else socket.AF_INET
        listener = socket.create_server((workers.host, 0), family=family)
        # Bound by us: torch would listen on every address.
        self._store = TCPStore(
            workers.host,
            listener.getsockname()[1],
            workers.num,
            is_master=True,
            timeout=JOIN_TIMEOUT,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )

    def run(self, on_checkpoint: Callable[[int], None], progress: Progress) -> str | None:
        """Train to the end; else gives which worker was lost."""
        environment = {
            "PYTHONPATH": child_environment()["PYTHONPATH"],
            "MASTER_ADDR": self._workers.host,
            "MASTER_PORT": str(self._store.port),
        }
        command = module_command("feldspar.student.distributed.placed_worker")
        self._workers.begin([*command, self._launch.config.device], environment)
        try:
            with ExitStack() as stack:
                self._hand_out()
                number = 0
                while self._is_handed_over(f"handed-{number}", progress, stack):
                    step = int(self._store.get(f"handed-{number}"))
                    self._take(step)
                    if step in self._wanted.settings.checkpoint_steps:
                        on_checkpoint(step)
                    self._store.set(f"taken-{number}", "")
                    number += 1
        except _WorkerLost as lost:
            return str(lost)
        return None

    def _hand_out(self) -> None:
        """Make the job, once it is known on what it is done, and tell the workers."""
        names = [f"memory-{rank}" for rank in range(self._workers.num)]
        if not self._until(lambda: self._store.check(names)):
            raise _WorkerLost("all workers ended before they had a job")
        sizes = [self._store.get(name).decode() for name in names]
        memory = min(map(int, sizes)) if all(sizes) else None
        job = make_job(self._wanted, self._launch, self._folder, memory)
        self._store.set("job", str(write_job(job, self._folder)))

    def _is_handed_over(self, name: str, progress: Progress, stack: ExitStack) -> bool:
        """Wait for what the first worker hands over next; False when the training has ended."""

        def is_there() -> bool:
            self._show(progress, stack)
            return self._store.check([name])

        return self._until(is_there)

    def _until(self, condition: Callable[[], bool]) -> bool:
        """Wait for something to be told; False where all workers have ended without that. A signal
        has them save one state and end."""
        is_there = False
        with stops() as held:
            while not (is_there := condition()):
                if held.number is not None:
                    self._have_them_save()
                    raise Stopped
                if self._have_ended():
                    is_there = condition()
                    break
                time.sleep(_LOOK_SECONDS)
        return is_there

    def _have_them_save(self) -> None:
        """Wait for it, though not with those that wait for one that ended otherwise."""
        self._store.set("stop", "")
        until = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < until:
            statuses = self._workers.statuses()
            if None not in statuses or not _ENDED_AS_TOLD.issuperset(statuses):
                return
            time.sleep(_LOOK_SECONDS)
        log.warning("workers did not end in %g s; they are ended", _STOP_SECONDS)

    def _have_ended(self) -> bool:
        """Whether all are done. Raises _WorkerLost or TrainingError where one is not, and ended."""
        statuses = self._workers.statuses()
        if any(statuses):
            raise self._what_happened()
        return all(status == 0 for status in statuses)

    def _what_happened(self) -> _WorkerLost | TrainingError:
        """Why the first of them ended, as far as that is seen within some time."""
        began = time.monotonic()
        while True:
            statuses = self._workers.statuses()
            for rank, status in enumerate(statuses):
                if status is not None and (status == LOST or status > 128):
                    return _WorkerLost(self._describe(rank, status))
            # One that ended because another did is not the cause.
            faults = {n: s for n, s in enumerate(statuses) if s and s != CUT_OFF}
            patience = _CAUSE_SECONDS if faults else _LOSS_SECONDS
            if None not in statuses or time.monotonic() > began + patience:
                break
            time.sleep(_LOOK_SECONDS)
        for rank, status in faults.items():
            return ended_early(self._wanted.schedule.phase, self._describe(rank, status))
        said = [self._why(rank) for rank in range(self._workers.num)]
        why = next((f" ({text})" for text in said if text), "")
        return _WorkerLost(f"the workers lost their connection to each other{why}")

    def _describe(self, rank: int, status: int) -> str:
        if status == LOST:
            what = "was lost with its node"
        elif status > 128:
            what = f"was killed by signal {status - 128}"
        elif why := self._why(rank):
            what = f"stopped: {why}"
        else:
            said = self._workers.last_words(rank)
            what = f"ended with exit code {status}; its last words: {said}"
        return f"worker {rank + 1} of {self._workers.num} {what}"

    def _why(self, rank: int) -> str:
        """What it has told of its end; empty where nothing."""
        name = f"why-{rank}"
        return self._store.get(name).decode() if self._store.check([name]) else ""

    def _show(self, progress: Progress, stack: ExitStack) -> None:
        """Pass on how far they are."""
        if not self._store.check(["told"]):
            return
        told = self._store.get("told")
        if told == self._told:
            return
        self._told = told
        step, figures = json.loads(told)
        if self._task is None:
            schedule = self._wanted.schedule
            name = f"train {schedule.phase}"
            self._task = stack.enter_context(
                progress.task(name, schedule.num_steps, "steps", done=step)
            )
        else:
            self._task.advance(step - self.step, **figures)
        self.step = step

    def _take(self, step: int) -> None:
        """Put the weights that the workers have come to into the student."""
        path = weights_path(self._folder, step)
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise DiskError(
                f"{path}: a worker wrote it and it is not found here; the run directory must lie "
                "on a disk that all share"
            ) from error
        with torch.no_grad():
            for name, parameter in self._wanted.student.model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(weights[name])
        path.unlink()


def weights_path(folder: Path, step: int) -> Path:
    """Where the first worker leaves what has been trained."""
    return folder / f"weights-{step}.safetensors"
