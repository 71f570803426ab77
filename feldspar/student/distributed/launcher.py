"""The first of several processes: it starts the workers or finds them running, and sends them jobs.

The first process does all that is not training, and writes all files but the workers' parts of the
state. A job for the workers lies in `FOLDER/ranks/`: which model, which rows, which steps. Started
by it, they end when it ends, whatever it dies of; started by torchrun or Slurm, they take one job
after another until they are dismissed.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from feldspar.children import child_environment, module_command
from feldspar.errors import TrainingError
from feldspar.progress import Progress
from feldspar.student.distributed.fsdp import (
    JOIN_TIMEOUT,
    FSDPGroup,
    first_line,
    is_cut_off,
    join_group,
    send_text,
)
from feldspar.student.distributed.job import JOB_FOLDER, WantedFit, make_job, write_job
from feldspar.student.training.activation_checkpointing import memory_of
from feldspar.student.training.loop import Loop
from feldspar.student.training.process_group import LaunchSettings

log = logging.getLogger(__name__)

CUT_OFF = 75
"""Exit code of a process whose only trouble is that another ended."""
_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 5.0
"""For the workers to end, and to be seen dead when a connection has closed."""


def fit_distributed(
    wanted: WantedFit,
    *,
    folder: Path,
    on_checkpoint: Callable[[int], None],
    progress: Progress,
    launch: LaunchSettings,
) -> None:
    """`fit` over several processes; the same steps, the same state, the same result to rounding.

    Raises TrainingError where one of them ends before its time.
    """
    student = wanted.student
    device = student.device
    job_folder = folder.resolve() / JOB_FOLDER
    job = make_job(wanted, launch, job_folder, memory_of(device))
    with _workers(launch.num_processes, wanted.schedule.phase):
        send_text(str(write_job(job, job_folder)))
        group = FSDPGroup(job.shard)
        loop = Loop(
            student, wanted.rows, wanted.schedule, job.settings, folder,
            group=group, key=wanted.key, objective=wanted.objective,
        )  # fmt: skip

        def at_checkpoint(step: int) -> None:
            group.gather(loop.student, student)
            on_checkpoint(step)
            group.meet()

        loop.resume()
        loop.run(at_checkpoint, progress)
        group.gather(loop.student, student)
        # Others may have it open still, which a network disk minds.
        shutil.rmtree(job_folder, ignore_errors=True)
    student.model.to(device)


def dismiss_workers() -> None:
    """Tell processes that something else started that there is no more to do."""
    send_text("")
    dist.destroy_process_group()


@contextmanager
def _workers(num: int, phase: str) -> Iterator[None]:
    """The other processes, present; and an error of one of them as a TrainingError."""
    if dist.is_initialized():
        try:
            yield
        except RuntimeError as error:
            if not is_cut_off(error):
                raise
            raise ended_early(phase, f"another process ended ({first_line(error)})") from error
        return
    workers = _LocalWorkers(num)
    try:
        with workers.watched(phase):
            workers.start()
            yield
            send_text("")
    except RuntimeError as error:
        if (why := workers.who_died(_GRACE_SECONDS)) is None:
            raise
        raise ended_early(phase, why) from error
    finally:
        workers.end()


def ended_early(phase: str, why: str) -> TrainingError:
    """Of a training whose processes ended before it did."""
    return TrainingError(f"phase {phase}: {why}; the same command goes on from the last saved step")


class _LocalWorkers:
    """Processes of this machine that this one started. They end when its end of a pipe closes."""

    def __init__(self, num: int) -> None:
        self.num = num
        self._listener = socket.create_server(("127.0.0.1", 0))
        # Bound by us: torch would listen on every address.
        self._store = TCPStore(
            "127.0.0.1",
            self._listener.getsockname()[1],
            num,
            is_master=True,
            timeout=JOIN_TIMEOUT,
            wait_for_workers=False,
            master_listen_fd=self._listener.detach(),
        )
        self._threads = torch.get_num_threads()
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the others and meet them."""
        each = max(1, (os.cpu_count() or 1) // self.num)
        torch.set_num_threads(min(self._threads, each))
        loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
        if loopback is not None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        environment = child_environment() | {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self._store.port),
            "WORLD_SIZE": str(self.num),
            "OMP_NUM_THREADS": str(each),
        }
        for rank in range(1, self.num):
            self._processes.append(
                subprocess.Popen(
                    module_command("feldspar.student.distributed.worker"),
                    env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdin=subprocess.PIPE,
                )
            )
        join_group(self._store, 0, self.num)

    @contextmanager
    def watched(self, phase: str) -> Iterator[None]:
        """End this process when another has died and it does not notice: nccl may wait for ever."""
        done = threading.Event()
        thread = threading.Thread(target=self._watch, args=(phase, done), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _watch(self, phase: str, done: threading.Event) -> None:
        while not done.wait(_LOOK_SECONDS):
            why = self.who_died(0.0)
            if why is not None and not done.wait(2 * _GRACE_SECONDS):
                log.critical("%s", ended_early(phase, why))
                os._exit(TrainingError.exit_code)

    def who_died(self, seconds: float) -> str | None:
        """Which process ended, and of what, as far as that is seen within some seconds."""
        deadline = time.monotonic() + seconds
        while True:
            codes = {n: p.poll() for n, p in enumerate(self._processes, 1)}
            dead = {n: code for n, code in codes.items() if code is not None}
            late = time.monotonic() >= deadline
            # One that ended because another did is not the cause.
            causes = {n: code for n, code in dead.items() if code != CUT_OFF} or (
                dead if late else {}
            )
            for rank, code in causes.items():
                return self._describe(rank, code)
            if late:
                return None
            time.sleep(0.05)

    def _describe(self, rank: int, code: int) -> str:
        what = f"ended with exit code {code}"
        if code < 0:
            what = f"was killed by {signal.Signals(-code).name}"
        elif self._store.check([f"why-{rank}"]):
            what = f"stopped: {self._store.get(f'why-{rank}').decode()}"
        return f"process {rank + 1} of {self.num} {what}"

    def end(self) -> None:
        """Let the others end, and make sure that they do."""
        deadline = time.monotonic() + _GRACE_SECONDS
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if dist.is_initialized():
            # nccl may wait here for one that died.
            leaving = threading.Thread(target=dist.destroy_process_group, daemon=True)
            leaving.start()
            leaving.join(_GRACE_SECONDS)
        torch.set_num_threads(self._threads)
