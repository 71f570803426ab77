"""For all tests: torch on one thread, since small models are waiting, not computing, on more."""

import gc
import os
from pathlib import Path

import pytest
import tiny_run
from filelock import FileLock

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_finish() -> None:
    """Collections of garbage look at what the tests make, and not at all of torch each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this test session's own, the same in all its workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return folder / "session"


@pytest.fixture(scope="session")
def cache(session_folder: Path) -> Path:
    """A model cache of this test session's own."""
    return session_folder / "cache"


@pytest.fixture(scope="session")
def tiny(session_folder: Path, cache: Path) -> Path:
    """The folder of a tiny run that has finished; do not write into it."""
    folder = session_folder / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "stderr").exists():
            tiny_run.write_recipe(folder)
            done = tiny_run.feldspar("run", "recipe.toml", cwd=folder, cache=cache)
            assert done.returncode == 0, done.stderr
            (folder / "stdout").write_text(done.stdout)
            (folder / "stderr").write_text(done.stderr)
    return folder / "runs" / "tiny"
