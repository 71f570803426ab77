"""What a model has learned and kept by the weight of its merging: the records, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from feldspar.records import Interval
from feldspar.stats.intervals import (
    NUM_RESAMPLES,
    Difference,
    mean_interval,
    proportion_interval,
)

MERGES = "merges.jsonl"
"""Of a step that merged: one `MergeSelection` a line."""


class MeanMark(NamedTuple):
    """A mean over items, with its 95 % interval."""

    value: float
    interval: Interval
    num_items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMerge:
    """A point of the curve: a weight, beside the whole change (the largest weight)."""

    weight: float
    learned: MeanMark | None
    kept: MeanMark | None
    learned_to_whole: Difference | None = None
    """This one minus the largest weight, paired."""
    kept_to_whole: Difference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSelection:
    """The decision: one line of merges.jsonl."""

    key: str
    phase: str
    """Whose end was merged; `merged` after the last."""
    weight: float
    path: str
    """Relative to the folder of merges.jsonl; empty where the end itself was taken."""
    digest: str
    reason: str
    curve: tuple[ComparedMerge, ...]
    """From the start, weight 0, to the largest weight."""


def mark_of(values: Sequence[float]) -> MeanMark | None:
    """Of items that are right or wrong (Wilson's interval), or marked otherwise (bootstrap)."""
    if not values:
        return None
    if set(values) <= {0.0, 1.0}:
        interval = proportion_interval(round(sum(values)), len(values))
    else:
        interval = mean_interval(values, NUM_RESAMPLES, seed=0)
    return MeanMark(fmean(values), interval, len(values))
