"""Phases with `[train.kl]`: what the base says is found once, whoever trains next."""

import json
from pathlib import Path

import pytest
from tiny_base import CONFIG, STUDENT, FakeScore, phase, save_base, source

from feldspar.config import KlConfig, Recipe
from feldspar.steps import Workspace
from feldspar.train.kept_to_base import BASE_REPLAY
from feldspar.train.phases import train_phases


def train(base, planned, here: Path, config):
    phases, trainings = zip(*planned, strict=True)
    return list(
        train_phases(
            Workspace(folder=here), base, phases, trainings, config, student=STUDENT,
            scores={"exams": FakeScore(lambda name, step: 0.5)}, min_selection_items=100, seed=1,
        )
    )  # fmt: skip


@pytest.mark.slow
def test_what_the_base_says_is_computed_once_and_holds_the_student(tmp_path):
    base = save_base(tmp_path / "base")
    replayed = source(tmp_path, BASE_REPLAY, 30, share=0.4)
    planned = [
        phase("one", source(tmp_path, "a", 30), replayed, learning_rate=2e-2),
        phase("two", source(tmp_path, "b", 30), replayed, learning_rate=2e-2),
        phase("three", source(tmp_path, "c", 30)),
    ]
    kls = []
    for beta in (1e-6, 5.0):
        here = tmp_path / f"beta {beta}"
        config = CONFIG.model_copy(update={"kl": KlConfig(beta=beta, top_k=8)})
        train(base, planned, here, config)
        assert len(list(here.glob("base-top-k/*"))) == 1
        lines = [json.loads(line) for line in (here / "metrics.jsonl").read_text().splitlines()]
        assert [("kl" in line) for line in lines] == [line["phase"] != "three" for line in lines]
        assert lines[0]["kl"] == pytest.approx(0, abs=1e-4)
        kls.append([line["kl"] for line in lines if line["phase"] == "two"][-1])
    assert kls[1] < 0.7 * kls[0]


def test_without_base_replay_it_is_an_error_of_the_recipe():
    tree = {"taxonomy": {"path": "t"}, "student": {"base": "b"}, "train": {"kl": {}}}
    with pytest.raises(
        ValueError, match=r"train\.kl holds the student .* add \[mix\.base_replay\]"
    ):
        Recipe.model_validate(tree)
