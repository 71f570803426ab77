"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich import box
from rich.table import Table

from feldspar.cli.terminal import escaped
from feldspar.records import AGREEMENT, FLIPS, JUDGE_ERRORS, KL, PERPLEXITY, UNTOUCHED, Score
from feldspar.stats.merge_curve import MeanMark, MergeSelection
from feldspar.views.grid import Grid, score_grid

OF_EXAMS = ("accuracy", "log-likelihood", "judged right")


def score_tables(scores: Sequence[Score], left_out: Sequence[str] = ()) -> list[Table]:
    """Accuracy by exam and checkpoint; what a judge found; log-likelihood where most of an exam
    cannot be matched; the published benchmarks; and where a judge said nothing of use.

    `left_out` are checkpoints that only the report shows, beside parts of exams and benchmarks.
    """
    shown = [s for s in scores if not s.leaf and s.checkpoint not in left_out and _is_whole(s)]
    num_matched = {s.exam: s.num_items for s in shown if s.metric == "accuracy"}
    num_all = {s.exam: s.num_items for s in shown if s.metric == "log-likelihood"}
    unmatched = {exam for exam, n in num_all.items() if 2 * num_matched.get(exam, 0) < n}
    grids = {
        "Right answers": score_grid(shown, "accuracy"),
        "General answers that changed": score_grid(shown, FLIPS),
        "Found right by the judge": score_grid(shown, "judged right"),
        "Log-likelihood of reference answers, nats a token": score_grid(
            (s for s in shown if s.exam in unmatched), "log-likelihood"
        ),
        "Distance from the base": _named(shown, (PERPLEXITY, KL)),
        "Published benchmarks": _published(shown),
        "Judge errors, which count for nothing": _errors(shown),
    }
    return [_table(title, grid) for title, grid in grids.items() if grid.exams]


def merge_table(selection: MergeSelection) -> Table:
    """What was learned and kept by weight, on the items that choose; the chosen one is bold."""
    title = f"Merged weights of {selection.phase}"
    table = Table(
        title=escaped(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
    )
    for name in ("weight", "learned", "kept", "kept, to the largest"):
        table.add_column(name, no_wrap=True)
    for point in selection.curve:
        change = "-"
        if (d := point.kept_to_whole) is not None and point.weight:
            change = f"{d.value:+.2f} [{d.interval.low:+.2f}, {d.interval.high:+.2f}]"
        cells = (f"{point.weight:g}", _mark(point.learned), _mark(point.kept), change)
        table.add_row(*cells, style="bold" if point.weight == selection.weight else None)
    table.caption = "items that choose, none of which is reported; bold: chosen"
    return table


def _mark(mark: MeanMark | None) -> str:
    if mark is None:
        return "-"
    half = max(mark.value - mark.interval.low, mark.interval.high - mark.value)
    return f"{mark.value:.2f} [dim]±{half:.2f}[/dim]"


def _is_whole(score: Score) -> bool:
    """Exams without what training saw of them are the report's."""
    is_published = score.metric not in OF_EXAMS
    return ": " not in (score.exam.removesuffix(UNTOUCHED) if is_published else score.exam)


def _published(shown: Sequence[Score]) -> Grid:
    """Benchmarks and MT-Bench, each by its own metric."""
    others = (*OF_EXAMS, JUDGE_ERRORS, FLIPS, AGREEMENT, PERPLEXITY, KL)
    return _named(shown, [s.metric for s in shown if s.metric not in others])


def _named(shown: Sequence[Score], metrics: Sequence[str]) -> Grid:
    """Scores of several metrics, which stand behind their exams."""
    found = [s for s in shown if s.metric in metrics]
    return score_grid(
        (replace(s, exam=f"{s.exam}, {s.metric}", metric="named") for s in found), "named"
    )


def _errors(shown: Sequence[Score]) -> Grid:
    found = [s for s in shown if s.metric == JUDGE_ERRORS]
    with_errors = {s.exam for s in found if s.value > 0}
    return score_grid((s for s in found if s.exam in with_errors), JUDGE_ERRORS)


def _table(title: str, grid: Grid) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("exam", no_wrap=True)
    table.add_column("items", justify="right")
    for checkpoint in grid.checkpoints:
        table.add_column(escaped(checkpoint), no_wrap=True)
    for exam in grid.exams:
        cells = [_cell(grid.cells.get((exam, c))) for c in grid.checkpoints]
        table.add_row(escaped(exam), str(grid.num_items(exam)), *cells)
    table.caption = "± is the wider half of the 95 % interval"
    return table


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    half = max(score.value - score.interval.low, score.interval.high - score.value)
    return f"{score.value:.2f} [dim]±{half:.2f}[/dim]"
