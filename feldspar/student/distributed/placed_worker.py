"""A process of a training on a cluster: it does one job and ends.

`python -m feldspar.student.distributed.placed_worker DEVICE` is how nodes start it, with the
variables that torchrun sets; the store at MASTER_ADDR is that of the process which hands out the
job, and is none of the workers (`placed.py`).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch._C._distributed_c10d import TCPStore

from feldspar.errors import DiskError, FeldsparError
from feldspar.files import whole_file
from feldspar.student.distributed.fsdp import (
    JOIN_TIMEOUT,
    LONG_WAIT,
    is_cut_off,
    join_group,
    local_rank,
    tell_why,
)
from feldspar.student.distributed.launcher import CUT_OFF
from feldspar.student.distributed.placed import weights_path
from feldspar.student.distributed.worker import do_job
from feldspar.student.model import Student, find_device
from feldspar.student.training.activation_checkpointing import memory_of


def _connect() -> TCPStore:
    return TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        int(os.environ["WORLD_SIZE"]),
        is_master=False,
        timeout=JOIN_TIMEOUT,
    )


def _end_when_told() -> None:
    """A word makes this process stop as a signal would; a store that is gone ends it."""
    try:
        _connect().wait(["stop"], LONG_WAIT)
    except RuntimeError:
        os._exit(CUT_OFF)
    os.kill(os.getpid(), signal.SIGTERM)


class _ToldProgress:
    """Steps, told to the process that handed out the job."""

    def __init__(self, store: TCPStore) -> None:
        self._store = store
        self._done = 0.0

    @contextmanager
    def task(
        self, name: str, total: float | None, unit: str, done: float = 0
    ) -> Iterator[_ToldProgress]:
        self._done = done
        self.advance(0)
        yield self

    def advance(self, by: float = 1, **figures: float | str) -> None:
        self._done += by
        self._store.set("told", json.dumps([self._done, figures]))


class _Hand:
    """Gives the weights to the process that handed out the job."""

    def __init__(self, store: TCPStore, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._number = 0

    def over(self, step: int, student: Student) -> None:
        named = student.model.named_parameters()
        trained = {name: p.detach().cpu().contiguous() for name, p in named if p.requires_grad}
        path = weights_path(self._folder, step)
        try:
            with whole_file(path) as temporary:
                save_file(trained, temporary)
        except (OSError, SafetensorError) as error:
            raise DiskError(f"{path}: cannot be written: {error}") from error
        self._store.set(f"handed-{self._number}", str(step))
        self._store.wait([f"taken-{self._number}"], LONG_WAIT)
        self._number += 1


def main() -> int:
    """Gives 0; CUT_OFF where all that may be wrong is that another ended, else 1: with why in the
    store."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = _connect()
    threading.Thread(target=_end_when_told, daemon=True).start()
    try:
        device = find_device(sys.argv[1])
        if device.type == "cuda":
            device = torch.device("cuda", local_rank())
        memory = memory_of(device)
        store.set(f"memory-{rank}", str(memory or ""))
        folder = Path(store.get("job").decode())
        join_group(store, rank, size)
        if rank:
            do_job(folder)
        else:
            do_job(folder, _Hand(store, folder).over, _ToldProgress(store))
        dist.destroy_process_group()
    except KeyboardInterrupt:
        return CUT_OFF
    except (FeldsparError, RuntimeError, OSError) as error:
        is_cut = isinstance(error, RuntimeError) and is_cut_off(error)
        tell_why(store, rank, error)
        return CUT_OFF if is_cut else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
