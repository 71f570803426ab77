"""Scored items that the training data holds are found, listed, and left out of a second score."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from by_hand import do_step

from feldspar.config import Recipe
from feldspar.errors import RunError
from feldspar.evaluate.benchmarks.scores import BenchmarkItem
from feldspar.evaluate.comparing import compare_scored, open_scored
from feldspar.evaluate.contamination import find_touched, scores_without
from feldspar.evaluate.examinee import file_name
from feldspar.records import (
    Answer,
    Checkpoint,
    Conversation,
    ExamItem,
    Interval,
    Message,
    Phase,
    Score,
    Source,
    Touched,
)
from feldspar.runs import Rows, Run, write_rows
from feldspar.steps import Workspace
from feldspar.views import write_report

RECIPE = Recipe.model_validate({"taxonomy": {"path": "t"}, "student": {"base": "b"}})
LONG = (
    "A baker in the old town sells forty loaves each morning and half as many every afternoon; "
    "how many loaves does the baker sell on a day?"
)
SHORT = "What colour is the old lighthouse at the end of Arden harbour?"


def row(number: int, asked: str, answer: str = "None of this matters.") -> Conversation:
    messages = (Message(role="user", content=asked), Message(role="assistant", content=answer))
    return Conversation(id=str(number), source="skills", messages=messages)


def phase(folder: Path, rows: list[Conversation]) -> Phase:
    path = folder / "rows.jsonl.zst"
    write_rows(path, rows)
    source = Source(name="skills", path=str(path), digest="d", num_samples=len(rows))
    return Phase(name="skills", sources=(source,))


def item(number: int, question: str) -> ExamItem:
    return ExamItem(id=str(number), exam="mine", question=question, reference="x", accepted=("x",))


def touched_by(folder: Path, rows: list[Conversation], question: str) -> list[Touched]:
    return list(find_touched([phase(folder, rows)], [item(1, question)]))


@pytest.mark.parametrize(
    ("text", "how"),
    [
        (f"Before. {LONG.split(';')[0]} and more words than that.", "13 words in a row"),
        (LONG.replace("how many", "say how many"), "13 words in a row"),
    ],
)
def test_thirteen_words_in_a_row_touch_an_item(tmp_path: Path, text: str, how: str) -> None:
    for rows in ([row(1, "Hi."), row(2, text)], [row(2, "Hi.", answer=text)]):
        (one,) = touched_by(tmp_path, rows, LONG)
        assert (one.item, one.exam, one.how, one.row) == ("1", "mine", how, "2")
        assert one.source == "skills"


def test_a_short_question_is_touched_whole_or_by_its_double(tmp_path: Path) -> None:
    assert touched_by(tmp_path, [row(1, f"Tell me. {SHORT}")], SHORT)[0].how == "all its words"
    near = SHORT.replace("What colour is", "Which colour is")
    assert touched_by(tmp_path, [row(1, near)], SHORT)[0].how.startswith("ROUGE-L 0.")


def test_other_numbers_and_other_questions_touch_nothing(tmp_path: Path) -> None:
    rows = [
        row(1, "What colour is the old lighthouse at the end of Velm harbour?"),
        row(2, "What is 7 + 3?"),
    ]
    assert touched_by(tmp_path, rows, SHORT) == []
    assert touched_by(tmp_path, rows, "What is 7 + 4?") == []


def items(right: set[int]) -> list[BenchmarkItem]:
    return [
        BenchmarkItem(
            id=f"q {n}", task="quiz", question=LONG if n == 0 else f"Question {n} of the quiz?",
            reference="r", said="s", value=float(n in right),
        )
        for n in range(10)
    ]  # fmt: skip


def answers(right: set[int]) -> list[Answer]:
    return [
        Answer(item=str(n), exam="mine", leaf="", text="", is_right=n in right, log_likelihood=-1)
        for n in range(4)
    ]


def score(name: str, exam: str, value: float, path: Path) -> Score:
    return Score(
        checkpoint=name, exam=exam, metric="acc" if exam == "winogrande" else "accuracy",
        value=value, interval=Interval(value - 0.1, value + 0.1), num_items=10, settings="5-shot",
        answers_path=str(path),
    )  # fmt: skip


def scores(workspace: Workspace) -> Iterator[Score]:
    (workspace.folder / "answers").mkdir()
    for name, right in (("base", {1}), ("skills", {1, 2, 3})):
        path = workspace.folder / "answers" / f"{name}.jsonl.zst"
        write_rows(path, answers(right))
        yield score(name, "mine", len(right) / 4, path)


def benchmarks(workspace: Workspace) -> Iterator[Score]:
    rights = {"base": {0, 1}, "skills": set(range(8)), "other/served-1.5": {0}}
    for name, right in rights.items():
        path = workspace.folder / f"{file_name(name)}.jsonl.zst"
        write_rows(path, items(right))
        found = score(name, "winogrande", len(right) / 10, path)
        is_served = name.startswith("other")
        yield replace(found, settings="5-shot; served, completions") if is_served else found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    exams = [item(n, SHORT if n == 1 else f"Who is number {n}?") for n in range(4)]
    with Run(tmp_path / "run", RECIPE) as run:
        own = do_step(run, "own-exams", lambda: exams)
        do_step(run, "trained", lambda: [Checkpoint(path="p", digest="d", phase="skills", step=3)])
        scored: Rows[Score] = do_step(run, "scores", scores)
        published: Rows[Score] = do_step(run, "benchmarks", benchmarks)
        phases = [phase(tmp_path, [row(1, LONG), row(2, SHORT)])]
        touched = do_step(run, "touched", find_touched, phases, own, published)
        do_step(
            run,
            "untouched",
            scores_without,
            touched,
            exams,
            scored,
            [published],
            num_resamples=50,
            seed=1,
        )
    return run.path


def test_scores_are_also_given_without_what_was_touched(run: Path) -> None:
    from feldspar.runs import open_step

    touched, without = open_step(run, "touched"), open_step(run, "untouched")
    assert touched is not None
    assert without is not None
    assert {(t.exam, t.item) for t in touched} == {("mine", "1"), ("winogrande", "q 0")}
    values = {(s.checkpoint, s.exam): s for s in without if s.metric != "log-likelihood"}
    assert values["base", "mine: untouched"].value == 0
    assert values["skills", "mine: untouched"].value == pytest.approx(2 / 3)
    assert values["base", "winogrande: untouched"].value == pytest.approx(1 / 9)
    assert values["skills", "winogrande: untouched"].num_items == 9


@pytest.mark.slow
def test_the_report_lists_them_and_sets_the_run_beside_published_models(run: Path) -> None:
    page = write_report(run).read_text()
    assert "2 items share 13 words in a row" in page
    assert "winogrande: untouched" in page
    assert "Merlinite-7b-pt" in page
    assert "80.0±" in page
    assert "this run, Winogrande: 5-shot (10 items)" in page
    assert "the best of five runs; their mean is 7.85" in page


def test_benchmarks_are_compared_item_by_item(run: Path) -> None:
    found = compare_scored(open_scored(run, "base"), open_scored(run), run)
    by_exam = {c.exam: c for c in found if c.metric != "log-likelihood"}
    assert by_exam["winogrande"].difference.value == pytest.approx(0.6)
    assert by_exam["winogrande"].difference.num_pairs == 10
    assert by_exam["winogrande"].difference.is_beyond_noise


def test_a_served_model_is_compared_by_its_name_over_the_benchmarks(run: Path) -> None:
    [found] = compare_scored(open_scored(run, "other/served-1.5"), open_scored(run), run)
    assert found.exam == "winogrande"
    assert found.difference.value == pytest.approx(0.7)
    with pytest.raises(RunError, match=r"there are: base, skills, other/served-1\.5"):
        open_scored(run, "other")


def test_leaves_without_a_touched_item_stay_in_the_figure_of_all(tmp_path: Path) -> None:
    """Ten of a leaf are right, ten of another wrong, one of which training saw: 10 of 19."""
    asked = [
        replace(item(n, f"Who is number {n}?"), exam=f"leaf:{leaf}", leaf=leaf, branch="knowledge",
                origin="generated")
        for leaf, numbers in (("a", range(10)), ("b", range(10, 20))) for n in numbers
    ]  # fmt: skip
    path = tmp_path / "answers.jsonl.zst"
    said = [
        Answer(item=i.id, exam=i.exam, leaf=i.leaf, text="", is_right=i.leaf == "a",
               log_likelihood=None)
        for i in asked
    ]  # fmt: skip
    write_rows(path, said)
    touched = [
        Touched(item="12", exam="leaf:b", question="q", how="all its words", source="s", row="1")
    ]
    found = scores_without(
        touched, asked, [score("skills", "leaf exams", 0.5, path)], [], num_resamples=50, seed=1
    )
    values = {s.exam: (round(s.value * s.num_items), s.num_items) for s in found}
    assert values["leaf exams: untouched"] == (10, 19)
    assert all(number == 19 for _, number in values.values())
