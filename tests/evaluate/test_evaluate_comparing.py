"""Two checkpoints are compared over the items that both have answered."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from by_hand import do_step

from feldspar.cli.compare import print_changes
from feldspar.config import Recipe
from feldspar.errors import RunError
from feldspar.evaluate.comparing import Scored, compare_scored, open_scored
from feldspar.evaluate.examinee import file_name
from feldspar.evaluate.scores import Comparison
from feldspar.records import Answer, Checkpoint, ExamItem, Interval, Score
from feldspar.runs import Run, write_rows
from feldspar.stats.intervals import Difference
from feldspar.steps import Workspace

RECIPE = Recipe.model_validate({"taxonomy": {"path": "t"}, "student": {"base": "b"}})


def item(number: int) -> ExamItem:
    return ExamItem(
        id=str(number), exam="sums", question=f"{number}?", reference="x", accepted=("x",)
    )


def answers(numbers: range, num_right: int) -> list[Answer]:
    return [
        Answer(item=str(n), exam="sums", leaf="", text="", is_right=n < num_right, log_likelihood=0)
        for n in numbers
    ]


def make_run(
    path: Path,
    by_checkpoint: dict[str, list[Answer]],
    served: dict[str, list[Answer]] | None = None,
) -> Path:
    """`served`: the answers of the model of `evaluate.server`."""

    def scores(workspace: Workspace, by_checkpoint: dict[str, list[Answer]]) -> Iterator[Score]:
        (workspace.folder / "answers").mkdir()
        for name, given in by_checkpoint.items():
            answers_path = workspace.folder / "answers" / f"{file_name(name)}.jsonl.zst"
            write_rows(answers_path, given)
            value = sum(bool(answer.is_right) for answer in given) / len(given)
            yield Score(
                checkpoint=name, exam="sums", metric="accuracy", value=value,
                interval=Interval(0.0, 1.0), num_items=len(given), answers_path=str(answers_path),
            )  # fmt: skip

    with Run(path, RECIPE) as run:
        do_step(run, "own-exams", lambda: [item(n) for n in range(40)])
        do_step(run, "trained", lambda: [Checkpoint(path="p", digest="d", phase="skills", step=3)])
        do_step(run, "scores", scores, by_checkpoint)
        if served is not None:
            do_step(run, "served-exams", scores, served)
    return path


def test_a_runs_result_is_set_against_its_base(tmp_path: Path) -> None:
    path = make_run(
        tmp_path / "run",
        {"base": answers(range(40), 4), "skills": answers(range(40), 34)},
    )
    [right, _] = compare_scored(open_scored(path, "base"), open_scored(path), path)
    assert right.metric == "accuracy"
    assert right.difference.value == pytest.approx(0.75)
    assert right.difference.num_pairs == 40
    assert right.difference.is_beyond_noise


def test_only_items_in_common_count(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", {"skills": answers(range(0, 30), 10)})
    other = make_run(tmp_path / "other", {"skills": answers(range(20, 40), 25)})
    [right, _] = compare_scored(open_scored(one), open_scored(other), one)
    assert right.difference.num_pairs == 10
    assert right.difference.value == pytest.approx(0.5)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", {"skills": answers(range(4), 1)})
    with pytest.raises(RunError, match="there are: skills"):
        open_scored(path, "nope")
    assert json.loads((path / "current.json").read_text())["scores"]


def test_a_served_model_is_set_against_a_run_by_right_answers_alone(tmp_path: Path) -> None:
    """Its log-likelihoods are per token of another tokenizer."""
    served = {"owner/model": answers(range(40), 24)}
    path = make_run(tmp_path / "run", {"skills": answers(range(40), 34)}, served)
    [right] = compare_scored(open_scored(path, "owner/model"), open_scored(path), path)
    assert (right.metric, right.difference.num_pairs) == ("accuracy", 40)
    assert right.difference.value == pytest.approx(0.25)
    both = compare_scored(open_scored(path, "owner/model"), open_scored(path, "owner/model"), path)
    assert [c.metric for c in both] == ["accuracy", "log-likelihood"]
    with pytest.raises(RunError, match="there are: skills, owner/model"):
        open_scored(path, "owner")


def test_each_measure_of_an_exam_has_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    def compared(metric: str, value: float, num: int) -> Comparison:
        interval = Interval(value - 0.01, value + 0.01)
        return Comparison(exam="mine", metric=metric, difference=Difference(value, interval, num))

    found = [
        compared("log-likelihood", 0.7, 230),
        compared("accuracy", 0.5, 200),
        compared("judged right", -0.1, 30),
    ]
    one = Scored(name="a", items={}, answers=(), published=(), is_served=False)
    print_changes(one, one, found)
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "mine" in line]
    assert [row[:3] for row in rows] == [
        ["mine", "200", "+0.50"],
        ["mine", "30", "-0.10"],
        ["mine", "230", "+0.70"],
    ]
