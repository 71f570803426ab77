"""For all tests: torch on one thread, since small models are waiting, not computing, on more; and
short pauses, since the servers of tests need none; and Ctrl-C heard by tests in the background."""

import gc
import os
import signal
from pathlib import Path

import filelock
import pytest
import tiny_run

from feldspar.cli.main import WAITING
from feldspar.endpoint import retry
from feldspar.teacher import journal

os.environ.setdefault("OMP_NUM_THREADS", "1")
for name, value in WAITING.items():
    os.environ.setdefault(name, value)

retry.FIRST_PAUSE_SECONDS = 0.01
journal.BATCH_SECONDS = 0.002

# What is ignored here stays so in every child: SIGINT of what a shell started with `&`,
# SIGHUP under nohup.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """Collections of garbage look at what the tests make, and not at all of torch each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this test session, common to all workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = folder / "shared"
    made.mkdir(exist_ok=True)
    return made


@pytest.fixture(scope="session")
def cache(shared: Path) -> Path:
    """A model cache of this test session's own; the package locks what it makes there."""
    return shared / "cache"


@pytest.fixture(scope="session")
def tiny(shared: Path, cache: Path) -> Path:
    """The folder of a tiny run that has finished; do not write into it.

    The first worker that needs it makes it, and the others wait.
    """
    folder = shared / "tiny"
    with filelock.FileLock(shared / "tiny.lock"):
        if not (folder / "stderr").exists():
            tiny_run.write_recipe(folder)
            done = tiny_run.feldspar("run", "recipe.toml", cwd=folder, cache=cache)
            assert done.returncode == 0, done.stderr
            (folder / "stdout").write_text(done.stdout)
            (folder / "stderr").write_text(done.stderr)
    return folder / "runs" / "tiny"
