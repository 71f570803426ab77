"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from feldspar.records import Score
from feldspar.report.grid import score_grid


def score_tables(scores: Sequence[Score], left_out: Sequence[str] = ()) -> list[Table]:
    """Accuracy and log-likelihood by exam and checkpoint, with 95 % intervals.

    `left_out` are checkpoints that only the report shows.
    """
    titles = {
        "accuracy": "Right answers (share, 95 % interval)",
        "log-likelihood": "Log-likelihood of the reference answer (nats a token, 95 % interval)",
    }
    tables = []
    for metric, title in titles.items():
        grid = score_grid((s for s in scores if s.checkpoint not in left_out), metric)
        if not grid.exams:
            continue
        table = Table(title=title, title_justify="left", title_style="bold")
        table.add_column("exam")
        table.add_column("items", justify="right")
        for checkpoint in grid.checkpoints:
            table.add_column(checkpoint, no_wrap=False)
        for exam in (e for e in grid.exams if ": " not in e):
            cells = [grid.text(exam, c) for c in grid.checkpoints]
            table.add_row(exam, str(grid.num_items(exam)), *cells)
        tables.append(table)
    return tables
