"""Which candidate goes on, told from the others in pairs."""

import logging
import math
import random

import pytest
from test_train_phases import lines, train
from tiny_base import STUDENT, FakeScore, phase, save_base, source

from feldspar.records import Message
from feldspar.student.model import load_student
from feldspar.student.scoring.log_probs import AnswerRow, answer_log_probs
from feldspar.train.held_out import HeldOut
from feldspar.train.select import PhaseCandidate, choose, kept_steps


def candidate(step: int, num_right: int, num_items: int = 100) -> PhaseCandidate:
    """The first items are right."""
    values = tuple(float(i < num_right) for i in range(num_items))
    return PhaseCandidate(key="k", step=step, digest=str(step), values=values)


def chosen(start: int, *right: int, min_items: int = 1):
    candidates = [candidate(step, num) for step, num in enumerate(right, start=1)]
    return choose(candidates, candidate(0, start), "accuracy", min_items=min_items)


def test_the_earliest_within_one_standard_error_goes_on():
    choice = chosen(10, 40, 69, 70, 69)
    assert choice.candidate.step == 2
    assert "the earliest within one standard error of the best of 4 (step 3)" in choice.reason
    assert chosen(10, 40, 60, 70, 69).candidate.step == 3  # ten pairs of a hundred are beyond it
    assert chosen(10, 70, 70, 70).candidate.step == 1


def test_pairs_tell_apart_what_means_alone_would_not():
    rng = random.Random(1)
    hard = [rng.random() for _ in range(100)]
    worse = PhaseCandidate(key="k", step=1, digest="1", values=tuple(hard))
    better = PhaseCandidate(key="k", step=2, digest="2", values=tuple(h + 0.01 for h in hard))
    start = PhaseCandidate(key="k", step=0, digest="0", values=tuple(hard))
    choice = choose([worse, better], start, "log-likelihood", min_items=1)
    assert choice.candidate is better
    first, second = choice.compared
    assert second.to_start is not None
    assert second.to_start.interval.low == pytest.approx(0.01)
    assert first.to_best is not None
    assert first.to_best.value == pytest.approx(-0.01)


def test_a_phase_that_made_the_model_worse_says_so_with_the_interval():
    choice = chosen(80, 50, 60)
    assert choice.is_worse
    assert choice.candidate.step == 2
    assert "accuracy 0.600 over 100 items, 0.800 at the start (-0.200 [-0.3" in choice.reason
    assert choice.reason.endswith("worse than the start)")
    unsure = chosen(60, 50, 61)
    assert not unsure.is_worse
    assert unsure.reason.endswith("not distinguishable from the start)")
    assert chosen(10, 60).reason.endswith("])")


def test_too_few_items_or_no_start_choose_the_last():
    assert chosen(10, 90, 20, min_items=101).candidate.step == 2
    unscored = [PhaseCandidate(key="k", step=s, digest="x") for s in (1, 2, 3)]
    choice = choose(unscored, None, "", min_items=1)
    assert choice.candidate.step == 3
    assert kept_steps(unscored, 1) == {3}


def test_what_would_be_chosen_is_kept_and_what_went_does_not_come_back():
    right = (40, 69, 70, 20, 71)
    candidates = [candidate(step, num) for step, num in enumerate(right, start=1)]
    assert kept_steps(candidates[:3], 1) == {2, 3}
    assert kept_steps(candidates, 1) == {3, 5}
    for number in range(1, len(right) + 1):
        so_far = candidates[:number]
        choice = choose(so_far, candidate(0, 0), "accuracy", min_items=1)
        assert choice.candidate.step in kept_steps(so_far, 1)


def test_training_warns_of_a_phase_that_did_harm(tmp_path, caplog):
    base = save_base(tmp_path / "base")
    score = FakeScore(lambda name, step: 0.9 if name == "base" else 0.3)
    with caplog.at_level(logging.WARNING):
        train(base, [phase("one", source(tmp_path, "own", 40))], tmp_path / "t", score=score)
    assert "phase one made the model worse by its own measure" in caplog.text
    (line,) = lines(tmp_path / "t" / "selections.jsonl")
    assert line["metric"] == "accuracy"
    assert line["num_items"] == 200
    value, interval, num_pairs = line["candidates"][0]["to_start"]
    assert value == pytest.approx(-0.6)
    assert interval[0] < -0.6 < interval[1] < 0
    assert num_pairs == 200
    assert f"[{interval[0]:+.3f}, {interval[1]:+.3f}]" in line["reason"]


def test_held_out_rows_are_marked_by_the_mean_of_their_trained_tokens(tmp_path):
    base = save_base(tmp_path / "base")
    own, apart = source(tmp_path, "own", 4), source(tmp_path, "apart", 3)
    held_out = HeldOut(phase("one", own, held_out=(apart,), select="log-likelihood").phase, STUDENT)
    values = held_out.values(base)
    assert list(values) == ["apart: 0", "apart: 1", "apart: 2"]
    student = load_student(base.path, STUDENT)
    asked = [(Message(role="user", content=f"number {i}"),) for i in range(3)]
    rows = [AnswerRow(messages=m, answer=str(i)) for i, m in enumerate(asked)]
    for value, scored in zip(values.values(), answer_log_probs(student, rows), strict=True):
        assert value == pytest.approx(scored.total / scored.num_tokens, rel=1e-4)


@pytest.mark.slow
def test_a_phase_may_be_chosen_by_the_likelihood_of_rows_set_apart(tmp_path):
    base = save_base(tmp_path / "base")
    own, apart = source(tmp_path, "own", 40), source(tmp_path, "apart", 30)
    asked = FakeScore(lambda name, step: 1.0)
    by_likelihood = phase("one", own, held_out=(apart,), select="log-likelihood")
    here = tmp_path / "t"
    (last,) = train(base, [by_likelihood], here, score=asked, min_selection_items=30)
    assert not asked.asked
    (line,) = lines(here / "selections.jsonl")
    assert (line["metric"], line["num_items"]) == ("log-likelihood", 30)
    assert line["start"] < line["candidates"][-1]["value"] < 0
    assert math.isclose(
        line["candidates"][0]["value"] - line["start"], line["candidates"][0]["to_start"][0]
    )
    moved = phase("one", own, select="log-likelihood", held_out=(source(tmp_path, "apart", 30),))
    assert train(base, [moved], here, score=asked, min_selection_items=30) == [last]
