"""What goes wrong at a user's desk: one line with the cure, its exit code, and nothing lost."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest
from filelock import FileLock
from forked import Forked
from tiny import save_base
from tiny_run import (
    digests,
    feldspar,
    is_one_line,
    num_served,
    sample_bytes,
    serving_teacher,
    start,
    write_recipe,
)

PATIENCE_SECONDS = 300
"""For a machine whose cores are held by others; it is only waited out when the test fails."""
SMALL = """
[taxonomy]
path = "taxonomy"
[teacher]
max_retries = 1
[generate]
exam_items = 0
samples_per_leaf = 2
[student]
base = "model"
"""
FULL_AT = {1_000: "File too large", 100_000: "journal.sqlite", 900_000: "state.safetensors"}
"""Largest file in bytes, and what is said of the one that does not fit."""
LEAF = """version: 2
task_description: Add.
created_by: somebody
seed_examples:
  - question: What is 2 + 3?
    answer: 2 + 3 = 5.
"""


def small_project(folder: Path) -> Path:
    leaf = folder / "taxonomy" / "foundational_skills" / "adding"
    leaf.mkdir(parents=True)
    (leaf / "qna.yaml").write_text(LEAF)
    write_recipe(folder, SMALL)
    return folder


def project_with_base(folder: Path) -> Path:
    save_base(folder / "model")
    return small_project(folder)


@pytest.mark.slow
def test_an_unreachable_teacher_is_named_with_the_cure(tmp_path: Path) -> None:
    folder = project_with_base(tmp_path)
    with socket.socket() as taken:  # bound, not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        done = feldspar("run", "recipe.toml", "--set", f"teacher.endpoint={url}", cwd=folder)
    assert done.returncode == 4, done.stderr
    assert is_one_line(done.stderr)
    assert url in done.stderr
    assert "start the server" in done.stderr


@pytest.mark.slow
def test_a_taxonomy_without_leaves_is_named(tmp_path: Path) -> None:
    (tmp_path / "taxonomy").mkdir()
    write_recipe(tmp_path, SMALL)
    done = feldspar("run", "recipe.toml", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert is_one_line(done.stderr)
    assert "taxonomy" in done.stderr
    assert "qna.yaml" in done.stderr


@pytest.mark.slow
def test_a_missing_student_is_named(tmp_path: Path) -> None:
    done = start("run", "recipe.toml", cwd=small_project(tmp_path)).completed()
    assert done.returncode == 5, done.stderr
    assert is_one_line(done.stderr)
    assert "model" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_two_runs_at_once_are_told_apart(tmp_path: Path) -> None:
    folder = project_with_base(tmp_path)
    (folder / "runs" / folder.name).mkdir(parents=True)
    with FileLock(folder / "runs" / folder.name / "lock"):
        done = feldspar("run", "recipe.toml", cwd=folder)
    assert done.returncode == 6, done.stderr
    assert is_one_line(done.stderr)
    assert "another process" in done.stderr


def interrupt(process: Forked) -> str:
    """Ctrl-C, which reaches all the processes of a terminal; gives what the run said."""
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, said
    return said


@pytest.mark.slow
@pytest.mark.timeout(4 * PATIENCE_SECONDS)
def test_ctrl_c_loses_nothing(tmp_path: Path, tiny: Path, cache: Path) -> None:
    recipe = write_recipe(tmp_path)
    run = tmp_path / "runs" / "tiny"
    with serving_teacher(recipe) as url:
        command = ["run", "recipe.toml", "--set", f"teacher.endpoint={url}"]
        generating = start(*command, cwd=tmp_path, cache=cache)
        while num_served(url) < 150:
            assert generating.poll() is None, generating.said()
            time.sleep(0.005)
        said = interrupt(generating)
        assert is_one_line(said), said
        assert "the same command goes on" in said
        before = num_served(url)
        training = start(*command, cwd=tmp_path, cache=cache)
        while not list(run.glob("steps/trained/*/metrics.jsonl")):
            assert training.poll() is None, training.said()
            time.sleep(0.005)
        said = interrupt(training)
        assert is_one_line(said), said
        assert not list(run.glob("steps/trained/*/done.json"))
        assert num_served(url) > before
        done = start(*command, cwd=tmp_path, cache=cache).completed()
    assert done.returncode == 0, done.stderr
    assert sample_bytes(run) == sample_bytes(tiny)
    assert digests(run) == digests(tiny)


@pytest.mark.slow
def test_a_full_disk_loses_nothing(tmp_path: Path, tiny: Path, cache: Path) -> None:
    """No file may grow beyond a size: rows, the journal, then a model fail as on a full disk."""
    write_recipe(tmp_path)
    for size_bytes, place in FULL_AT.items():
        full = start(
            "run", "recipe.toml", cwd=tmp_path, cache=cache, max_file_bytes=size_bytes
        ).completed()
        assert full.returncode == 7, full.stderr
        assert is_one_line(full.stderr), full.stderr
        assert place in full.stderr.splitlines()[-1]
    done = start("run", "recipe.toml", cwd=tmp_path, cache=cache).completed()
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "tiny"
    assert sample_bytes(run) == sample_bytes(tiny)
    assert digests(run) == digests(tiny)
