"""What benchmarks and MT-Bench will cost, against what they then ask."""

import json

import pytest
from pydantic import ValidationError

from feldspar.config import (
    BenchmarkConfig,
    EvaluateConfig,
    MTBenchConfig,
    Recipe,
    StudentConfig,
    TaxonomyConfig,
    TeacherConfig,
)
from feldspar.evaluate import estimate as estimating
from feldspar.evaluate.estimate import num_items
from feldspar.evaluate.general.questions import general_items, halves
from feldspar.plan import Given, Machine, Rate, make_plan


def estimate(config, *counts):
    """Without the general-knowledge exam, which every recipe has that does not leave it out."""
    return [one for one in estimating.estimate(config, *counts) if one.step != "general"]


def write_bench(folder):
    """FastChat's layout, with three questions of two turns."""
    (folder / "reference_answer").mkdir(parents=True)
    lines = {
        "question.jsonl": [
            {"question_id": n, "category": "writing", "turns": ["What is it?", "And then?"]}
            for n in (81, 82, 83)
        ],
        "reference_answer/gpt-4.jsonl": [],
        "judge_prompts.jsonl": [
            {"name": "single-v1", "system_prompt": "s" * 40, "prompt_template": "p" * 360},
            {"name": "pair-v2", "system_prompt": "s" * 40, "prompt_template": "p" * 360},
        ],
    }
    for name, rows in lines.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name).write_text(text, encoding="utf-8")
    return str(folder)


def calls(**settings):
    (found,) = estimate(EvaluateConfig(mt_bench=MTBenchConfig(**settings)))
    assert found.stage.startswith("judge")
    return found.calls


def test_judge_calls_are_those_that_are_made(tmp_path):
    assert calls() == 2 * 160
    data = write_bench(tmp_path / "bench")
    assert calls(data=data) == 2 * 6
    assert calls(data=data, num_runs=5) == 2 * 6 * 5
    # The base's answers are what the result's are set against, in both orders.
    assert calls(data=data, mode="pairwise") == 6 * 2
    assert calls(data=data, mode="pairwise", baseline="b.jsonl") == 2 * 6 * 2


def test_a_judgment_is_shown_the_prompt_the_question_and_the_answers(tmp_path):
    data = write_bench(tmp_path / "bench")
    (found,) = estimate(EvaluateConfig(mt_bench=MTBenchConfig(data=data, max_new_tokens=100)))
    assert found.prompt_tokens == found.calls * (100 + 3 + 150)


def test_the_bill_takes_mt_benchs_own_judge(tmp_path):
    own = TeacherConfig(endpoint="http://localhost:1/v1", prompt_price=10.0, completion_price=30.0)
    config = EvaluateConfig(mt_bench=MTBenchConfig(judge=own))
    recipe = Recipe(
        student=StudentConfig(base="b"), taxonomy=TaxonomyConfig(path="t"), evaluate=config
    )
    estimates = estimate(config)
    names = [phase.name for phase in recipe.train.phase]
    given = Given(
        estimates=estimates,
        rows_per_epoch=dict.fromkeys(names, 10),
        row_tokens=0,
        free_bytes=10**12,
        machine=Machine(gpu=None),
    )
    (call,) = make_plan(recipe, given).calls
    assert call.is_judge
    assert call.cost == (10 * call.prompt_tokens + 30 * call.completion_tokens) / 1e6


def test_items_are_the_hubs_the_files_or_the_limits(tmp_path):
    assert num_items(BenchmarkConfig(task="mmlu")) == 14_042
    assert num_items(BenchmarkConfig(task="mmlu", limit=10)) == 570
    assert num_items(BenchmarkConfig(task="blimp")) is None
    (tmp_path / "test.jsonl").write_text("{}\n{}\n\n{}\n")
    (tmp_path / "validation.jsonl").write_text("{}\n")
    config = BenchmarkConfig(task="gsm8k", data=str(tmp_path))
    assert num_items(config) == 3
    assert num_items(config.model_copy(update={"split": "validation"})) == 1
    (found,) = estimate(EvaluateConfig(benchmark=(config,)))
    assert (found.calls, found.note) == (0, "gsm8k: 3 items, 2 times")


