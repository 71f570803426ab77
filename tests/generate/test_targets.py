from __future__ import annotations

import time
from pathlib import Path

import pytest
from fake_teacher import Call, FakeTeacher, answer_as_expert
from test_samples import LEAVES, SUMS, TEACHER

from feldspar.config import BudgetConfig, GenerateConfig
from feldspar.generate import Funnel, estimate, expected_samples, generate_samples, read_funnel
from feldspar.generate.requests import counted_requests, sample_requests
from feldspar.records import Sample
from feldspar.steps import Workspace
from feldspar.teacher import Budget, Journal, open_teacher


def generate(
    server: FakeTeacher, here: Path, config: GenerateConfig, journal: str = "journal"
) -> list[Sample]:
    prices = TEACHER.model_copy(update={"prompt_price": 1.0, "completion_price": 10.0})
    with Journal(here / journal) as opened:
        budget = Budget(config.budget)
        teacher = open_teacher(prices, server.url, opened, budget=budget)
        return list(
            generate_samples(
                Workspace(folder=here),
                LEAVES,
                config,
                teacher=teacher,
                judge=teacher,
                avoid=[],
                seed=1,
            )
        )


def judged_one_third(call: Call) -> str:
    """The expert, who thinks little of two thirds of all answers."""
    if call.stage == "judge-answer":
        return f"Rating: {3 if call.rng.random() < 0.33 else 1}"
    return answer_as_expert(call)


def funnel(here: Path) -> Funnel:
    return read_funnel(here / "funnel.json")


@pytest.mark.slow
def test_a_leaf_is_asked_until_its_target_is_reached(tmp_path: Path) -> None:
    config = GenerateConfig(target=12)
    with FakeTeacher(judged_one_third) as server:
        samples = generate(server, tmp_path, config)
        num_calls = len(server.calls)
        assert generate(server, tmp_path, config) == samples
        assert len(server.calls) == num_calls
    sums, _, town = funnel(tmp_path).leaves
    assert (sums.kept, sums.note) == (12, "")
    assert sums.asked > 24
    # Four passages with two facts each do not hold twelve different pairs.
    assert town.kept < 12
    assert town.note.startswith(f"{town.kept} of 12 wanted: yield")
    assert sum(s.is_kept for s in samples if s.leaf == SUMS.path) == 12


def test_targets_do_not_depend_on_latency(tmp_path: Path) -> None:
    config = GenerateConfig(target=6)
    with (
        FakeTeacher(judged_one_third) as quick,
        FakeTeacher(judged_one_third, seconds=lambda call: call.rng.uniform(0, 0.04)) as slow,
    ):
        assert generate(quick, tmp_path, config, "a") == generate(slow, tmp_path, config, "b")


@pytest.mark.parametrize(
    "caps", [{"max_calls": 160}, {"max_tokens": 3000}, {"max_cost": 0.01}], ids=str
)
def test_a_cap_is_never_passed_and_what_is_kept_is_kept(
    tmp_path: Path, caps: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    budget = BudgetConfig.model_validate(caps)
    config = GenerateConfig(samples_per_leaf=60, max_tokens=64, budget=budget)
    with FakeTeacher() as server:
        first = generate(server, tmp_path, config)
        num_paid = server.num_served
    spent = funnel(tmp_path).spent
    assert spent.calls <= num_paid <= caps.get("max_calls", 1000)
    assert spent.tokens <= caps.get("max_tokens", 1e9)
    assert spent.cost <= caps.get("max_cost", 1e9)
    assert any(sample.is_kept for sample in first)
    assert any(str(sample.rejected_because).startswith("budget: spent") for sample in first)
    assert "raise it and run again" in caplog.text
    assert any("budget is spent" in leaf.note for leaf in funnel(tmp_path).leaves)


def test_a_budget_that_is_not_reached_changes_nothing(tmp_path: Path) -> None:
    with FakeTeacher() as server:
        free = generate(server, tmp_path, GenerateConfig(samples_per_seed=4))
        capped = GenerateConfig(samples_per_seed=4, budget=BudgetConfig(max_calls=10_000))
        assert generate(server, tmp_path, capped, "b") == free
    assert 0 < funnel(tmp_path).spent.calls == server.num_served / 2


def test_a_million_samples_are_counted_in_no_time() -> None:
    """Calls that cost the same are counted together, to the same sums as one after the other."""
    for config in (
        GenerateConfig(samples_per_leaf=11, pairs_per_call=4),
        GenerateConfig(samples_per_seed=3),
        GenerateConfig(target=9, pairs_per_call=2),
        GenerateConfig(sampling="pooled", samples_per_seed=5),
    ):
        for leaf in LEAVES:
            one_by_one = list(sample_requests(leaf, config, 1))
            counted = list(counted_requests(leaf, config, 1))
            for count in {request.count for request in one_by_one}:
                same = [times for request, times in counted if request.count == count]
                assert sum(same) == sum(r.count == count for r in one_by_one)
    started = time.process_time()
    (cost, *_) = estimate([SUMS], GenerateConfig(samples_per_leaf=10**6))
    assert sum(expected_samples([SUMS], GenerateConfig(samples_per_leaf=10**6)).values()) == 10**6
    assert cost.calls > 0
    assert time.process_time() - started < 1
