"""The world's models are made once; a making that was killed goes on to the same weights."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from feldspar.config import WorldConfig
from feldspar.progress import SILENT
from feldspar.world import make_world

CONFIG = WorldConfig(num_old=12, num_new=10, training=0.02)
STEPS_BEFORE_THE_KILL = 8


def weights(cache: Path) -> bytes:
    parts = make_world(CONFIG, cache, {"student"}, SILENT)
    return (Path(parts["student"]) / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_killed_pretraining_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from feldspar.config import WorldConfig\n"
        "from feldspar.progress import SILENT\n"
        "from feldspar.world import make_world\n"
        "config = WorldConfig.model_validate_json(sys.argv[1])\n"
        "make_world(config, Path(sys.argv[2]), {'student'}, SILENT)\n"
    )
    killed = tmp_path / "killed"
    command = [sys.executable, "-c", code, CONFIG.model_dump_json(), str(killed)]
    making = subprocess.Popen(command, start_new_session=True)
    while num_steps(killed) < STEPS_BEFORE_THE_KILL:
        assert making.poll() is None
        time.sleep(0.01)
    os.killpg(making.pid, signal.SIGKILL)
    making.wait()
    assert not list(killed.glob("worlds/*/student"))
    assert weights(killed) == weights(tmp_path / "whole")


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
