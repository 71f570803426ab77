"""Figures told elsewhere: once each, whatever dies, and never at the cost of the training."""

import json
import logging
import sys
from pathlib import Path

import pytest

from feldspar.config import TrackConfig
from feldspar.errors import TrainingError
from feldspar.student.training import tracking as track
from feldspar.student.training.tracking import Tracking, figures_of

FAKE_WANDB = """
import json
from pathlib import Path

class Run:
    def __init__(self, told): self.told = told
    def log(self, figures, step): tell(self.told, ["log", step, figures])
    def finish(self): tell(self.told, ["finish"])

def tell(path, what):
    with path.open("a") as file: file.write(json.dumps(what) + "\\n")

def init(**how):
    told = Path(how["dir"]) / "told.jsonl"
    tell(told, ["init", {k: v for k, v in how.items() if k != "dir"}])
    return Run(told)
"""
FAKE_TRACKIO = """
import json, os
from pathlib import Path

TOLD = Path(os.environ["FAKE_TRACKIO_TOLD"])

def tell(what):
    with TOLD.open("a") as file: file.write(json.dumps(what) + "\\n")

def init(**how): tell(["init", how])
def log(figures, step): tell(["log", step, figures])
def finish(): tell(["finish"])
"""


def line(step: int, phase: str = "one") -> dict[str, object]:
    sources = {"own": {"loss": step / 10, "samples": 4}}
    return {"phase": phase, "step": step, "loss": float(step), "sources": sources}


def write(path: Path, *lines: dict[str, object]) -> None:
    path.write_text("".join(json.dumps(text) + "\n" for text in lines))


def tracking(*to: str) -> Tracking:
    return Tracking(TrackConfig(to=to, project="lab"), "demo")


def read(path: Path) -> list[list[object]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small real modules that stand where wandb and trackio would; they write down what they are
    told. Neither service is reached here."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "wandb.py").write_text(FAKE_WANDB)
    (folder / "trackio.py").write_text(FAKE_TRACKIO)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("FAKE_TRACKIO_TOLD", str(tmp_path / "trackio.jsonl"))
    for name in ("wandb", "trackio"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(track, "_SECONDS", 0.01)
    yield tmp_path
    for name in ("wandb", "trackio"):
        sys.modules.pop(name, None)


def test_figures_of_a_line_are_its_numbers_and_those_of_its_sources():
    assert figures_of(line(3)) == {"loss": 3.0, "loss/own": 0.3, "samples/own": 4}


def test_lines_are_told_once_through_phases_and_kills(fakes):
    here = fakes / "trained"
    here.mkdir()
    path = here / "metrics.jsonl"
    with tracking("wandb", "trackio").following(path):
        write(path, line(1), line(2))
    # A run that goes on does its last step again, and adds a phase.
    with tracking("wandb", "trackio").following(path):
        write(path, line(1), line(2), line(3), line(1, "two"))
    told = read(here / "told.jsonl")
    logged = [(what[1], what[2]["loss"]) for what in told if what[0] == "log"]
    assert logged == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 1.0)]
    begun = ["init", {"project": "lab", "name": "demo", "id": "demo-trained", "resume": "allow"}]
    assert [what for what in told if what[0] == "init"] == [begun, begun]
    assert told[-1] == ["finish"]
    other = read(fakes / "trackio.jsonl")
    assert other[0] == ["init", {"project": "lab", "name": "demo-trained", "resume": "allow"}]
    assert [what[1] for what in other if what[0] == "log"] == [1, 2, 3, 4]


def test_a_tracker_that_fails_is_left_and_the_others_go_on(fakes, caplog):
    (fakes / "modules" / "trackio.py").write_text(
        "def init(**how): pass\ndef log(*a, **how): raise OSError('no network')\n"
        "def finish(): pass\n"
    )
    here = fakes / "trained"
    here.mkdir()
    with caplog.at_level(logging.WARNING), tracking("trackio", "wandb").following(here / "m"):
        write(here / "m", line(1), line(2))
    assert [r.message for r in caplog.records] == [
        "Trackio: no network; metrics.jsonl has all figures"
    ]
    assert [what[1] for what in read(here / "told.jsonl") if what[0] == "log"] == [1, 2]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_back_what_was_told(tmp_path):
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="the tracking extra is not installed",
    )
    path = tmp_path / "metrics.jsonl"
    with tracking("tensorboard").following(path):
        write(path, line(1), line(2))
    read_back = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(read_back.Tags()["scalars"]) == {"loss", "loss/own", "samples/own"}
    assert [(e.step, e.value) for e in read_back.Scalars("loss")] == [(1, 1.0), (2, 2.0)]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_is_told_before_anything_is_trained(name, tmp_path, monkeypatch):
    for module in (name, "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    with (
        pytest.raises(TrainingError, match=f'names "{name}", which is not installed: pip install'),
        tracking(name).following(tmp_path / "metrics.jsonl"),
    ):
        raise AssertionError("training began")


def test_nowhere_is_the_default(tmp_path):
    with Tracking(TrackConfig(), "demo").following(tmp_path / "metrics.jsonl"):
        write(tmp_path / "metrics.jsonl", line(1))
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]
