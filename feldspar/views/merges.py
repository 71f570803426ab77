"""The merged weights of a run, read from where its steps left them, and the curve behind each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from feldspar.runs import open_step
from feldspar.stats.merge_curve import MERGES, MeanMark, MergeSelection
from feldspar.stored import read_whole_lines
from feldspar.views.charts import Row, measured


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMerge:
    """What was chosen between two checkpoints, and the curve behind it."""

    selection: MergeSelection
    chart: Markup


def read_merges(run_path: Path) -> list[MergeSelection]:
    """The decisions behind a run's checkpoints, phase by phase, then after the last.

    Raises RunError where what says so is damaged.
    """
    found: list[MergeSelection] = []
    for name in ("trained", "merged"):
        step = open_step(run_path, name)
        digests = {checkpoint.digest for checkpoint in step or ()}
        if step is not None:
            lines = read_whole_lines(step.file(MERGES), MergeSelection)
            found += [line for line in lines if line.digest in digests]
    return found


def show_merges(run_path: Path) -> tuple[ShownMerge, ...]:
    """Each decision with its chart."""
    return tuple(
        ShownMerge(selection=found, chart=merge_chart(found)) for found in read_merges(run_path)
    )


def merge_chart(selection: MergeSelection) -> Markup:
    """Shares learned and kept by weight with 95 % intervals; the chosen weight as a line."""
    rows = [
        _row(name, point.weight, mark)
        for point in selection.curve
        for name, mark in (("learned", point.learned), ("kept", point.kept))
        if mark is not None
    ]
    return measured(
        rows,
        series=list(dict.fromkeys(str(row["series"]) for row in rows)),
        x_title="weight of what training changed",
        y_title="share right, items for choosing",
        marks=[{"x": selection.weight, "label": f"chosen: {selection.weight:g}"}],
    )


def _row(name: str, weight: float, mark: MeanMark) -> Row:
    low, high = mark.interval
    return {
        **{"x": weight, "value": mark.value, "low": low, "high": high, "series": name},
        **{"joined": True, "line": name},
        "told": f"{name} at {weight:g}: {mark.value:.2f} [{low:.2f}, {high:.2f}]",
    }
