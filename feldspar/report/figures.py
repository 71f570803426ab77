"""Figures as SVG text. matplotlib is imported only when there is something to draw."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from feldspar.stats.merge_curve import ComparedMerge, MeanMark


def loss_figure(metrics: Sequence[dict[str, Any]]) -> str:
    """Training loss (nats a supervised token) and gradient norm by step, phases side by side."""

    def draw(top: Any, bottom: Any) -> None:
        offset = 0
        for phase in dict.fromkeys(line["phase"] for line in metrics):
            lines = [line for line in metrics if line["phase"] == phase and "loss" in line]
            steps = [offset + line["step"] for line in lines]
            top.plot(steps, [line["loss"] for line in lines], linewidth=1.2, label=phase)
            bottom.plot(steps, [line["grad_norm"] for line in lines], linewidth=1.2)
            offset = max(steps, default=offset)
        top.set_ylabel("loss")
        top.set_yscale("log")
        top.legend(fontsize=8, frameon=False)
        bottom.set_ylabel("gradient norm")
        bottom.set_xlabel("optimizer step")

    return _svg(draw, 2, (9, 4.2))


def merge_figure(curve: Sequence[ComparedMerge], chosen: float) -> str:
    """Shares learned and kept by weight with 95 % intervals, the chosen weight as a line."""

    def draw(axes: Any) -> None:
        for name in ("learned", "kept"):
            points = [(p.weight, m) for p in curve if (m := getattr(p, name)) is not None]
            if points:
                marks = [mark for _, mark in points]
                bars = (_below(marks), _above(marks))
                axes.errorbar(
                    [weight for weight, _ in points], [m.value for m in marks], yerr=bars,
                    marker="o", markersize=4, linewidth=1.2, capsize=3, label=name,
                )  # fmt: skip
        axes.axvline(chosen, linewidth=0.8, linestyle=":", color="0.4")
        axes.set_xlabel("weight of what training changed")
        axes.set_ylabel("share right, items for choosing")
        axes.legend(fontsize=8, frameon=False)

    return _svg(draw, 1, (6, 3.4))


class FrontPoint(NamedTuple):
    """What an arm has learned and kept."""

    name: str
    learned: MeanMark
    kept: MeanMark
    is_best: bool
    """On the Pareto front."""


def front_figure(points: Sequence[FrontPoint]) -> str:
    """Kept against learned with 95 % intervals; the front is joined by a line."""

    def draw(axes: Any) -> None:
        for point in points:
            learned, kept = [point.learned], [point.kept]
            axes.errorbar(
                [point.learned.value], [point.kept.value],
                xerr=(_below(learned), _above(learned)), yerr=(_below(kept), _above(kept)),
                marker="o" if point.is_best else "x", markersize=5, linewidth=0.8, capsize=2,
                label=point.name,
            )  # fmt: skip
        front = sorted((p.learned.value, p.kept.value) for p in points if p.is_best)
        axes.plot(*zip(*front, strict=True), linewidth=0.8, linestyle=":", color="0.4")
        axes.set_xlabel("learned")
        axes.set_ylabel("kept")
        axes.legend(fontsize=7, frameon=False)

    return _svg(draw, 1, (7, 4.6))


def _below(marks: Sequence[MeanMark]) -> list[float]:
    return [max(0.0, mark.value - mark.interval.low) for mark in marks]


def _above(marks: Sequence[MeanMark]) -> list[float]:
    return [max(0.0, mark.interval.high - mark.value) for mark in marks]


def _svg(draw: Callable[..., None], num_rows: int, size: tuple[float, float]) -> str:
    """What `draw` draws on as many axes, one above the other."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, found = pyplot.subplots(num_rows, 1, figsize=size, sharex=True, squeeze=False)
    try:
        rows = [row[0] for row in found]
        draw(*rows)
        for axes in rows:
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        drawn = io.StringIO()
        figure.tight_layout()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    finally:
        pyplot.close(figure)
    text = drawn.getvalue()
    return text[text.index("<svg") :]
