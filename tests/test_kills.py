"""Kill -9 at ten moments of a run: the same command goes on, and the teacher is asked little twice.

The teacher is served by hand, so that its count of requests outlives the runs that are killed.
Moments are random in the run's own progress, not on a clock: five by what the teacher has served,
five by the lines of progress that the run has printed since.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import Forked
from tiny_run import (
    RECIPE,
    digests,
    num_served,
    sample_bytes,
    serving_teacher,
    start,
    write_recipe,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CONCURRENCY = 4
CALLS_IN_COMMITS = 40
"""Answers that may wait for their commit: 100 ms of a teacher that serves 400 a second."""
LONGER = RECIPE.replace("samples_per_leaf = 8", "samples_per_leaf = 100").replace(
    "calls_per_chunk = 2", "calls_per_chunk = 12"
)
"""Long enough in generation for some of the kills to fall there."""
Moment = Callable[[Forked], None]
"""Waits until a run has come so far."""


@pytest.mark.usefixtures("tiny")  # its world's models are made
def test_ten_kills_cost_nothing_but_what_was_in_flight(tmp_path: Path, cache: Path) -> None:
    assert f"concurrency = {CONCURRENCY}" in LONGER
    whole, num_requests = run_whole(tmp_path / "whole", cache)
    recipe = write_recipe(tmp_path / "killed", LONGER)
    with serving_teacher(recipe) as url:
        moments = [served(url, n) for n in sorted(rng.sample(range(num_requests), 5))]
        moments += [printed(rng.randint(2, 7), rng.uniform(0, 0.3)) for _ in range(5)]
        codes = [kill_at(moment, recipe.parent, cache, url) for moment in moments]
        done = start(*command(url), cwd=recipe.parent, cache=cache).completed()
        assert done.returncode == 0, done.stderr
        num_asked = num_served(url)
    # A run that had nothing left to do before its moment came was not killed.
    assert codes.count(-signal.SIGKILL) >= 8, codes
    assert set(codes) <= {0, -signal.SIGKILL}
    run = recipe.parent / "runs" / "tiny"
    assert num_asked <= num_requests + 10 * (CONCURRENCY + CALLS_IN_COMMITS)
    assert sample_bytes(run) == sample_bytes(whole)
    assert digests(run) == digests(whole)


rng = random.Random(7)


def run_whole(folder: Path, cache: Path) -> tuple[Path, int]:
    """A run without kills, and the requests it took."""
    recipe = write_recipe(folder, LONGER)
    with serving_teacher(recipe) as url:
        done = start(*command(url), cwd=folder, cache=cache).completed()
        assert done.returncode == 0, done.stderr
        return folder / "runs" / "tiny", num_served(url)


def command(url: str) -> list[str]:
    return ["run", "recipe.toml", "--set", f"teacher.endpoint={url}"]


def served(url: str, num_requests: int) -> Moment:
    def wait(process: Forked) -> None:
        while num_served(url) < num_requests and process.poll() is None:
            time.sleep(0.01)

    return wait


def printed(num_lines: int, seconds: float) -> Moment:
    """So many lines of progress, and a little later."""

    def wait(process: Forked) -> None:
        while process.said().count("\n") < num_lines and process.poll() is None:
            time.sleep(0.01)
        time.sleep(seconds)

    return wait


def kill_at(moment: Moment, folder: Path, cache: Path, url: str) -> int:
    """Start a run and end it with all its children; gives its exit code."""
    process = start(*command(url), cwd=folder, cache=cache)
    moment(process)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
