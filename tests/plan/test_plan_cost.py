"""The plan counts steps as the paper does, and says what looks wrong."""

import json
from pathlib import Path

import pytest
from tiny_run import RECIPE, feldspar, write_recipe

from feldspar.config import (
    ArchitectureConfig,
    PhaseConfig,
    PlanConfig,
    PreferConfig,
    Recipe,
    StudentConfig,
    TaxonomyConfig,
    TeacherConfig,
    TrainConfig,
)
from feldspar.plan import Given, Machine, Rate, make_plan, named_machine
from feldspar.plan.cost import training_flops
from feldspar.records import Estimate, MemoryEstimate

PAPER_ROWS = {"knowledge-short": 630_000, "knowledge-long": 230_000, "skills": 550_000}
MISTRAL = ArchitectureConfig(
    hidden_size=4096,
    num_layers=32,
    intermediate_size=14336,
    vocabulary=32000,
    num_heads=32,
    num_kv_heads=8,
)
SOME = StudentConfig(base="b"), TaxonomyConfig(path="t")


def paper(plan: PlanConfig | None = None, **settings: object) -> Recipe:
    phases = tuple(PhaseConfig(name=name, num_epochs=4) for name in PAPER_ROWS)
    train = TrainConfig(phase=phases, batch_samples=3840, **settings)
    student, taxonomy = SOME
    return Recipe(student=student, taxonomy=taxonomy, train=train, plan=plan or PlanConfig())


def given(*estimates: Estimate, free_bytes: int = 10**12, **more: object) -> Given:
    known = {"machine": Machine(gpu=None), "row_tokens": 0, **more}
    return Given(estimates=estimates, rows_per_epoch=PAPER_ROWS, free_bytes=free_bytes, **known)


def test_the_papers_phases_come_to_the_papers_steps() -> None:
    plan = make_plan(paper(), given())
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
    plan = make_plan(paper(warmup_steps=800, warmup=warmup), given())
    assert [warning.split()[1] for warning in plan.warnings] == named
    assert "ends at step 660, inside the warm-up of 800 steps" in plan.warnings[0]


def test_too_small_a_disk_is_warned_of() -> None:
    estimate = Estimate(step="samples", disk_bytes=2_000_000_000)
    plan = make_plan(paper(), given(estimate, free_bytes=1_000_000_000))
    assert plan.disk_bytes == 2_000_000_000
    assert "needs 2.0 GB of disk and 1.0 GB are free" in plan.warnings[0]


@pytest.mark.parametrize(("known_by", "timed"), [("stated", 1e6), ("8 calls in 2.0 s", 2e6)])
def test_judging_is_paid_at_the_judges_prices_and_is_timed_where_it_was(
    known_by: str, timed: float
) -> None:
    """A stated rate is the teacher's own; a probe asks teacher and judge."""
    recipe = paper().model_copy(
        update={
            "teacher": TeacherConfig(prompt_price=1.0, completion_price=2.0),
            "judge": TeacherConfig(completion_price=10.0),
        }
    )
    asked = [
        Estimate("samples", "skill-answer", calls=5, prompt_tokens=10**6, completion_tokens=10**6),
        Estimate("samples", "judge-answer", calls=5, prompt_tokens=10**6, completion_tokens=10**6),
    ]
    rate = Rate(tokens_per_second=1000, known_by=known_by)
    plan = make_plan(recipe, given(*asked, rate=rate))
    assert [call.cost for call in plan.calls] == [3.0, 10.0]
    assert plan.cost == 13.0
    assert plan.teacher_hours == pytest.approx(timed / 1000 / 3600)


def test_hours_are_the_papers_flops_over_what_the_machine_reaches() -> None:
    machine = named_machine("h100x8")
    plan = make_plan(
        paper(PlanConfig(mfu=0.5, price_per_gpu_hour=2.0)),
        given(machine=machine, sizes=MISTRAL, row_tokens=500),
    )
    num_tokens = 4 * sum(PAPER_ROWS.values()) * 500
    # Six for each parameter and token, and a few in a hundred more for attention.
    least = 6 * 7.11e9 * num_tokens
    assert least < training_flops(MISTRAL, num_tokens, 500) < 1.03 * least
    assert plan.training_hours is not None
    seconds = least / (0.5 * 989e12 * 8)
    assert seconds < plan.training_hours * 3600 < 1.03 * seconds
    assert plan.cost == pytest.approx(2.0 * 8 * plan.training_hours)


def way(gibibytes: int, *options: str) -> MemoryEstimate:
    return MemoryEstimate(options, gibibytes * 2**30, 0, 0, 0)


def test_what_does_not_fit_is_told_with_the_nearest_that_does() -> None:
    ways = [way(100), way(90, "recompute"), way(70, "bf16 states"), way(20, "LoRA rank 16")]
    fits = make_plan(paper(), given(machine=named_machine("h200"), memory=ways))
    assert fits.warnings == ()
    [told] = make_plan(paper(), given(machine=named_machine("h100"), memory=ways)).warnings
    assert told == (
        "training needs 100 GiB a GPU, and 74 GiB are available; the nearest that fits: bf16 states"
    )
    [told] = make_plan(paper(), given(machine=named_machine("l4"), memory=ways[:3])).warnings
    assert "nothing here fits" in told


def test_a_reward_pair_that_does_not_fit_is_told() -> None:
    plan = PlanConfig(reward_parameters=46.7e9)
    recipe = paper(plan).model_copy(update={"prefer": PreferConfig(aligned="a", base="b")})
    [told] = make_plan(recipe, given(machine=named_machine("h100"))).warnings
    assert "takes 87 GiB in bf16" in told
    assert make_plan(recipe, given(machine=named_machine("h200"))).warnings == ()


@pytest.mark.slow
def test_the_command_plans_a_run_without_making_its_models(tmp_path: Path) -> None:
    write_recipe(tmp_path, RECIPE)
    cache = tmp_path / "cache"
    done = feldspar("plan", "recipe.toml", "--json", cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [p["name"] for p in told["phases"]] == ["knowledge-short", "knowledge-long", "skills"]
    assert all(p["num_steps"] > 0 for p in told["phases"])
    assert {"exams", "samples"} == {call["step"] for call in told["calls"]}
    [preferred] = [step for step in told["steps"] if step["step"] == "preferred"]
    assert preferred["optimizer_steps"] > 0
    assert not list(cache.glob("worlds/*/student"))
