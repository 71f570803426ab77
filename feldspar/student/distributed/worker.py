"""Every process of a training but the first: it takes jobs until there are no more.

`python -m feldspar.student.distributed.worker` is how the first process starts the others of its
machine.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from feldspar.errors import FeldsparError, TrainingError
from feldspar.progress import SILENT, Progress
from feldspar.student.distributed.fsdp import (
    JOIN_TIMEOUT,
    FSDPGroup,
    first_line,
    is_cut_off,
    join_group,
    receive_text,
    tell_why,
)
from feldspar.student.distributed.job import Job, read_job, versions
from feldspar.student.distributed.launcher import CUT_OFF
from feldspar.student.model import Student, find_device, find_dtype
from feldspar.student.training.loop import Loop
from feldspar.student.training.lora import load_to_train


def join_world() -> int:
    """Meet the processes that torchrun or Slurm started; gives this one's rank.

    Reads RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Raises TrainingError.
    """
    try:
        store, rank, size = _rendezvous()
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"the other processes are not found: {first_line(error)}") from error
    join_group(store, rank, size)
    return rank


class CutOff(TrainingError):
    """The only trouble here is that another process ended; it says why."""


class _Rendezvous(NamedTuple):
    store: Store
    rank: int
    size: int


def _rendezvous() -> _Rendezvous:
    return _Rendezvous(*next(iter(rendezvous("env://", timeout=JOIN_TIMEOUT))))


def run_worker() -> None:
    """Take part in each `fit` of the first process, until it has no more to do.

    Raises TrainingError where a part fails, CutOff where another process has ended.
    """
    try:
        while folder := receive_text():
            do_job(Path(folder))
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    except RuntimeError as error:
        if is_cut_off(error):
            raise CutOff(
                f"another process of this training has ended ({first_line(error)})"
            ) from error
        raise
    dist.destroy_process_group()


HandOver = Callable[[int, Student], None]
"""(step, the whole student): gives on what has been trained, and waits until it was taken."""


def do_job(folder: Path, hand_over: HandOver | None = None, progress: Progress = SILENT) -> None:
    """Take part in a `fit`. `hand_over` is that of the first process, where nobody else has the
    whole student. Raises TrainingError."""
    if not (folder / "job.json").is_file():
        raise TrainingError(
            f"{folder}: this process does not see it; the run directory must lie on a disk that "
            "all share"
        )
    job, rows, objective = read_job(folder)
    found = versions(job.config)
    if found != job.versions:
        raise TrainingError(
            f"{', '.join(found)} in this process, {', '.join(job.versions)} in the first process; "
            "install the same everywhere"
        )
    group, student = FSDPGroup(job.shard), _load(job)
    loop = Loop(
        student, rows, job.schedule, job.settings, folder.parent,
        group=group, key=job.key, objective=objective,
    )  # fmt: skip

    whole = student if hand_over else None

    def at_checkpoint(step: int) -> None:
        group.gather(loop.student, whole)
        if hand_over:
            hand_over(step, student)
        group.meet()

    loop.resume()
    loop.run(at_checkpoint, progress)
    group.gather(loop.student, whole)
    end = job.schedule.num_steps
    if hand_over and end not in job.settings.checkpoint_steps:
        hand_over(end, student)


def _load(job: Job) -> Student:
    """The model in host memory: it goes to the device in parts."""
    on_host = job.config.model_copy(update={"device": "cpu"})
    student = load_to_train(job.start, on_host, seed=job.seed)
    device = find_device(job.config.device)
    dtype = find_dtype(job.config, device, student.model)
    return replace(student, device=device, dtype=dtype)


def _end_with_parent() -> None:
    """The first process holds the other end of standard input for as long as it lives."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(CUT_OFF)


def main() -> int:
    """Serve the process that started this one."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Ctrl-C reaches all processes of a terminal; the first one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    store, rank, size = _rendezvous()
    try:
        join_group(store, rank, size)
        run_worker()
    except KeyboardInterrupt:
        return CUT_OFF
    except (FeldsparError, RuntimeError, OSError) as error:
        tell_why(store, rank, error)
        return CUT_OFF if isinstance(error, CutOff) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
