"""Bounds against the lower ends of intervals, and what a card says."""

import json
from pathlib import Path

import pytest
from by_hand import do_step, find_again
from tiny_run import feldspar

from feldspar.config import GateConfig, Recipe
from feldspar.errors import RunError
from feldspar.evaluate.benchmarks.scores import BenchmarkItem
from feldspar.evaluate.gate import check_gate, markdown_card
from feldspar.evaluate.general.questions import EXAM
from feldspar.evaluate.general.scores import KEPT
from feldspar.frontier.arms import Arm
from feldspar.frontier.figures import measure_arm
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


def general(rights: dict[str, list[bool]]):
    """A step: by checkpoint, which of the questions are answered right in both wordings."""

    def scores(workspace: Workspace):
        for checkpoint, right in rights.items():
            known = [n for n, is_right in enumerate(rights["base"]) if is_right]
            for exam, numbers in ((EXAM, range(len(right))), (KEPT, known)):
                path = workspace.folder / f"{checkpoint}-{len(numbers)}.jsonl.zst"
                items = [
                    BenchmarkItem(
                        id=f"g{n}", task="capitals", question=f"Capital {n}?", reference="x",
                        said=f"{checkpoint} said", value=float(right[n]),
                    )
                    for n in numbers
                ]  # fmt: skip
                write_rows(path, items)
                yield Score(
                    checkpoint=checkpoint, exam=exam, metric="accuracy", value=0.5,
                    interval=Interval(0, 1), num_items=len(items), answers_path=str(path),
                )  # fmt: skip

    return scores


def test_general_knowledge_is_to_be_kept(tmp_path: Path):
    """40 general questions: 10 right in the base, of which 7 are still, and 2 that were wrong."""
    base = [n < 10 for n in range(40)]
    after = [n < 7 or n in (20, 21) for n in range(40)]
    path = make_run(tmp_path / "runs" / "mine", answers(2, 36), answers(38, 34))
    with Run(path, RECIPE) as run:
        find_again(run)
        do_step(run, "general", general({"base": base, "skills": after}))
    report = check_gate(path, GateConfig(kept=0.5, loss=0.2))
    kept, loss = report.checks
    assert (kept.num_items, kept.value) == (36 + 10, pytest.approx((34 + 7) / 46))
    assert (loss.num_items, loss.value) == (40 + 40, pytest.approx((-2 - 3 + 2) / 80))
    assert report.num_forgotten == 2 + 3
    assert ("general knowledge", "Capital 7?", "base said", "skills said") in report.forgotten
    # The front counts what the base has right, beside the items of `retention` exams.
    arm = measure_arm(Arm(name="a", settings=()), [path], ["leaf exams"])
    assert len(arm.kept) == 40 + 10
    assert sum(arm.kept.values()) == 34 + 7
    assert sum(arm.exams[KEPT].values()) == 7


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
