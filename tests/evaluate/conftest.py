"""MT-Bench on questions about a world, and a checkpoint to be asked."""

from pathlib import Path

import pytest
import taught
import tiny
import world_bench

from feldspar.records import Checkpoint
from feldspar.student.model import save_checkpoint


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world_bench.write_bench(tmp_path_factory.mktemp("bench") / "mt_bench")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    student = tiny.make_tiny()
    return save_checkpoint(student, tmp_path_factory.mktemp("model") / "m", phase="base", step=0)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    """`base`, a model that knows nothing, and `taught`, which was taught three facts."""
    return taught.make_checkpoints(tmp_path_factory.mktemp("models"))
