"""The plan counts steps as the paper does, and says what looks wrong."""

import json
from pathlib import Path

import pytest
from tiny_run import RECIPE, feldspar, write_recipe

from feldspar.config import PhaseConfig, TrainConfig
from feldspar.plan import make_plan
from feldspar.records import Estimate

PAPER_ROWS = {"knowledge-short": 630_000, "knowledge-long": 230_000, "skills": 550_000}


def paper(**settings: object) -> TrainConfig:
    phases = tuple(PhaseConfig(name=name, num_epochs=4) for name in PAPER_ROWS)
    return TrainConfig(phase=phases, batch_samples=3840, **settings)


def test_the_papers_phases_come_to_the_papers_steps() -> None:
    plan = make_plan([], PAPER_ROWS, paper(), weight_bytes=0, free_bytes=1)
    assert [p.steps_per_epoch for p in plan.phases] == [165, 60, 144]
    assert [p.num_steps for p in plan.phases] == [660, 240, 576]
    assert plan.warnings == ()


@pytest.mark.parametrize(
    ("warmup", "named"),
    [
        ("global", ["knowledge-short"]),
        ("per-phase", ["knowledge-short", "knowledge-long", "skills"]),
    ],
)
def test_a_phase_inside_the_warm_up_is_warned_of(warmup: str, named: list[str]) -> None:
    config = paper(warmup_steps=800, warmup=warmup)
    plan = make_plan([], PAPER_ROWS, config, weight_bytes=0, free_bytes=1)
    assert [warning.split()[1] for warning in plan.warnings] == named
    assert "ends at step 660, inside the warm-up of 800 steps" in plan.warnings[0]


def test_too_small_a_disk_is_warned_of() -> None:
    estimate = Estimate(step="samples", disk_bytes=2_000_000_000)
    plan = make_plan([estimate], PAPER_ROWS, paper(), weight_bytes=0, free_bytes=1_000_000_000)
    assert plan.disk_bytes == 2_000_000_000
    assert "needs 2.0 GB of disk and 1.0 GB are free" in plan.warnings[0]


def test_the_command_plans_a_run_without_making_its_models(tmp_path: Path) -> None:
    write_recipe(tmp_path, RECIPE)
    cache = tmp_path / "cache"
    done = feldspar("plan", "recipe.toml", "--json", cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [p["name"] for p in told["phases"]] == ["knowledge-short", "knowledge-long", "skills"]
    assert all(p["num_steps"] > 0 for p in told["phases"])
    assert any(step["calls"] > 0 for step in told["steps"])
    assert not list(cache.glob("worlds/*/student"))
