"""Tables on the terminal."""

from __future__ import annotations

from rich.table import Table

from feldspar.records import Score
from feldspar.report.grid import score_grid


def score_tables(scores: list[Score]) -> list[Table]:
    """Accuracy and log-likelihood by exam and checkpoint, with 95 % intervals."""
    titles = {
        "accuracy": "Right answers (share, 95 % interval)",
        "log-likelihood": "Log-likelihood of the reference answer (nats a token, 95 % interval)",
    }
    tables = []
    for metric, title in titles.items():
        grid = score_grid(scores, metric)
        if not grid.exams:
            continue
        table = Table(title=title, title_justify="left", title_style="bold")
        table.add_column("exam")
        table.add_column("items", justify="right")
        for checkpoint in grid.checkpoints:
            table.add_column(checkpoint, no_wrap=False)
        for exam in grid.exams:
            cells = [grid.text(exam, c) for c in grid.checkpoints]
            table.add_row(exam, str(grid.num_items(exam)), *cells)
        tables.append(table)
    return tables
