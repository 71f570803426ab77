"""Exams: scores of every checkpoint, what each phase taught and what it cost by leaf groups, and
the answers that turned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from feldspar.records import Score, Touched
from feldspar.reference_scores import (
    COLUMNS,
    FOOTNOTES,
    PUBLISHED_ROWS,
    Column,
    OwnRow,
    PublishedRow,
    own_rows,
    own_settings,
)
from feldspar.stats.intervals import FEWEST_TO_TELL
from feldspar.views.changes import (
    MAX_CHANGES_PER_EXAM,
    Change,
    CheckpointChanges,
    ExamChange,
    exam_of_leaf_group,
    find_turns,
)
from feldspar.views.charts import Row, intervals
from feldspar.views.grid import Grid, score_grid
from feldspar.views.links import num_pages
from feldspar.views.run_files import RunFiles

EXAM_METRICS = ("accuracy", "log-likelihood")
MAX_TOUCHED = 100
TURNED_PER_PAGE = 50
TITLES = {
    "accuracy": "Exams",
    "log-likelihood": "Log-likelihood of reference answers",
    "judged right": "Long answers that the judge found right",
    "judge errors": "Judge errors",
}
MEANINGS = {
    "accuracy": "Share of right answers to exam questions that were never trained on.",
    "log-likelihood": "Mean over reference answers, in nats a token: higher is better.",
    "judged right": "Of the answers too long to match that the judge gave a verdict on, the share "
    "that it found right.",
    "judge errors": "Share of the judge's replies that are neither yes nor no: these answers count "
    "for nothing above.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRow:
    """A group of exam items through the steps of the run."""

    exam: str
    is_retention: bool
    cells: tuple[ExamChange | None, ...]
    """One a step, as `ExamsView.matrix_steps` names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamsView:
    grids: tuple[Grid, ...]
    matrix_steps: tuple[str, ...]
    """`base to skills`; the last is over all of them where there are several."""
    matrix: tuple[MatrixRow, ...]
    turns: tuple[CheckpointChanges, ...]
    changed: Markup | None
    """What was learned and what was lost over all, by group."""
    own_rows: tuple[OwnRow, ...]
    own_settings: tuple[str, ...]
    parts: tuple[Grid, ...]
    """General knowledge by kind and the published benchmarks in parts."""
    touched: tuple[Touched, ...]
    num_touched: int
    columns: tuple[Column, ...] = COLUMNS
    published_rows: tuple[PublishedRow, ...] = PUBLISHED_ROWS
    footnotes: tuple[str, ...] = FOOTNOTES


def exams_of(run: RunFiles) -> ExamsView:
    """Of a run that may not be scored yet."""
    published = _rows(run, "benchmarks", "mt-bench")
    untouched = _rows(run, "untouched")
    in_parts = [s for s in _rows(run, "general") if not _is_whole(s)]
    others = (s for s in untouched if s.metric not in EXAM_METRICS)
    of_published = [*in_parts, *published, *others]
    turns = _turns(run)
    return ExamsView(
        grids=tuple(exam_grids(run)),
        matrix_steps=tuple(f"{t.before} to {t.after}" for t in turns),
        matrix=tuple(_matrix(turns)),
        turns=turns,
        changed=_changed_chart(turns[-1]) if turns else None,
        own_rows=tuple(own_rows(published)),
        own_settings=tuple(own_settings(published)),
        parts=tuple(
            score_grid(of_published, metric)
            for metric in dict.fromkeys(s.metric for s in of_published)
        ),
        touched=run.touched[:MAX_TOUCHED],
        num_touched=len(run.touched),
    )


def exam_grids(run: RunFiles) -> list[Grid]:
    """The tables of exams: measured, then judged."""
    of_exams = [s for s in _rows(run, "untouched") if s.metric in EXAM_METRICS]
    general = [s for s in _rows(run, "general") if _is_whole(s)]
    scores = [*run.scores, *_rows(run, "served-exams"), *_rows(run, "retrieval")]
    scores += [*general, *of_exams]
    judged = _rows(run, "judged")
    grids = [score_grid(scores, metric) for metric in EXAM_METRICS]
    grids += [score_grid(judged, metric) for metric in dict.fromkeys(s.metric for s in judged)]
    return [grid for grid in grids if grid.exams]


