"""Steps and disk before anything is trained."""

import json
import subprocess
import sys

from tiny_base import CONFIG, STUDENT, FakeScore, phase, save_base, source

from feldspar.config import MergeConfig, PhaseConfig, TrainConfig
from feldspar.steps import Workspace
from feldspar.train.estimate import estimate, estimate_merge
from feldspar.train.phases import train_phases


def planned(*names: str, **settings: object) -> TrainConfig:
    return TrainConfig(phase=tuple(PhaseConfig(name=name) for name in names), **settings)


def test_the_papers_volumes_give_the_papers_steps():
    rows = {"kt1": 630_000, "kt2": 230_000, "st": 550_000}
    steps = [estimate(rows, planned(name), 0).optimizer_steps for name in rows]
    assert steps == [165, 60, 144]


def test_steps_are_those_that_are_done(tmp_path):
    phases = [
        phase("one", source(tmp_path, "a", 37)),
        phase("two", source(tmp_path, "b", 20), source(tmp_path, "c", 30, fraction=0.5)),
    ]
    base = save_base(tmp_path / "base")
    score = FakeScore(lambda name, step: 0.5)
    for _ in train_phases(
        Workspace(folder=tmp_path / "t"),
        base,
        [planned.phase for planned in phases],
        [planned.training for planned in phases],
        CONFIG,
        student=STUDENT,
        scores={"exams": score},
        min_selection_items=1,
        seed=1,
    ):
        pass
    done = [json.loads(t) for t in (tmp_path / "t" / "metrics.jsonl").read_text().splitlines()]
    config = CONFIG.model_copy(
        update={
            "phase": tuple(
                PhaseConfig(name=p.name, num_epochs=p.num_epochs, batch_samples=p.batch_samples)
                for _, p in phases
            )
        }
    )
    assert estimate({"one": 37, "two": 20 + 15}, config, 0).optimizer_steps == len(done)


def test_disk_holds_what_is_kept_and_the_state_twice():
    found = estimate({"a": 10_000, "b": 10_000}, planned("a", "b"), 1_000_000)
    assert found.disk_bytes == (1 + 1 + 1) * 4_000_000 + 2 * 12_000_000


def test_estimating_loads_no_torch():
    code = "import sys, feldspar.train.estimate; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_merged_weights_take_one_model_more_than_are_kept():
    once = TrainConfig(merge=MergeConfig())
    each = TrainConfig(merge=MergeConfig(after="each-phase"))
    assert estimate_merge(once, 1000).disk_bytes == 2 * 4 * 1000
    assert estimate_merge(each, 1000).disk_bytes == 4 * 4 * 1000


def test_low_rank_training_keeps_the_state_of_what_it_trains():
    config = planned("a", "b")
    found = estimate({"a": 10_000, "b": 10_000}, config, 1_000_000, num_trained=1_000)
    assert found.disk_bytes == 3 * 4_000_000 + 2 * 12_000
    half = config.model_copy(update={"optimizer_states": "bfloat16"})
    assert estimate({"a": 1, "b": 1}, half, 1_000_000).disk_bytes == 3 * 4_000_000 + 2 * 8_000_000
