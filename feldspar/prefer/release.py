"""Which round of preference tuning is released, if any: the start is a candidate too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from feldspar.stats.intervals import (
    NUM_RESAMPLES,
    Difference,
    paired_difference,
    standard_error,
)

SFT = "sft"
"""Name of the start where it is released again after rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A model's marks, item by item."""

    measures: Mapping[str, Mapping[str, float]]
    """By what `prefer.release` names: reward by held-out prompt, MT-Bench by question."""
    kept: Mapping[str, float]
    """Of what is to be kept; empty where no exam asks for that."""


class Release(NamedTuple):
    round: int | None
    """Index of the round that is released; None: the start."""
    withheld: list[str]
    """Of each round, why it may not be released; empty where it may."""


def choose_release(start: Standing, rounds: Sequence[Standing], by: Sequence[str]) -> Release:
    """The round with the highest mean of the first measure, of those that may be released: better
    than the start by every measure named, each by more than one standard error of the paired
    differences, and not worse at what is to be kept beyond noise (docs/decisions/044)."""
    withheld = ["; ".join(_faults(start, one, by)) for one in rounds]
    able = [number for number, fault in enumerate(withheld) if not fault]
    best = max(able, key=lambda n: fmean(rounds[n].measures[by[0]].values()), default=None)
    return Release(best, withheld)


def kept_change(start: Standing, after: Standing) -> Difference | None:
    """What a model has lost or won of what is to be kept."""
    if not start.kept:
        return None
    before, now = list(start.kept.values()), [after.kept[item] for item in start.kept]
    return paired_difference(before, now, NUM_RESAMPLES, seed=0)


def _faults(start: Standing, after: Standing, by: Sequence[str]) -> Iterable[str]:
    for measure in by:
        # A judge's reply may be unreadable: its question is then in one of the two alone.
        before, now = start.measures[measure], after.measures[measure]
        gains = [now[item] - before[item] for item in before if item in now]
        gain, error = fmean(gains) if gains else 0.0, standard_error(gains)
        if not gain > error:
            yield (
                f"{measure} {gain:+.3f} to the start, which is not above its standard error "
                f"{error:.3f}"
            )
    change = kept_change(start, after)
    if change is not None and change.interval.high < 0:
        low, high = change.interval
        yield f"kept {change.value:+.3f} [{low:+.3f}, {high:+.3f}] to the start"
