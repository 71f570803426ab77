"""Phases in order, the choice of checkpoints, and resuming."""

import json
import logging
import shutil
import signal
from collections import namedtuple
from pathlib import Path

import killed_training
import pytest
import torch
from forked import Forked
from plain_trainer import PlainTrainer
from safetensors.torch import load_file
from tiny_base import CONFIG, STUDENT, FakeScore, Planned, phase, save_base, source

from feldspar.config import LoraConfig
from feldspar.errors import DiskError, TrainingError
from feldspar.records import Checkpoint
from feldspar.steps import Workspace
from feldspar.train.phases import train_phases

MODELS = Path(__file__).parents[2].parent / "shared" / "data" / "models"


def train(base: Checkpoint, planned: list[Planned], here: Path, **more: object) -> list[Checkpoint]:
    settings = {
        "student": STUDENT,
        "scores": {"exams": more.pop("score", FakeScore(lambda name, step: 0.5))},
        "min_selection_items": 100,
        "seed": 1,
    }
    config = more.pop("config", CONFIG)
    workspace = Workspace(folder=here, num_processes=more.pop("num_processes", 1))
    phases, trainings = zip(*planned, strict=True)
    return list(train_phases(workspace, base, phases, trainings, config, **(settings | more)))


def lines(path: Path) -> list[dict]:
    return [json.loads(text) for text in path.read_text().splitlines()]


@pytest.fixture
def base(tmp_path: Path) -> Checkpoint:
    return save_base(tmp_path / "base")


def test_each_phase_starts_from_the_winner_before(base, tmp_path):
    own, other = source(tmp_path, "first", 40), source(tmp_path, "second", 40)
    score = FakeScore(lambda name, step: {"one": 0.9 - 0.1 * step}.get(name, 0.1 * step))
    here = tmp_path / "trained"
    first, second = train(base, [phase("one", own), phase("two", other)], here, score=score)
    assert (first.phase, first.step) == ("one", 2)
    assert (second.phase, second.step) == ("two", 6)
    assert score.asked == [
        ("base", 0), *(("one", s) for s in (2, 3, 5, 6)),
        ("one", 2), *(("two", s) for s in (2, 3, 5, 6)),
    ]  # fmt: skip
    one, two = lines(here / "selections.jsonl")
    assert one["digest"] == first.digest
    assert "best of 4" in one["reason"]
    assert one["candidates"][0]["value"] == pytest.approx(0.7)
    assert two["start"] == pytest.approx(0.7)
    rates = [line["learning_rate"] for line in lines(here / "metrics.jsonl")]
    assert rates[:4] == pytest.approx([0.00075, 0.0015, 0.00225, 0.003])
    assert rates[6] == 0.003


def test_warm_up_can_start_again_with_each_phase(base, tmp_path):
    own = source(tmp_path, "first", 20)
    config = CONFIG.model_copy(update={"warmup": "per-phase"})
    train(base, [phase("one", own), phase("two", own)], tmp_path / "t", config=config)
    rates = [line["learning_rate"] for line in lines(tmp_path / "t" / "metrics.jsonl")]
    assert rates[:4] == rates[4:] == pytest.approx([0.00075, 0.0015, 0.00225, 0.003])


def test_the_best_and_the_last_are_kept_and_the_state_is_not(base, tmp_path):
    score = FakeScore(lambda name, step: 0.9 if step == 3 else 0.1)
    here = tmp_path / "trained"
    train(base, [phase("a/b", source(tmp_path, "first", 40))], here, score=score)
    assert sorted(p.name for p in here.glob("1-a%2Fb/*")) == ["step-000003", "step-000006"]
    assert not (here / "state.safetensors").exists()


def test_a_phase_whose_folder_is_lost_is_trained_and_saved_again(base, tmp_path):
    here = tmp_path / "trained"
    planned = [phase("one", source(tmp_path, "first", 40))]
    (before,) = train(base, planned, here)
    shutil.rmtree(here / "1-one")
    (after,) = train(base, planned, here)
    assert after == before
    assert Path(after.path).is_dir()


def test_equal_marks_take_the_earlier_step(base, tmp_path):
    (last,) = train(base, [phase("one", source(tmp_path, "first", 40))], tmp_path / "t")
    assert last.step == 2


def test_too_few_items_choose_nothing(base, tmp_path):
    score = FakeScore(lambda name, step: 1 - 0.1 * step, num_items=20)
    (last,) = train(base, [phase("one", source(tmp_path, "a", 40))], tmp_path / "t", score=score)
    assert last.step == 6
    assert score.asked == [("base", 0)]
    (line,) = lines(tmp_path / "t" / "selections.jsonl")
    assert "20 items to select on, fewer than the 100" in line["reason"]


def test_select_last_asks_for_no_score(base, tmp_path):
    score = FakeScore(lambda name, step: 1.0)
    chosen = phase("one", source(tmp_path, "a", 40), select="last")
    (last,) = train(base, [chosen], tmp_path / "t", score=score)
    assert last.step == 6
    assert not score.asked


@pytest.mark.slow
def test_a_finished_phase_is_found_again(base, tmp_path):
    phases = [phase("one", source(tmp_path, "a", 40)), phase("two", source(tmp_path, "b", 40))]
    before = train(base, phases, tmp_path / "t")
    shutil.rmtree(tmp_path / "t" / "2-two")
    score = FakeScore(lambda name, step: 0.5)
    assert train(base, phases, tmp_path / "t", score=score) == before
    assert {name for name, _ in score.asked} <= {"one", "two"}
    other = train(base, phases, tmp_path / "t", seed=2)
    assert other[0].digest != before[0].digest


