"""The page shows what there is of a run, and nothing of what a teacher wrote is taken for HTML."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from by_hand import do_step

from feldspar.config import Recipe
from feldspar.records import (
    Answer,
    Checkpoint,
    ExamItem,
    Interval,
    Leaf,
    Sample,
    Score,
    Seed,
)
from feldspar.runs import Run, write_rows
from feldspar.steps import Workspace
from feldspar.views import write_report
from feldspar.views.changes import find_turns
from feldspar.views.grid import markdown_table, score_grid

HOSTILE = "<script>alert('x')</script><img src=http://evil.example/x.png>"
RECIPE = Recipe.model_validate(
    {"name": HOSTILE.replace("/", "|"), "taxonomy": {"path": "t"}, "student": {"base": "b"}}
)
LEAF = Leaf(
    path=f"knowledge/{HOSTILE}",
    branch="knowledge",
    task_description=HOSTILE,
    seeds=(Seed(id="s", question=HOSTILE, answer=HOSTILE),),
)
ITEM = ExamItem(id="i", exam="people", question=HOSTILE, reference=HOSTILE, accepted=("x",))


def score(checkpoint: str, value: float, **more: object) -> Score:
    settings = {"exam": "people", "metric": "accuracy", "num_items": 20} | more
    interval = Interval(value - 0.1, value + 0.1)
    return Score(checkpoint=checkpoint, value=value, interval=interval, **settings)


def samples() -> Iterator[Sample]:
    for number, reason in enumerate((None, f"judge: not faithful ({HOSTILE})")):
        yield Sample(
            id=str(number),
            leaf=LEAF.path,
            branch="knowledge",
            question=HOSTILE,
            answer=HOSTILE,
            context=HOSTILE,
            seeds=("s",),
            rejected_because=reason,
        )


def scores(workspace: Workspace) -> Iterator[Score]:
    (workspace.folder / "answers").mkdir()
    for name, is_right in (("base", False), ("skills", True)):
        said = Answer(
            item="i", exam="people", leaf="", text=HOSTILE, is_right=is_right, log_likelihood=-1.0
        )
        write_rows(workspace.folder / "answers" / f"{name}.jsonl.zst", [said])
    yield from (score("base", 0.2), score("skills", 0.9))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that has its leaves and samples."""
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    with Run(tmp_path / "hostile & co", RECIPE) as run:
        do_step(run, "leaves", as_rows, [LEAF])
        do_step(run, "samples", samples)
    return run.path


def as_rows(rows: list[Leaf]) -> Iterable[Leaf]:
    return rows


def test_hostile_text_is_shown_and_never_run(run: Path) -> None:
    finish(run)
    page = write_report(run).read_text()
    assert "<script>alert" not in page
    assert "<img" not in page
    assert page.count("&lt;script&gt;alert") >= 5
    assert "hostile &amp; co" in page


def test_an_unfinished_run_has_a_page(run: Path) -> None:
    page = write_report(run).read_text()
    assert "The run is not finished yet." in page
    assert "1 leaf; 1 sample kept of" in page
    assert "Nothing is trained yet." in page


def test_a_finished_run_shows_what_was_learned(run: Path) -> None:
    finish(run)
    page = write_report(run).read_text()
    assert "not finished" not in page
    assert '<span class="up">0.90</span>' in page
    assert "✓ learned" in page
    table = (run / "report.md").read_text()
    assert "| people | 20 | 0.20 [0.10, 0.30] | 0.90 [0.80, 1.00] |" in table


def test_the_grid_leaves_single_leaves_and_other_metrics_out() -> None:
    grid = score_grid(
        [
            score("base", 0.5),
            score("base", 0.1, leaf="knowledge/a"),
            score("base", -2.0, metric="log-likelihood"),
            score("sft", 0.6, exam="sums"),
        ]
    )
    assert (grid.exams, grid.checkpoints) == (("people", "sums"), ("base", "sft"))
    assert grid.text("people", "base") == "0.50 [0.40, 0.60]"
    assert grid.text("people", "sft") == "-"
    assert markdown_table(grid).splitlines()[-1] == "| sums | 20 | - | 0.60 [0.50, 0.70] |"


def finish(path: Path) -> None:
    with Run(path, RECIPE) as run:
        do_step(run, "own-exams", lambda: [ITEM])
        do_step(run, "trained", lambda: [Checkpoint(path="p", digest="d", phase="skills")])
        do_step(run, "scores", scores)


def test_every_phase_says_what_it_learned_and_what_it_forgot(tmp_path: Path) -> None:
    """Ten items that are taught, ten that are to be kept; the second phase forgets eight."""
    taught = [exam_item(n, "new") for n in range(10)]
    kept = [exam_item(n, "old", is_retention=True) for n in range(10)]
    right = {
        "base": {"old": 10},
        "facts": {"new": 6, "old": 9},
        "control-1": {},
        "skills": {"new": 9, "old": 1},
    }
    for name, counts in right.items():
        (tmp_path / "answers").mkdir(exist_ok=True)
        said = [
            Answer(
                item=item.id,
                exam=item.exam,
                leaf="",
                text=f"{name} says",
                is_right=int(item.question) < counts.get(item.exam, 0),
                log_likelihood=-1.0,
            )
            for item in (*taught, *kept)
        ]
        write_rows(tmp_path / "answers" / f"{name}.jsonl.zst", said)
    turns = find_turns(tmp_path / "answers", list(right), [*kept, *taught])
    counted = {
        (t.before, t.after, e.exam): (e.num_learned, e.num_forgotten, e.difference.is_beyond_noise)
        for t in turns
        for e in t.exams
    }
    assert counted == {
        ("base", "facts", "new"): (6, 0, True),
        ("base", "facts", "old"): (0, 1, False),
        ("facts", "skills", "new"): (3, 0, False),
        ("facts", "skills", "old"): (0, 8, True),
        ("base", "skills", "new"): (9, 0, True),
        ("base", "skills", "old"): (0, 9, True),
    }
    assert [e.is_retention for e in turns[0].exams] == [False, True]
    first = turns[1].changes[0]
    assert (first.exam, first.learned) == ("old", False)
    assert (first.before, first.after) == ("facts says", "skills says")
    assert sum(change.exam == "old" for change in turns[1].changes) == 4


def exam_item(number: int, exam: str, **more: bool) -> ExamItem:
    return ExamItem(
        id=f"{exam} {number}",
        exam=exam,
        question=str(number),
        reference="x",
        accepted=("x",),
        **more,
    )
