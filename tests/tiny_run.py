"""A whole run made small: its recipe, the command line as a process, and a run's results as bytes.

The world has so few entities, and its models so few steps, that a run takes seconds; what its
student can do means nothing.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forked import Forked

from feldspar.children import module_command
from feldspar.cli.main import main
from feldspar.records import Checkpoint
from feldspar.runs import open_step

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
STEPS = (
    *("leaves", "own-exams", "leaf-exams", "samples", "phases"),
    *("trained", "prompts", "preferred", "scores"),
)
RECIPE = """
name = "tiny"

[world]
num_old = 12
num_new = 10
training = 0.002

[taxonomy]
path = "world:taxonomy"
branches = ["knowledge", "compositional"]
chunk_tokens = 120

[teacher]
concurrency = 4
[teacher.errors]
wrong_fact = 0.1
off_format = 0.05
duplicate = 0.1
unsafe = 0.05

[generate]
samples_per_leaf = 8
calls_per_chunk = 2
pairs_per_call = 2
exam_items = 4

[student]
base = "world:student"
max_length = 256
device = "cpu"

[mix.base_replay]
source = "world:base-replay"
share = 0.2

[train]
learning_rate = 1e-3
batch_samples = 16
warmup_steps = 2

[prefer]
aligned = "world:aligned"
base = "world:reward-base"
num_prompts = 8
num_answers = 2
max_new_tokens = 8

[evaluate]
general = { enabled = false }
max_new_tokens = 8
num_resamples = 50
min_selection_items = 4
"""


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def feldspar(
    *arguments: str, cwd: Path, cache: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line, to its end."""
    return start(*arguments, cwd=cwd, cache=cache).completed()


def from_a_shell(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same as it is started from a shell, which takes seconds more."""
    return subprocess.run(
        [*module_command("feldspar.cli.main"), *arguments],
        cwd=cwd,
        env=_environment(None),
        capture_output=True,
        text=True,
        check=False,
    )


def start(
    *arguments: str, cwd: Path, cache: Path | None = None, max_file_bytes: int | None = None
) -> Forked:
    """The command line, on its way, in a session of its own as on a terminal of its own.

    Forked: it has loaded torch already.
    `max_file_bytes` is the size beyond which no file may grow.
    """
    return Forked(_main, arguments, max_file_bytes, cwd=cwd, environment=_environment(cache))


def is_one_line(text: str) -> bool:
    """Whether standard error, progress aside, is one line with what to do, and no traceback."""
    told = [line for line in text.splitlines() if line.startswith("feldspar: ")]
    return len(told) == 1 and text.splitlines()[-1] == told[0] and "Traceback" not in text


@contextmanager
def serving_teacher(recipe: Path) -> Iterator[str]:
    """`feldspar world serve` of a recipe, which outlives the runs that ask it; gives its URL."""
    process = start("world", "serve", "--recipe", recipe.name, cwd=recipe.parent)
    try:
        deadline = time.monotonic() + 120
        while not (said := process.out()).endswith("\n"):
            assert process.poll() is None, process.said()
            assert time.monotonic() < deadline, "the teacher did not come up"
            time.sleep(0.02)
        yield said.splitlines()[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def num_served(url: str) -> int:
    """Valid requests that a teacher has answered, or is about to."""
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/stats") as reply:
        return int(json.load(reply)["requests"])


def sample_bytes(run: Path) -> bytes:
    return rows_bytes(run, "samples")


def rows_bytes(run: Path, step: str) -> bytes:
    rows = open_step(run, step)
    assert rows is not None, f"{run} has no {step}"
    return (rows.folder / "rows.jsonl.zst").read_bytes()


def digests(run: Path) -> list[tuple[str, int, str]]:
    """Phase, step and content of every checkpoint that training and preference tuning gave."""
    checkpoints: list[Checkpoint] = []
    for name in ("trained", "preferred"):
        rows = open_step(run, name)
        assert rows is not None, f"{run} has no {name}"
        checkpoints += rows
    return [(c.phase, c.step, c.digest) for c in checkpoints]


def step_files(run: Path) -> dict[str, int]:
    """Every file of the run's steps, with the time of its last change."""
    files = (path for path in (run / "steps").rglob("*") if path.is_file())
    return {str(path.relative_to(run)): path.stat().st_mtime_ns for path in files}


def _main(arguments: tuple[str, ...], max_file_bytes: int | None) -> None:
    if max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, resource.RLIM_INFINITY))
    sys.argv[1:] = arguments
    main()


def _environment(cache: Path | None) -> dict[str, str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    extra = {} if cache is None else {"FELDSPAR_CACHE": str(cache)}
    # Where the package is imported from without an install, its subprocesses must find it too.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **extra}
