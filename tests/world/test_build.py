"""The world's models are made once; a making that was killed goes on to the same weights."""

import random
import signal
import time
from pathlib import Path

import pytest
from forked import Forked

from feldspar.config import WorldConfig
from feldspar.errors import RecipeError
from feldspar.keys import content_key
from feldspar.progress import SILENT
from feldspar.world import make_world
from feldspar.world.build import FILES_VERSION, MODELS_VERSION
from feldspar.world.corpus import base_rows, reward_aligned_rows, reward_base_rows
from feldspar.world.serve import world_of
from feldspar.world.write import world_texts

CONFIG = WorldConfig(num_old=12, num_new=10, training=0.008)


def weights(cache: Path) -> bytes:
    parts = make_world(CONFIG, cache, {"student"}, SILENT)
    return (Path(parts["student"]) / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_stopped_and_killed_pretraining_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    for number, after_steps in ((signal.SIGINT, 3), (signal.SIGKILL, 7)):
        making = start_making(killed)
        while num_steps(killed) < after_steps:
            assert making.poll() is None
            time.sleep(0.01)
        making.send_signal(number)
        assert making.wait(timeout=120) != 0
        # Ctrl-C saves what was trained; the kill finds it there, and leaves it.
        assert list(killed.glob("worlds/*/student.training/state.safetensors"))
        assert not list(killed.glob("worlds/*/student"))
    assert weights(killed) == weights(tmp_path / "whole")


@pytest.mark.parametrize("seed", [1, 2])
def test_a_world_without_exams_is_refused(tmp_path: Path, seed: int) -> None:
    config = WorldConfig(seed=seed, num_old=4, num_new=2)
    with pytest.raises(RecipeError, match="take 16 new ones or more"):
        make_world(config, tmp_path, set(), SILENT)


def start_making(cache: Path) -> Forked:
    return Forked(make, cache)


def make(cache: Path) -> None:
    make_world(CONFIG, cache, {"student"}, SILENT)


def num_steps(cache: Path) -> int:
    """Steps that the pretraining of the student has written down."""
    return sum(
        path.read_text().count("\n")
        for path in cache.glob("worlds/*/student.training/metrics.jsonl")
    )


@pytest.mark.slow
def test_files_alone_are_written_without_making_a_model(tmp_path: Path) -> None:
    parts = make_world(CONFIG, tmp_path, set(), SILENT)
    assert (Path(parts["taxonomy"]) / "knowledge").is_dir()
    assert not Path(parts["student"]).exists()
    again = make_world(CONFIG, tmp_path, set(), SILENT)
    assert again == parts


@pytest.mark.slow
def test_a_world_that_changes_gets_a_new_version() -> None:
    """Where this fails by intent: raise MODELS_VERSION or FILES_VERSION, and note the digest."""
    world = world_of(CONFIG)
    files = content_key(sorted(world_texts(world)))
    makers = (base_rows, reward_base_rows, reward_aligned_rows)
    rows = content_key([make(world, 50, random.Random(1)) for make in makers])
    assert (FILES_VERSION, files[:16]) == (1, "fa119fc6b978bedf")
    assert (MODELS_VERSION, rows[:16]) == (1, "f442ac99e659b49c")
