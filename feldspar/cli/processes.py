"""Where a command runs: alone, with processes it starts itself, or under torchrun or Slurm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from feldspar.errors import RecipeError


@contextmanager
def training_processes(wanted: int | None) -> Iterator[int | None]:
    """How many processes train together; None in one that has worked for the first to its end.

    `wanted` is what the command line asks for. Under torchrun RANK and WORLD_SIZE say it.
    """
    world = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if world == 1:
        yield wanted or 1
        return
    if wanted is not None:
        raise RecipeError(
            f"--nproc {wanted}: WORLD_SIZE = {world} is set, so these processes were started by "
            "torchrun or Slurm already; leave --nproc out"
        )
    from feldspar.student.distributed.launcher import dismiss_workers
    from feldspar.student.distributed.worker import join_world, run_worker

    if join_world():
        run_worker()
        yield None
        return
    yield world
    # After an error the others are not waiting for a word; they end when this process does.
    dismiss_workers()