def direction(grid: Grid, exam: str, checkpoint: str) -> str:
    """`up` or `down` where the interval does not meet the first checkpoint's, else nothing; one of
    too few items says nothing."""
    first = grid.cells.get((exam, grid.checkpoints[0]))
    score = grid.cells.get((exam, checkpoint))
    if first is None or score is None or score.num_items < FEWEST_TO_TELL:
        return ""
    if score.interval.low > first.interval.high:
        return "up"
    return "down" if score.interval.high < first.interval.low else ""


def _is_whole(score: Score) -> bool:
    """Whether a score of general knowledge is one of the exam's own figures, and no part of it."""
    return score.metric in EXAM_METRICS and ": " not in score.exam


def _rows(run: RunFiles, *steps: str) -> list[Score]:
    return [score for step in steps for score in run.steps.get(step, ())]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnedPage:
    """Some of all the answers that turned from one checkpoint to another."""

    before: str
    after: str
    changes: tuple[Change, ...]
    num_found: int
    exams: tuple[str, ...]
    exam: str
    way: str
    """`learned`, `forgotten`, or both where it is empty."""
    page: int

    @property
    def num_pages(self) -> int:
        return num_pages(self.num_found, TURNED_PER_PAGE)


def turned_of(
    run: RunFiles, step: tuple[str, str], exam: str = "", way: str = "", page: int = 1
) -> TurnedPage | None:
    """None where the run has no such two checkpoints."""
    turn = next((t for t in _turns(run, None) if (t.before, t.after) == step), None)
    if turn is None:
        return None
    found = [
        change
        for change in turn.changes
        if (not exam or change.exam == exam) and (not way or change.learned == (way == "learned"))
    ]
    page = min(page, num_pages(len(found), TURNED_PER_PAGE))
    start = (page - 1) * TURNED_PER_PAGE
    return TurnedPage(
        before=turn.before,
        after=turn.after,
        changes=tuple(found[start : start + TURNED_PER_PAGE]),
        num_found=len(found),
        exams=tuple(sorted({change.exam for change in turn.changes})),
        exam=exam,
        way=way,
        page=page,
    )


def _turns(
    run: RunFiles, max_per_exam: int | None = MAX_CHANGES_PER_EXAM
) -> tuple[CheckpointChanges, ...]:
    if run.answers_path is None:
        return ()
    named = list(dict.fromkeys(s.checkpoint for s in run.scores))
    return find_turns(
        run.answers_path, named, run.items, exam_of_leaf_group, max_per_exam=max_per_exam
    )


def _matrix(turns: Sequence[CheckpointChanges]) -> list[MatrixRow]:
    found = {(e.exam, e.is_retention): None for turn in turns for e in turn.exams}
    rows = []
    for exam, is_retention in found:
        cells = []
        for turn in turns:
            of_turn = {(e.exam, e.is_retention): e for e in turn.exams}
            cells.append(of_turn.get((exam, is_retention)))
        rows.append(MatrixRow(exam=exam, is_retention=is_retention, cells=tuple(cells)))
    return sorted(rows, key=lambda row: row.is_retention)


def _changed_chart(turn: CheckpointChanges) -> Markup | None:
    rows: list[Row] = [
        {
            "name": e.exam,
            "series": "to be kept" if e.is_retention else "taught",
            "value": e.difference.value,
            "low": e.difference.interval.low,
            "high": e.difference.interval.high,
            "told": f"{e.exam}: {e.difference.value:+.2f} [{e.difference.interval.low:+.2f}, "
            f"{e.difference.interval.high:+.2f}], {e.difference.num_pairs} items",
        }
        for e in turn.exams
    ]
    if not rows:
        return None
    title = f"share right, {turn.after} minus {turn.before}"
    series = list(dict.fromkeys(str(row["series"]) for row in rows))
    return intervals(rows, series=series, title=title, bounds=None)