def test_a_served_models_answers_are_priced_as_its_own_calls(tmp_path):
    data = write_bench(tmp_path / "bench")
    served = TeacherConfig(endpoint="http://localhost:1/v1", completion_price=5.0)
    for mode, judgments in (("single", 3 * 6 * 2), ("pairwise", 2 * 6 * 2 * 2)):
        config = EvaluateConfig(
            mt_bench=MTBenchConfig(data=data, num_runs=2, mode=mode, max_new_tokens=10),
            server=served,
        )
        judged, answered = estimate(config)
        assert (judged.calls, answered.calls) == (judgments, 6 * 2)
    assert answered.completion_tokens == 12 * 10
    elsewhere = (BenchmarkConfig(task="gsm8k"),)
    asked = {"benchmark": elsewhere, "server_tasks": ("gsm8k",)}
    items, judged = estimate(config.model_copy(update=asked))
    assert (items.note, judged.calls) == ("gsm8k: 1,319 items, 3 times", 6 * 2 * 2)
    with pytest.raises(ValidationError, match="'mmlu'; there are: exams, gsm8k"):
        EvaluateConfig(benchmark=elsewhere, server_tasks=("mmlu",))
    recipe = Recipe(
        student=StudentConfig(base="b"), taxonomy=TaxonomyConfig(path="t"), evaluate=config
    )
    given = Given(
        estimates=[answered],
        rows_per_epoch=dict.fromkeys((phase.name for phase in recipe.train.phase), 10),
        row_tokens=0,
        free_bytes=10**12,
        machine=Machine(gpu=None),
    )
    (call,) = make_plan(recipe, given).calls
    assert (call.is_judge, call.cost) == (False, 5 * 120 / 1e6)


def test_judged_exams_are_asked_of_every_checkpoint():
    assert estimate(EvaluateConfig(), 10, 4) == []
    (found,) = estimate(EvaluateConfig(long_answers="judge"), 10, 4)
    assert (found.step, found.stage, found.calls) == ("judged", "judge-exam", 40)


def test_a_served_models_exams_are_calls_of_its_own_and_are_judged_too():
    served = TeacherConfig(endpoint="http://localhost:1/v1")
    asked, judged = estimate(EvaluateConfig(server=served, long_answers="judge"), 10, 4)
    assert (asked.step, asked.calls, asked.completion_tokens) == ("served-exams", 10, 10 * 64)
    assert judged.calls == 10 * 5
    other = EvaluateConfig(
        server=served, benchmark=(BenchmarkConfig(task="gsm8k"),), server_tasks=("gsm8k",)
    )
    assert [one.step for one in estimate(other, 10, 4)] == ["benchmarks"]


def test_the_general_exam_is_counted_in_tokens_and_minutes():
    off = EvaluateConfig(general={"enabled": False})
    assert [one for one in estimating.estimate(off) if one.step == "general"] == []
    (one,) = estimating.estimate(EvaluateConfig(general={"max_new_tokens": 10}))
    num_items = len(halves(general_items())["report"])
    # Both wordings on base and result, and once what the base says by itself.
    assert one.completion_tokens == 10 * 5 * num_items
    assert f"{num_items} general questions" in one.note
    given = Given(
        estimates=[one], rows_per_epoch={}, row_tokens=0, free_bytes=1, machine=Machine(gpu=None),
        training_rate=Rate(tokens_per_second=1000, known_by="stated"),
    )  # fmt: skip
    recipe = Recipe(
        taxonomy=TaxonomyConfig(path="t"), student=StudentConfig(base="b"), train={"phase": []}
    )
    (timed,) = make_plan(recipe, given).estimates
    seconds = (one.prompt_tokens / 3 + one.completion_tokens) / 1000
    assert f"about {seconds / 60:.1f} minutes" in timed.note


def test_a_served_models_general_answers_are_its_own_calls():
    served = TeacherConfig(endpoint="http://localhost:1/v1")
    found = estimating.estimate(EvaluateConfig(server=served))
    assert [(one.stage, one.calls) for one in found if one.calls] == [
        ("general-answer", 2 * len(halves(general_items())["report"]))
    ]
