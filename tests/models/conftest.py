"""A tiny model in a folder, and a cluster of Ray's; lets these tests import the toys of other
rooms' tests."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for room in ("teacher", "prefer", "student"):
    sys.path.insert(0, str(Path(__file__).parents[1] / room))


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> str:
    """A model that answers `How is the river number 1?` with one of two sentences."""
    from toy_models import BAD, GOOD, teach, tiny_student

    from feldspar.student.model import save_checkpoint

    here = tmp_path_factory.mktemp("tiny-model")
    student = tiny_student(1)
    teach(student, (GOOD, BAD, BAD, GOOD, BAD), here / "training", 60)
    save_checkpoint(student, here / "toy", phase="base", step=0)
    return str(here / "toy")


@pytest.fixture(scope="session")
def cluster() -> Iterator[object]:
    """Ray's own for tests: a head without places, and two raylets of this machine."""
    ray = pytest.importorskip("ray", reason="needs pip install 'feldspar[cluster]'")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=2, num_gpus=2)
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = made.address
    yield made
    if before is None:
        del os.environ["RAY_ADDRESS"]
    ray.shutdown()
    made.shutdown()
