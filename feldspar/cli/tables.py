"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from feldspar.records import Score
from feldspar.report.grid import Grid, score_grid


def score_tables(scores: Sequence[Score], left_out: Sequence[str] = ()) -> list[Table]:
    """Accuracy by exam and checkpoint; what a judge found; log-likelihood where most of an exam
    cannot be matched.

    `left_out` are checkpoints that only the report shows, beside parts of leaf exams.
    """
    shown = [
        s for s in scores if not s.leaf and s.checkpoint not in left_out and ": " not in s.exam
    ]
    num_matched = {s.exam: s.num_items for s in shown if s.metric == "accuracy"}
    num_all = {s.exam: s.num_items for s in shown if s.metric == "log-likelihood"}
    unmatched = {exam for exam, n in num_all.items() if 2 * num_matched.get(exam, 0) < n}
    tables = []
    if num_matched:
        tables.append(_table("Right answers", score_grid(shown, "accuracy")))
    if any(s.metric == "judged right" for s in shown):
        tables.append(_table("Found right by the judge", score_grid(shown, "judged right")))
    if unmatched:
        title = "Log-likelihood of reference answers, nats a token"
        rest = (s for s in shown if s.exam in unmatched)
        tables.append(_table(title, score_grid(rest, "log-likelihood")))
    return tables


def _table(title: str, grid: Grid) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("exam", no_wrap=True)
    table.add_column("items", justify="right")
    for checkpoint in grid.checkpoints:
        table.add_column(checkpoint, no_wrap=True)
    for exam in grid.exams:
        cells = [_cell(grid.cells.get((exam, c))) for c in grid.checkpoints]
        table.add_row(exam, str(grid.num_items(exam)), *cells)
    table.caption = "± is the wider half of the 95 % interval"
    return table


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    half = max(score.value - score.interval.low, score.interval.high - score.value)
    return f"{score.value:.2f} [dim]±{half:.2f}[/dim]"
