"""Training by workers that a cluster placed: the same as one process, through losses and signals.

The cluster is this machine here; with Ray's own: tests/models/test_ray_workers.py.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from forked import Forked
from placed_here import HerePlaces
from ranked_fit import train
from test_student_ranks import assert_alike, followers, is_alive, metrics
from tiny import save_base

from feldspar.children import child_environment
from feldspar.errors import TrainingError
from feldspar.student.distributed import placed
from feldspar.student.distributed.launcher import CUT_OFF
from feldspar.student.training.process_group import LOST

EPOCHS = 12
"""48 steps: enough for something to happen on the way."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the base that all start from."""
    here = tmp_path_factory.mktemp("placed")
    save_base(here / "base")
    return here


@pytest.fixture(scope="module")
def alone(runs: Path) -> Path:
    """The run of one process."""
    train(runs / "alone", 1, epochs=EPOCHS)
    return runs / "alone"


@contextmanager
def after_steps(here: Path, num: int, do: Callable[[], None]) -> Iterator[None]:
    """Do something when so many steps are on disk."""

    def wait_and_do() -> None:
        path = here / "metrics.jsonl"
        while not path.exists() or path.read_text().count("\n") < num:
            time.sleep(0.002)
        do()

    thread = threading.Thread(target=wait_and_do)
    thread.start()
    yield
    thread.join()


@pytest.mark.slow
def test_a_lost_worker_costs_some_steps_and_the_others_go_on(
    alone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here, places = alone.parent / "lost", HerePlaces(2, 1)
    with after_steps(here, 10, lambda: places.processes[1].kill()):
        train(here, 1, epochs=EPOCHS, places=places)
    assert_alike(here, alone)
    (told,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert told == (
        "phase p: worker 2 of 2 was killed by signal 9; going on from the last saved state"
    )
    assert not (here / "ranks").exists()


@pytest.mark.slow
def test_a_signal_has_workers_save_one_state_with_which_one_process_goes_on(alone: Path) -> None:
    here, places = alone.parent / "stopped", HerePlaces(2)
    interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    with pytest.raises(KeyboardInterrupt), after_steps(here, 10, interrupt):
        train(here, 1, epochs=EPOCHS, places=places)
    assert all(process.poll() is not None for process in places.processes)
    state = json.loads((here / "state.json").read_text())
    assert 10 <= state["step"] == len(metrics(here)) < 48
    train(here, 1, epochs=EPOCHS)
    assert_alike(here, alone)


def train_long(here: Path) -> None:
    train(here, 1, epochs=100 * EPOCHS, places=HerePlaces(2))


@pytest.mark.slow
def test_workers_end_with_the_process_that_handed_out_the_job(runs: Path) -> None:
    here = runs / "orphaned"
    driver = Forked(train_long, here)
    with after_steps(here, 2, lambda: None):
        pass
    workers = followers(driver)
    driver.kill()
    deadline = time.monotonic() + 60
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(workers) == 2
    assert not any(map(is_alive, workers))


class ToldPlaces:
    """Workers without processes: `ends` says how each try ends, as statuses by rank."""

    host = "127.0.0.1"

    def __init__(self, *ends: list[int | None], why: dict[int, str] | None = None) -> None:
        self._ends, self._why = list(ends), why or {}
        self.num_tries = 0

    @contextmanager
    def workers(self, log_folder: Path) -> Iterator[ToldPlaces]:
        self._statuses = self._ends[min(self.num_tries, len(self._ends) - 1)]
        self.num = len(self._statuses)
        self.num_tries += 1
        yield self

    def begin(self, command: object, variables: dict[str, str]) -> None:
        store = torch.distributed.TCPStore(
            variables["MASTER_ADDR"], int(variables["MASTER_PORT"]), is_master=False
        )
        for rank, why in self._why.items():
            store.set(f"why-{rank}", why)

    def statuses(self) -> list[int | None]:
        return self._statuses

    def last_words(self, rank: int) -> str:
        return f"words of {rank}"


class StoppedPlaces(ToldPlaces):
    """Ctrl-C comes when all run; `ends` is how it is after that."""

    is_stopped = False

    def statuses(self) -> list[int | None]:
        if self.is_stopped:
            return super().statuses()
        self.is_stopped = True
        os.kill(os.getpid(), signal.SIGINT)
        return [None] * self.num


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placed, "_CAUSE_SECONDS", 0.02)
    monkeypatch.setattr(placed, "_LOOK_SECONDS", 0.005)


def test_what_a_worker_says_is_told_and_not_tried_again(runs: Path, quickly: None) -> None:
    places = ToldPlaces([75, 1, None], why={1: "no room on the GPU"})
    with pytest.raises(TrainingError, match=r"phase p: worker 2 of 3 stopped: no room on the GPU"):
        train(runs / "says", 1, places=places)
    assert places.num_tries == 1


def test_a_worker_that_cannot_start_is_told_of_with_its_last_words(runs: Path, quickly) -> None:
    places = ToldPlaces([None, 127])
    said = "worker 2 of 2 ended with exit code 127; its last words: words of 1"
    with pytest.raises(TrainingError, match=said):
        train(runs / "cannot", 1, places=places)


def test_what_broke_a_connection_is_told_where_nothing_else_is_known(runs: Path, quickly) -> None:
    places = ToldPlaces([75, 75], why={1: "NCCL error: unhandled system error"})
    said = r"lost their connection to each other \(NCCL error: unhandled system error\); 3 tries"
    with pytest.raises(TrainingError, match=said):
        train(runs / "cut off", 1, places=places)


CUT_OFF_WORKER = """
import sys
from feldspar.student.distributed import placed_worker

def fail(*_):
    raise RuntimeError("NCCL error: unhandled system error\\nand more")

placed_worker.do_job = fail
sys.exit(placed_worker.main())
"""


@pytest.mark.slow
def test_a_worker_tells_what_broke_its_connection() -> None:
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store.set("job", "nowhere")
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    environment = os.environ | child_environment() | place | {"RANK": "0", "WORLD_SIZE": "1"}
    command = [sys.executable, "-P", "-c", CUT_OFF_WORKER, "cpu"]
    assert subprocess.run(command, env=environment, check=False).returncode == CUT_OFF
    assert store.get("why-0") == b"NCCL error: unhandled system error"


@pytest.mark.parametrize("ends", [[None, 137], [None, LOST], [None, None]])
def test_a_signal_waits_for_no_state_that_will_not_come(
    runs: Path, quickly, monkeypatch: pytest.MonkeyPatch, ends: list[int | None]
) -> None:
    monkeypatch.setattr(placed, "_STOP_SECONDS", 600.0 if any(ends) else 0.05)
    with pytest.raises(KeyboardInterrupt):
        train(runs / "stopped early", 1, places=StoppedPlaces(ends))


def test_workers_meet_at_an_ipv6_address(runs: Path, quickly) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    places = ToldPlaces([1], why={0: "told over IPv6"})
    places.host = "::1"
    with pytest.raises(TrainingError, match="told over IPv6"):
        train(runs / "six", 1, places=places)


def test_losses_that_leave_no_step_done_end_the_training(runs: Path, quickly) -> None:
    places = ToldPlaces([LOST, 75], [None, 137])
    with pytest.raises(TrainingError, match=r"killed by signal 9; 3 tries in a row got no further"):
        train(runs / "useless", 1, places=places)
    assert places.num_tries == 3
