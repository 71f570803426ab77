import math
from pathlib import Path
from statistics import fmean

import pytest

from feldspar.evaluate.benchmarks.scores import BenchmarkItem, TaskResult, benchmark_scores
from feldspar.evaluate.scores import LEAF_EXAMS, compare, scores_of
from feldspar.records import Answer, ExamItem
from feldspar.stats.intervals import proportion_interval


def item(number, exam="mine", leaf="", origin="file", branch=None, match="final"):
    return ExamItem(
        id=f"{exam}-{number}", exam=exam, question="?", reference="x", accepted=("x",),
        match=match, leaf=leaf, origin=origin, branch=branch,
    )  # fmt: skip


def answer(of, is_right, log_likelihood=-1.0):
    return Answer(
        item=of.id, exam=of.exam, leaf=of.leaf, text="", is_right=is_right,
        log_likelihood=log_likelihood,
    )  # fmt: skip


def scores(items, answers):
    found = scores_of("base", items, answers, num_resamples=200, seed=1)
    return {(s.exam, s.leaf, s.metric): s for s in found}


def test_an_exam_has_its_accuracy_and_its_log_likelihood():
    items = [item(n) for n in range(4)]
    answers = [answer(i, n < 3, -float(n)) for n, i in enumerate(items)]
    found = scores(items, answers)
    accuracy, likelihood = found["mine", "", "accuracy"], found["mine", "", "log-likelihood"]
    assert (accuracy.value, accuracy.num_items) == (0.75, 4)
    assert accuracy.interval == proportion_interval(3, 4)
    assert likelihood.value == -1.5
    assert -3 <= likelihood.interval.low < -1.5 < likelihood.interval.high <= 0


def test_items_that_cannot_be_matched_count_for_likelihood_alone():
    items = [item(0), item(1, match="likelihood")]
    found = scores(items, [answer(items[0], True), answer(items[1], None, -3.0)])
    assert found["mine", "", "accuracy"].num_items == 1
    assert found["mine", "", "log-likelihood"].value == -2.0


def test_leaf_exams_are_one_and_also_told_by_leaf_branch_and_origin():
    items = [
        item(0, "k/a", "k/a", "held-out", "knowledge"),
        item(1, "k/a", "k/a", "generated", "knowledge"),
        item(2, "f/b", "f/b", "generated", "foundational"),
        item(3, "mine"),
    ]
    found = scores(items, [answer(i, n % 2 == 0) for n, i in enumerate(items)])
    counts = {key[:2]: s.num_items for key, s in found.items() if key[2] == "accuracy"}
    assert counts == {
        (LEAF_EXAMS, ""): 3,
        (f"{LEAF_EXAMS}: knowledge", ""): 2,
        (f"{LEAF_EXAMS}: foundational", ""): 1,
        (f"{LEAF_EXAMS}: held-out", ""): 1,
        (f"{LEAF_EXAMS}: generated", ""): 2,
        ("mine", ""): 1,
        ("k/a", "k/a"): 2,
        ("f/b", "f/b"): 1,
    }


def test_a_paired_gain_is_told_from_noise():
    items = [item(n) for n in range(40)]
    before = [answer(i, n < 10, -2 + math.sin(n)) for n, i in enumerate(items)]
    after = [answer(i, n < 30, -1.9 + math.sin(n)) for n, i in enumerate(items)]
    accuracy, likelihood = compare(items, before, after, num_resamples=500, seed=1)
    assert accuracy.difference.value == pytest.approx(0.5)
    assert accuracy.difference.is_beyond_noise
    # The items differ by far more than .1, their changes do not.
    assert likelihood.difference.value == pytest.approx(0.1)
    assert likelihood.difference.is_beyond_noise


def test_only_items_that_both_answered_are_compared():
    items = [item(n) for n in range(3)]
    found = compare(
        items, [answer(items[0], True)], [answer(i, True) for i in items], num_resamples=9, seed=1
    )
    assert [c.difference.num_pairs for c in found] == [1, 1]


def test_a_group_of_tasks_without_a_common_unit_has_no_figure_of_its_own(tmp_path: Path) -> None:
    """BLEU counts to 100, and of a share nobody asked it."""

    def task(name: str, metric: str, *values: float) -> TaskResult:
        items = tuple(
            BenchmarkItem(id=str(n), task=name, question="q", reference="r", said="s", value=value)
            for n, value in enumerate(values)
        )
        return TaskResult(
            name=name, metric=metric, value=fmean(values), stderr=0.1, items=items,
            items_path=tmp_path / name, items_name=name,
        )  # fmt: skip

    def exams(*tasks: TaskResult) -> list[str]:
        scored = benchmark_scores("base", "qa", tasks, settings="0-shot", folder=tmp_path)
        return [score.exam for score in scored]

    shares = [task("qa_one", "acc", 1, 0), task("qa_two", "acc", 1, 1)]
    assert exams(*shares) == ["qa", "qa: mean of tasks", "qa: one", "qa: two"]
    mixed = [task("qa_gen", "bleu", 31.5, 12.0), *shares]
    assert exams(*mixed) == ["qa: gen", "qa: one", "qa: two"]
    counted = [task("qa_a", "bleu", 31.5, 12.0), task("qa_b", "bleu", 20.0)]
    assert exams(*counted) == ["qa: mean of tasks", "qa: a", "qa: b"]
