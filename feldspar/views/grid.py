"""Scores as a grid: exams down, checkpoints across. Pure; page, card and terminal use it.

exam             base               skills             preferred
new knowledge    0.08 [0.05, 0.12]  0.94 [0.90, 0.97]  0.95 [0.91, 0.98]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from feldspar.records import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Whole-exam scores by (exam, checkpoint), in the order they were made."""

    metric: str
    exams: tuple[str, ...]
    checkpoints: tuple[str, ...]
    cells: dict[tuple[str, str], Score]

    def text(self, exam: str, checkpoint: str) -> str:
        """`0.94 [0.90, 0.97]`, or a dash where there is no score."""
        score = self.cells.get((exam, checkpoint))
        if score is None:
            return "-"
        return f"{score.value:.2f} [{score.interval.low:.2f}, {score.interval.high:.2f}]"

    def num_items(self, exam: str) -> int:
        return max(s.num_items for (e, _), s in self.cells.items() if e == exam)


def score_grid(scores: Iterable[Score], metric: str = "accuracy") -> Grid:
    """Lay whole-exam scores of one metric out; scores of single leaves are left out."""
    kept = [s for s in scores if s.metric == metric and not s.leaf]
    return Grid(
        metric=metric,
        exams=tuple(dict.fromkeys(s.exam for s in kept)),
        checkpoints=tuple(dict.fromkeys(s.checkpoint for s in kept)),
        cells={(s.exam, s.checkpoint): s for s in kept},
    )


def markdown_table(grid: Grid) -> str:
    """The grid as a Markdown table, with the number of items."""
    lines = [
        "| exam | items | " + " | ".join(grid.checkpoints) + " |",
        "|---|---:|" + "---|" * len(grid.checkpoints),
    ]
    for exam in grid.exams:
        cells = " | ".join(grid.text(exam, c) for c in grid.checkpoints)
        lines.append(f"| {exam} | {grid.num_items(exam)} | {cells} |")
    return "\n".join(lines) + "\n"
