"""Two checkpoints are compared over the items that both have answered."""

import json
from pathlib import Path

import pytest
from by_hand import do_step

from feldspar.config import Recipe
from feldspar.errors import RunError
from feldspar.evaluate.comparing import compare_scored, open_scored
from feldspar.records import Answer, Checkpoint, ExamItem
from feldspar.runs import Run, write_rows
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


def make_run(path: Path, by_checkpoint: dict[str, list[Answer]]) -> Path:
    def scores(workspace: Workspace) -> list[ExamItem]:
        (workspace.folder / "answers").mkdir()
        for name, given in by_checkpoint.items():
            write_rows(workspace.folder / "answers" / f"{name}.jsonl.zst", given)
        return [item(0)]

    with Run(path, RECIPE) as run:
        do_step(run, "own-exams", lambda: [item(n) for n in range(40)])
        do_step(run, "trained", lambda: [Checkpoint(path="p", digest="d", phase="skills", step=3)])
        do_step(run, "scores", scores)
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
