from __future__ import annotations

from pathlib import Path

import pytest
from fake_teacher import Call, FakeTeacher
from test_samples import TEACHER, seeds

from feldspar.config import BudgetConfig, GenerateConfig
from feldspar.errors import TeacherError
from feldspar.generate import calibrate, check_floor, reliability
from feldspar.records import JudgeScore, Leaf
from feldspar.teacher import Journal, open_teacher
from feldspar.teacher.budget import Budget

SUMS = Leaf(
    path="foundational_skills/sums",
    branch="foundational",
    task_description="Add two numbers.",
    seeds=seeds(*((f"What is {n} + 1?", f"{n} + 1 = {n + 1}.") for n in range(1, 9))),
)
COLOURS = Leaf(
    path="compositional_skills/colours",
    branch="compositional",
    task_description="Name a colour.",
    seeds=seeds(*((f"Which colour has thing {n}?", f"Thing {n} is red.") for n in range(8))),
)


def judge_sums(call: Call) -> str:
    """Right about sums and colours; does not know a claim too many when it reads one."""
    question, answer = call.section("Question"), call.section("Answer")
    is_sum = question.startswith("What is")
    if call.stage == "judge-question":
        fits = is_sum == ("Add" in call.section("Task"))
        return f"Verdict: {'YES' if fits else 'NO'}"
    number = question.split()[2] if is_sum else question.split()[-1].rstrip("?")
    right = f"{number} + 1 = {int(number) + 1}." if is_sum else f"Thing {number} is red."
    return f"Rating: {3 if answer.startswith(right) else 1}"


def scores_of(server: FakeTeacher, here: Path) -> list[JudgeScore]:
    with Journal(here / "journal") as journal:
        judge = open_teacher(TEACHER, server.url, journal)
        return list(calibrate([SUMS, COLOURS], GenerateConfig(), judge=judge, seed=1))


def test_a_spent_budget_is_no_fault_of_the_judge(tmp_path: Path) -> None:
    budget = Budget(BudgetConfig(max_calls=10))
    with FakeTeacher(judge_sums) as server, Journal(tmp_path / "journal") as journal:
        judge = open_teacher(TEACHER, server.url, journal, budget=budget)
        with pytest.raises(TeacherError, match=r"budget does not cover .*generate\.budget"):
            list(calibrate([SUMS, COLOURS], GenerateConfig(), judge=judge, seed=1))


def test_what_a_judge_does_not_see_stands_in_the_table(tmp_path: Path) -> None:
    with FakeTeacher(judge_sums) as server:
        scores = scores_of(server, tmp_path)
        num_calls = len(server.calls)
        assert scores_of(server, tmp_path) == scores
        assert len(server.calls) == num_calls
    shares = {(s.criterion, s.kind): s.num_accepted / s.num_pairs for s in scores}
    assert shares == {
        ("fit", "good"): 1,
        ("fit", "another leaf's question"): 0,
        ("answer", "good"): 1,
        ("answer", "another leaf's answer"): 0,
        ("answer", "truncated"): 0,
        ("answer", "unsupported claim"): 1,
        ("answer", "wrong answer"): 0,
    }
    found = {r.criterion: (r.precision, r.recall) for r in reliability(scores)}
    assert found["fit"] == (1, 1)
    assert found["answer"][0] == pytest.approx(0.8)


def test_a_judge_that_cannot_be_read_accepts_nothing(tmp_path: Path) -> None:
    with FakeTeacher(lambda call: "Hm.") as server:
        scores = scores_of(server, tmp_path)
    assert all(s.num_unreadable == s.num_pairs for s in scores)
    assert all(r.recall == r.precision == 0 for r in reliability(scores))


def test_a_judge_below_the_floor_stops_the_run_with_its_figures() -> None:
    scores = [
        JudgeScore(criterion="fit", kind="good", num_pairs=20, num_accepted=19),
        JudgeScore(criterion="fit", kind="x", num_pairs=40, num_accepted=10),
        JudgeScore(criterion="answer", kind="good", num_pairs=4, num_accepted=0),
    ]
    check_floor(scores, GenerateConfig(), "expert")
    check_floor(scores, GenerateConfig(judge_floor=0.7), "expert")
    with pytest.raises(TeacherError, match=r"expert is below .* 'fit' its precision is 0.79"):
        check_floor(scores, GenerateConfig(judge_floor=0.9), "expert")
