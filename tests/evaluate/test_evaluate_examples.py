"""Questions to try: of what was taught and of general knowledge, and none that chose anything."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from by_hand import do_step

from feldspar.config import Recipe
from feldspar.evaluate.examples import example_questions
from feldspar.evaluate.general.questions import general_items, halves
from feldspar.records import ExamItem
from feldspar.runs import Run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    recipe = Recipe(taxonomy={"path": "t"}, student={"base": "b"})

    def exams() -> Iterator[ExamItem]:
        for number in range(6):
            yield ExamItem(
                id=f"{number}",
                exam="own",
                question=f"question {number}",
                reference="",
                use="select" if number == 5 else "report",
                is_retention=number == 4,
            )

    with Run(tmp_path / "run", recipe) as opened:
        do_step(opened, "own-exams", exams)
    return opened.path


def test_half_are_of_what_was_taught(run: Path) -> None:
    found = example_questions(run, 6)
    assert len(set(found)) == 6
    assert all(question.startswith("question ") for question in found[:3])
    general = {item.ask[0] for item in halves(general_items())["report"]}
    assert general.issuperset(found[3:])
    assert example_questions(run, 6) == found
    assert example_questions(run, 0) == []


def test_what_chose_checkpoints_is_not_among_them(run: Path) -> None:
    taught = {q for q in example_questions(run, 100) if q.startswith("question ")}
    assert taught == {f"question {number}" for number in range(4)}
    assert len(example_questions(run, 100)) == 100
