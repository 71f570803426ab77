"""The first of several processes: it starts the others or finds them there, and tells what to do.

The first process does all that is not training, and writes all files but its peers' parts of the
state. A job for the others lies in `here/ranks/`: which model, which rows, which steps. Started by
it, they end when it ends, whatever it dies of; started by torchrun or Slurm, they take one job
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
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from pydantic import TypeAdapter
from torch._C._distributed_c10d import TCPStore

from feldspar.children import child_environment, module_command
from feldspar.config import StudentConfig
from feldspar.errors import TrainingError
from feldspar.files import whole_file
from feldspar.progress import Progress
from feldspar.student.distributed.fsdp import (
    JOIN_TIMEOUT,
    Team,
    choose_shard,
    first_line,
    is_cut_off,
    join,
    tell,
)
from feldspar.student.fit import FitSettings, Loop, key_of_fit
from feldspar.student.model import Student
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.activation_checkpointing import foresees_recompute, memory_of
from feldspar.student.training.memory import Method, Shard
from feldspar.student.training.process_group import Ranks
from feldspar.student.training.schedule import Schedule
from feldspar.tokens.arrays import read, write

log = logging.getLogger(__name__)

JOB = "ranks"
"""Folder of a job, beside its state."""
CUT_OFF = 75
"""Exit code of a process whose only trouble is that another ended."""
_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 5.0
"""For the others to end, and to be seen dead when a connection has closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the others need to know of a `fit`."""

    start: str
    config: StudentConfig
    seed: int
    schedule: Schedule
    settings: FitSettings
    shard: Shard
    key: str
    rows: tuple[tuple[str, str], ...]
    """Name and folder of each source's tokens."""
    versions: tuple[str, ...]


def versions(config: StudentConfig) -> tuple[str, ...]:
    """Of what decides how a model is loaded and a step computed."""
    names = ["feldspar", "torch", "transformers", *(["peft"] if config.lora else [])]
    return tuple(f"{name} {version(name)}" for name in names)


def fit_together(
    student: Student,
    rows: TokenRows,
    schedule: Schedule,
    settings: FitSettings,
    *,
    here: Path,
    on_checkpoint: Callable[[int], None],
    progress: Progress,
    ranks: Ranks,
) -> None:
    """`fit` over several processes; the same steps, the same state, the same result to rounding.

    Raises TrainingError where one of them ends before its time.
    """
    device = student.device
    # With what was asked for: a state goes on where another number decides otherwise.
    key = key_of_fit(student, rows, schedule, settings)
    shard = choose_shard(student, ranks.num, ranks.shard)
    if settings.recompute == "auto":
        again = _foresees_recompute(student, settings, shard, ranks)
        settings = replace(settings, recompute="always" if again else "never")
    job = Job(
        start=str(Path(ranks.start).resolve()) if Path(ranks.start).exists() else ranks.start,
        config=ranks.config,
        seed=ranks.seed,
        schedule=schedule,
        settings=settings,
        shard=shard,
        key=key,
        rows=tuple(_on_disk(rows, here.resolve() / JOB)),
        versions=versions(ranks.config),
    )
    with _others(ranks.num, schedule.phase):
        tell(str(_write_job(job, here.resolve() / JOB)))
        team = Team(shard)
        loop = Loop(student, rows, schedule, settings, here, peers=team, key=key)

        def when_whole(step: int) -> None:
            team.gather(loop.student, student)
            on_checkpoint(step)
            team.meet()

        loop.resume()
        loop.run(when_whole, progress)
        team.gather(loop.student, student)
        # Others may have it open still, which a network disk minds.
        shutil.rmtree(here / JOB, ignore_errors=True)
    student.model.to(device)


def _foresees_recompute(
    student: Student, settings: FitSettings, shard: Shard, ranks: Ranks
) -> bool:
    memory = memory_of(student.device)
    if memory is None:
        return False
    method = Method(
        compute="float32" if student.dtype == torch.float32 else "bfloat16",
        states=settings.optimizer_states,
        lora_rank=ranks.config.lora.rank if ranks.config.lora else 0,
        shard=shard,
        num_shards=ranks.num,
    )
    num_tokens = max(settings.tokens_per_micro_batch, ranks.config.max_length)
    return foresees_recompute(ranks.start, method, num_tokens, memory)


def dismiss() -> None:
    """Tell processes that something else started that there is no more to do."""
    tell("")
    dist.destroy_process_group()


def read_job(folder: Path) -> tuple[Job, TokenRows]:
    job = TypeAdapter(Job).validate_json((folder / "job.json").read_bytes())
    return job, TokenRows((name, read(Path(place))) for name, place in job.rows)


def _write_job(job: Job, folder: Path) -> Path:
    with whole_file(folder / "job.json") as beside:
        beside.write_bytes(TypeAdapter(Job).dump_json(job))
    return folder


def _on_disk(rows: TokenRows, folder: Path) -> Iterator[tuple[str, str]]:
    """Where each source's tokens lie; those that are in memory alone are written."""
    for number, (name, arrays) in enumerate(rows.sources):
        place = folder / f"rows-{number}"
        if isinstance(arrays.ids, np.memmap) and arrays.ids.filename is not None:
            place = Path(arrays.ids.filename).resolve().parent
        else:
            place.mkdir(parents=True, exist_ok=True)
            write(place, [[arrays.row(index) for index in range(arrays.num_rows)]])
        folder.mkdir(parents=True, exist_ok=True)
        yield name, str(place)


@contextmanager
def _others(num: int, phase: str) -> Iterator[None]:
    """The other processes, there; and an error of one of them as a TrainingError."""
    if dist.is_initialized():
        try:
            yield
        except RuntimeError as error:
            if not is_cut_off(error):
                raise
            raise _ended(phase, f"another process ended ({first_line(error)})") from error
        return
    crew = _Crew(num)
    try:
        with crew.watched(phase):
            crew.gather()
            yield
            tell("")
    except RuntimeError as error:
        if (why := crew.who_died(_GRACE_SECONDS)) is None:
            raise
        raise _ended(phase, why) from error
    finally:
        crew.end()


def _ended(phase: str, why: str) -> TrainingError:
    return TrainingError(f"phase {phase}: {why}; the same command goes on from the last saved step")


class _Crew:
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

    def gather(self) -> None:
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
        join(self._store, 0, self.num)

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
                log.critical("%s", _ended(phase, why))
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
