"""Figures as SVG text. matplotlib is imported only when there is something to draw."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any


def loss_figure(metrics: Sequence[dict[str, Any]]) -> str:
    """Training loss (nats a supervised token) and gradient norm by step, phases side by side."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=(9, 4.2), sharex=True)
    try:
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
        for axes in (top, bottom):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        drawn = io.StringIO()
        figure.tight_layout()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    finally:
        pyplot.close(figure)
    text = drawn.getvalue()
    return text[text.index("<svg") :]
