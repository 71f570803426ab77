"""The world's models are made once; a making that was killed goes on to the same weights."""

import signal
import time
from pathlib import Path

import pytest
from forked import Forked

from feldspar.config import WorldConfig
from feldspar.errors import RecipeError
from feldspar.progress import SILENT
from feldspar.world import make_world

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


def test_files_alone_are_written_without_making_a_model(tmp_path: Path) -> None:
    parts = make_world(CONFIG, tmp_path, set(), SILENT)
    assert (Path(parts["taxonomy"]) / "knowledge").is_dir()
    assert not Path(parts["student"]).exists()
    again = make_world(CONFIG, tmp_path, set(), SILENT)
    assert again == parts