def test_replay_is_in_every_step_and_its_loss_is_recorded(base, tmp_path):
    own = source(tmp_path, "own", 48)
    replayed = source(tmp_path, "earlier", 40, share=0.25)
    train(base, [phase("one", own, replayed)], tmp_path / "t")
    for line in lines(tmp_path / "t" / "metrics.jsonl"):
        assert line["sources"]["earlier"]["samples"] == 4
        assert line["sources"]["earlier"]["loss"] > 0
        assert line["sources"]["own"]["samples"] == 12


def test_long_rows_are_left_out_counted_and_told(base, tmp_path, caplog):
    own = source(tmp_path, "own", 20, extra="long " * 60)
    with caplog.at_level(logging.WARNING):
        train(base, [phase("one", own)], tmp_path / "t")
    assert "1 of 21 rows of own are left out" in caplog.text
    (line,) = lines(tmp_path / "t" / "selections.jsonl")
    assert line["num_dropped"] == {"own": 1}


def test_a_phase_without_rows_is_an_error(base, tmp_path):
    own = source(tmp_path, "own", 0, extra="long " * 60)
    with pytest.raises(TrainingError, match="no rows"):
        train(base, [phase("one", own)], tmp_path / "t")


def test_no_room_is_told_before_training(base, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(DiskError, match="MB"):
        train(base, [phase("one", source(tmp_path, "own", 20))], tmp_path / "t")
    assert not list((tmp_path / "t").glob("*"))


@pytest.mark.slow
def test_a_run_killed_three_times_ends_with_the_same_bytes(tmp_path):
    def run(folder: str, kill_at: int) -> Forked:
        return Forked(killed_training.main, tmp_path / folder, kill_at)

    run("whole", 0).succeed()
    for kill_at in (4, 5, 7):
        dead = run("killed", kill_at)
        assert dead.wait() == -signal.SIGKILL, dead.said()
    run("killed", 0).succeed()
    results = []
    for folder in ("whole", "killed"):
        trained = tmp_path / folder / "trained"
        chosen = lines(trained / "selections.jsonl")
        weights = [(trained / c["path"] / "model.safetensors").read_bytes() for c in chosen]
        steps = [(line["phase"], line["step"]) for line in lines(trained / "metrics.jsonl")]
        results.append(([c["digest"] for c in chosen], weights, steps))
    assert results[0] == results[1]


@pytest.mark.slow
def test_early_signs_are_of_the_first_tenth_of_a_phase(base, tmp_path):
    here = tmp_path / "t"
    train(base, [phase("one", source(tmp_path, "first", 200), batch_samples=20)], here)
    (selection,) = lines(here / "selections.jsonl")
    first = lines(here / "metrics.jsonl")[:2]
    assert selection["early"] == {
        "num_steps": 2,
        "loss": pytest.approx(sum(line["loss"] for line in first) / 2),
        "grad_norm": pytest.approx(sum(line["grad_norm"] for line in first) / 2),
    }


@pytest.mark.slow
def test_two_processes_train_a_phase_as_one(base, tmp_path):
    phases = [phase("one", source(tmp_path, "first", 40))]
    chosen = [
        train(base, phases, tmp_path / name, num_processes=num)[0]
        for name, num in (("alone", 1), ("two", 2))
    ]
    assert (chosen[0].phase, chosen[0].step) == (chosen[1].phase, chosen[1].step)
    alone, two = (load_file(Path(c.path) / "model.safetensors") for c in chosen)
    for name, weight in alone.items():
        assert (two[name] - weight).norm() / weight.norm() < 1e-5
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == [
        "1-one", "candidates.jsonl", "metrics.jsonl", "selections.jsonl",
    ]  # fmt: skip


@pytest.mark.slow
def test_phases_train_low_rank_weights_and_hand_on_plain_models(base, tmp_path):
    pytest.importorskip("peft", reason="the extra feldspar[lora] is not installed")
    own = source(tmp_path, "first", 40)
    student = STUDENT.model_copy(update={"lora": LoraConfig(rank=4)})
    first, second = train(
        base, [phase("one", own), phase("two", own)], tmp_path / "t", student=student
    )
    weights = [load_file(f"{c.path}/model.safetensors") for c in (base, first, second)]
    assert not any("lora" in name for name in weights[2])
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(weights[0][name], weights[1][name])
    assert not torch.equal(weights[1][name], weights[2][name])
    norm = "model.norm.weight"
    assert torch.equal(weights[0][norm], weights[2][norm])


@pytest.mark.slow
def test_another_trainer_trains_the_same_phases_from_the_schedule(base, tmp_path):
    """To the same losses and weights, with the package choosing and going on as it does."""
    own, other = source(tmp_path, "first", 40), source(tmp_path, "second", 40)
    phases = [phase("one", own), phase("two", other, source(tmp_path, "earlier", 40, share=0.25))]
    ours = train(base, phases, tmp_path / "ours")
    trainer = PlainTrainer()
    theirs = train(base, phases, tmp_path / "theirs", trainer=trainer)
    assert trainer.forgotten == [tmp_path / "theirs"] * 2
    assert [(c.phase, c.step) for c in theirs] == [(c.phase, c.step) for c in ours]
    for line, expected in zip(
        lines(tmp_path / "theirs" / "metrics.jsonl"),
        lines(tmp_path / "ours" / "metrics.jsonl"),
        strict=True,
    ):
        assert (line["phase"], line["step"]) == (expected["phase"], expected["step"])
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert line["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)
    for mine, yours in zip(ours, theirs, strict=True):
        weights, found = (load_file(f"{c.path}/model.safetensors") for c in (mine, yours))
        for name, tensor in weights.items():
            assert (found[name] - tensor).norm() <= 1e-3 * tensor.norm()
