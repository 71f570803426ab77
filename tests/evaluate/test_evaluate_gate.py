"""Bounds against the lower ends of intervals, and what a card says."""

import json
from pathlib import Path

import pytest
from by_hand import do_step
from tiny_run import feldspar

from feldspar.config import GateConfig, Recipe
from feldspar.errors import RunError
from feldspar.evaluate.gate import check_gate, markdown_card
from feldspar.records import Answer, Checkpoint, ExamItem, Interval, Score
from feldspar.runs import Run, write_rows
from feldspar.steps import Workspace

RECIPE = Recipe.model_validate({"taxonomy": {"path": "t"}, "student": {"base": "b"}})
LEAVES = ("k/moons", "k/suns")


def taught(number: int) -> ExamItem:
    leaf = LEAVES[number % 2]
    return ExamItem(
        id=f"new {number}", exam=f"leaf:{leaf}", leaf=leaf, branch="knowledge", question="Who?",
        reference="x", accepted=("x",), origin="generated",
    )  # fmt: skip


def old(number: int) -> ExamItem:
    return ExamItem(
        id=f"old {number}", exam="old", question=f"Old | <b>{number}</b>?", reference="x",
        accepted=("x",), is_retention=True,
    )  # fmt: skip


def answers(num_new: int, num_old: int) -> list[Answer]:
    """Of 40 items each, how many are right."""
    return [
        Answer(
            item=item.id, exam=item.exam, leaf=item.leaf, text=f"said {n < num_right}",
            is_right=n < num_right, log_likelihood=0,
        )
        for of_kind, num_right in ((taught, num_new), (old, num_old))
        for n, item in ((n, of_kind(n)) for n in range(40))
    ]  # fmt: skip


def make_run(path: Path, before: list[Answer], after: list[Answer]) -> Path:
    def scores(workspace: Workspace):
        (workspace.folder / "answers").mkdir()
        for name, given in (("base", before), ("skills", after)):
            answers_path = workspace.folder / "answers" / f"{name}.jsonl.zst"
            write_rows(answers_path, given)
            yield Score(
                checkpoint=name, exam="old", metric="accuracy", value=0.5,
                interval=Interval(0, 1), num_items=40, answers_path=str(answers_path),
            )  # fmt: skip

    with Run(path, RECIPE) as run:
        do_step(run, "own-exams", lambda: [old(n) for n in range(40)])
        do_step(run, "leaf-exams", lambda: [taught(n) for n in range(40)])
        do_step(run, "trained", lambda: [Checkpoint(path="p", digest="d", phase="skills", step=3)])
        do_step(run, "scores", scores)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """New 2 to 38 of 40 (19 of each leaf's 20), old 36 to 34."""
    folder = tmp_path_factory.mktemp("gate")
    return make_run(folder / "runs" / "mine", answers(2, 36), answers(38, 34))


def test_the_lower_ends_are_what_counts(run):
    bounds = GateConfig(learned=0.83, gain=0.65, kept=0.8, loss=0.2, leaf=0.7)
    report = check_gate(run, bounds)
    assert report.passes
    found = {check.name: check for check in report.checks}
    assert list(found) == ["learned", "gain", "kept", "loss", "leaf k/moons", "leaf k/suns"]
    assert found["learned"].value == pytest.approx(0.95)
    assert found["learned"].interval.low == pytest.approx(0.835, abs=0.001)  # Wilson, 38 of 40
    assert found["gain"].value == pytest.approx(0.9)
    assert found["kept"].num_items == 36
    assert found["kept"].value == pytest.approx(34 / 36)
    assert found["loss"].value == pytest.approx(-0.05)
    assert found["loss"].wanted == -0.2
    assert found["leaf k/suns"].num_items == 20
    # The share is above the bound, the lower end of its interval is not.
    assert not check_gate(run, GateConfig(learned=0.9)).passes
    assert not check_gate(run, GateConfig(loss=0.05)).passes
    assert not check_gate(run, GateConfig(leaf=0.9)).passes


def test_the_card_has_the_verdict_and_what_was_forgotten(run):
    report = check_gate(run, GateConfig(learned=0.9, kept=0.5))
    card = markdown_card(report)
    assert "mine\\@skills does not pass its gate" in card
    first, second = [line for line in card.splitlines() if " | 0." in line]
    assert first.startswith("| learned | 0.9 | 0.950 [0.835, 0.986] | 40 | **below** |")
    assert second.endswith("| ok |")
    assert "Right before and wrong now: 2 items" in card
    # Nothing that a model or a user wrote is markup.
    assert "| Old \\| \\<b\\>34\\</b\\>? | said True | said False |" in card


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (GateConfig(), "its recipe has no bounds; add a \\[gate\\] table"),
        (GateConfig(kept=0.9), "gate.kept has nothing to go by: add an"),
    ],
)
def test_what_cannot_be_held_to_is_told(tmp_path, bounds, message):
    path = make_run(tmp_path / "run", answers(2, 0), answers(38, 0))
    with pytest.raises(RunError, match=message):
        check_gate(path, bounds)


@pytest.mark.slow
def test_the_exit_code_is_its_own_and_json_says_why(run):
    here = run.parents[1]
    good = feldspar("gate", "mine", "--set", "gate.kept=0.8", "--json", cwd=here)
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["passes"]
    bad = feldspar("gate", "mine", "--set", "gate.learned=0.99", "--json", cwd=here)
    assert bad.returncode == 8
    told = json.loads(bad.stdout)
    assert [check["passes"] for check in told["checks"]] == [False]
    assert "does not pass" in (here / told["card"]).read_text()
