"""What the first steps of a phase foretell: a low gradient norm with a high loss is a good sign
(Pareja et al. 2024, "Unveiling the Secret Recipe").

Compare it between runs of one phase on the same data, say with another learning rate or batch.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from feldspar.stored import reading

EARLY_SHARE = 0.1
"""Of a phase's steps; never fewer than one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Early:
    """Means over a phase's first steps."""

    num_steps: int
    loss: float
    """In nats per trained token."""
    grad_norm: float
    """Before clipping."""


def early_signs(metrics_path: Path, phase: str, num_steps: int) -> Early:
    """The indicators of a phase of `num_steps`, from the metrics of its steps. Raises RunError."""
    until = max(1, math.ceil(EARLY_SHARE * num_steps))
    with reading(metrics_path):
        lines = [json.loads(text) for text in metrics_path.read_bytes().splitlines()]
        first = [line for line in lines if line["phase"] == phase and line["step"] <= until]
        if len(first) < until:
            raise ValueError(f"it has {len(first)} of the first {until} steps of {phase}")
        return Early(
            num_steps=len(first),
            loss=sum(line["loss"] for line in first) / len(first),
            grad_norm=sum(line["grad_norm"] for line in first) / len(first),
        )
