"""For all tests: torch on one thread, since small models are waiting, not computing, on more."""

import gc
import os
from pathlib import Path

import pytest
import tiny_run

from feldspar.cli.main import WAITING

os.environ.setdefault("OMP_NUM_THREADS", "1")
for name, value in WAITING.items():
    os.environ.setdefault(name, value)


def pytest_collection_finish() -> None:
    """Collections of garbage look at what the tests make, and not at all of torch each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model cache of this test session's own."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The folder of a tiny run that has finished; do not write into it."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_run.write_recipe(folder)
    done = tiny_run.feldspar("run", "recipe.toml", cwd=folder, cache=cache)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder / "runs" / "tiny"
