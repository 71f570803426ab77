"""Training on the nodes of a real Ray cluster: two raylets of this machine, a place a CPU.

Ray is not among the dev extras (it unpacks to 285 MB): docs/cluster.md says how to run these.
"""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from ranked_fit import train
from test_student_placed import EPOCHS, after_steps
from test_student_ranks import assert_alike
from tiny import save_base

from feldspar.config import WorkersConfig
from feldspar.errors import TrainingError
from feldspar.models import ray_workers
from feldspar.models.ray_actor import NodePorts
from feldspar.models.ray_workers import RayPlaces, variables_of

needs_ray = [
    pytest.mark.slow,
    # Ray leaves files and sockets of its daemons to be collected.
    pytest.mark.filterwarnings("ignore"),
]


def with_marks(test):
    for mark in needs_ray:
        test = mark(test)
    return test


def test_workers_of_a_node_see_its_gpus_and_take_one_each() -> None:
    places = [NodePorts(1, 2, "a", "0"), NodePorts(1, 2, "a", "3"), NodePorts(1, 2, "b", "0")]
    assert [
        [one[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "CUDA_VISIBLE_DEVICES")]
        for one in variables_of(places)
    ] == [["0", "0", "3", "0,3"], ["1", "1", "3", "0,3"], ["2", "0", "3", "0"]]


class UnstartableActors:
    """A Ray with room, whose actors end before they begin."""

    class Failure(Exception):
        pass

    exceptions = SimpleNamespace(RayError=Failure)
    num_asked = 0

    @property
    def ray(self) -> UnstartableActors:
        return self

    def num_places(self, gpus_each: int) -> int:
        return 2

    def actors(self, num: int, gpus_each: int) -> SimpleNamespace:
        self.num_asked += 1
        actor = SimpleNamespace(where=SimpleNamespace(remote=lambda: "asked"))
        return SimpleNamespace(actors=[actor] * num, wait=lambda is_asked: None)

    def wait(self, asked: list[str], num_returns: int, timeout: float) -> tuple[list, list]:
        return asked, []

    def get(self, asked: list[str]) -> None:
        raise self.Failure("No module named 'psutil'\nand more")


def test_workers_that_cannot_start_end_the_wait_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_workers, "_LOOK_SECONDS", 0.02)
    places, engine = RayPlaces(WorkersConfig(num=2, start_seconds=0.2)), UnstartableActors()
    said = r"2 workers did not start in 0.2 s \(Failure: No module named 'psutil' and more\)"
    with pytest.raises(TrainingError, match=said):
        places._placed(engine)
    assert 3 <= engine.num_asked <= 11
    assert caplog.text.count("workers do not start") == 1


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process, and beside it the base that all start from."""
    here = tmp_path_factory.mktemp("on-ray") / "alone"
    save_base(here.parent / "base")
    train(here, 1, epochs=EPOCHS)
    return here


def places_for(num: int, **more: object) -> RayPlaces:
    return RayPlaces(WorkersConfig(num=num, gpus_each=0, start_seconds=240, **more))


@with_marks
@pytest.mark.parametrize("num", [2, 3])
def test_workers_on_nodes_train_as_one_process(cluster, alone: Path, num: int) -> None:
    here = alone.parent / f"on {num}"
    train(here, 1, epochs=EPOCHS, places=places_for(num))
    assert_alike(here, alone)
    assert not (here / "ranks").exists()


@with_marks
def test_a_killed_worker_is_replaced(cluster, alone: Path, caplog) -> None:
    here = alone.parent / "killed"
    with after_steps(here, 10, lambda: os.kill(worker_process(1), signal.SIGKILL)):
        train(here, 1, epochs=EPOCHS, places=places_for(2))
    assert_alike(here, alone)
    assert warnings(caplog) == [
        "phase p: worker 2 of 2 was killed by signal 9; going on from the last saved state"
    ]


@with_marks
def test_a_lost_node_leaves_the_others_to_go_on(cluster, alone: Path, caplog) -> None:
    here = alone.parent / "lost"
    extra = cluster.add_node(num_cpus=1)
    with after_steps(here, 10, lambda: cluster.remove_node(extra, allow_graceful=False)):
        train(here, 1, epochs=EPOCHS, places=places_for(5))
    assert_alike(here, alone)
    lost, fewer = warnings(caplog)
    assert lost.endswith("of 5 was lost with its node; going on from the last saved state")
    assert fewer == "4 of 5 workers train: there is no node for more"


@with_marks
def test_what_has_no_room_says_what_there_is(cluster, alone: Path) -> None:
    places = RayPlaces(WorkersConfig(num=2, gpus_each=1, start_seconds=1))
    import ray

    @ray.remote(num_gpus=2, num_cpus=0)
    class Holder:
        def there(self) -> bool:
            return True

    holders = [Holder.remote() for _ in range(2)]
    ray.get([holder.there.remote() for holder in holders])
    with pytest.raises(TrainingError, match=r"2 workers found no room in 1 s \(the cluster has 4"):
        train(alone.parent / "no room", 1, places=places)
    for holder in holders:
        ray.kill(holder)


def worker_process(rank: int) -> int:
    """The process id of a worker, by its environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        is_worker = b"feldspar.student.distributed.placed_worker" in command[:4]
        if is_worker and f"RANK={rank}".encode() in variables:
            return int(folder.name)
    raise AssertionError(rank)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = [r for r in caplog.records if r.levelno == logging.WARNING]
    return [r.getMessage() for r in ours if r.name.startswith("feldspar") and "Ray:" not in r.msg]
