"""Which rows each optimizer step sees, as a function of (seed, phase, epoch): nothing to carry on.

Step k needs no history, so a killed run goes on from (phase, step), two words. Loads no torch.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from feldspar.errors import TrainingError
from feldspar.student.counter_rng import permutation

Indices = NDArray[np.int64]

_MIN_MICRO_TOKENS = 1024
_MAX_PADDING = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRows:
    """How many rows a source has, and how many of them an epoch draws.

    Neither `fraction` nor `share`: the phase's own rows, each once per epoch.
    """

    name: str
    num_rows: int
    fraction: float | None = None
    """Part of the source's rows, drawn anew each epoch without replacement."""
    share: float | None = None
    """Part of the phase's rows. The draw runs on through whole permutations across epochs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The steps of one phase. Rows are numbered through the sources in their order."""

    sources: tuple[SourceRows, ...]
    batch_samples: int
    num_epochs: int
    phase: str
    seed: int

    @property
    def drawn(self) -> tuple[int, ...]:
        """Rows drawn from each source in one epoch."""
        return draws(self.sources)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(sum(self.drawn) / self.batch_samples)

    @property
    def num_steps(self) -> int:
        return self.steps_per_epoch * self.num_epochs

    def rows_of(self, place: int, epoch: int) -> Indices:
        """Rows of the source at `place`, numbered within it, that an epoch draws; a row may come
        more than once where a share asks for more than there are."""
        return _drawn_rows(self.sources[place], self.drawn[place], self, epoch)

    def step(self, number: int) -> Indices:
        """Rows of optimizer step `number`, counted from 0. An epoch's last batch may be partial."""
        assert 0 <= number < self.num_steps, number
        epoch, within = divmod(number, self.steps_per_epoch)
        order = _epoch_order(self, epoch)
        return order[within * self.batch_samples : (within + 1) * self.batch_samples]


def draws(sources: Sequence[SourceRows]) -> tuple[int, ...]:
    """Rows that one epoch draws from each source. Raises TrainingError for shares of 1 or more."""
    total_share = sum(s.share or 0.0 for s in sources)
    if total_share >= 1:
        raise TrainingError(
            f"replay shares add up to {total_share:.2f}; leave room for the phase's own rows"
        )
    num_fixed = {
        s.name: s.num_rows if s.fraction is None else round(s.fraction * s.num_rows)
        for s in sources
        if s.share is None
    }
    total = sum(num_fixed.values()) / (1 - total_share)
    return tuple(
        num_fixed[s.name] if s.share is None else (round(s.share * total) if s.num_rows else 0)
        for s in sources
    )


@lru_cache(maxsize=2)
def _epoch_order(schedule: Schedule, epoch: int) -> Indices:
    """All rows of an epoch, each source spread evenly, so that any stretch holds its share."""
    rows, places = [], []
    start = 0
    for source, num_drawn in zip(schedule.sources, schedule.drawn, strict=True):
        rows.append(start + _drawn_rows(source, num_drawn, schedule, epoch))
        places.append((np.arange(num_drawn) + 0.5) / max(num_drawn, 1))
        start += source.num_rows
    order = np.argsort(np.concatenate(places), kind="stable")
    return np.concatenate(rows)[order]


def _drawn_rows(source: SourceRows, num_drawn: int, schedule: Schedule, epoch: int) -> Indices:
    key = (schedule.seed, schedule.phase, source.name)
    if source.share is None:
        return permutation(source.num_rows, *key, epoch)[:num_drawn]
    parts = []
    at, end = epoch * num_drawn, (epoch + 1) * num_drawn
    while at < end:
        lap, within = divmod(at, source.num_rows)
        taken = min(end - at, source.num_rows - within)
        parts.append(permutation(source.num_rows, *key, lap)[within : within + taken])
        at += taken
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def checkpoint_steps(steps_per_epoch: int, num_epochs: int, per_epoch: int) -> tuple[int, ...]:
    """Steps done when a checkpoint is due, evenly in each epoch, each epoch's end among them."""
    within = {math.ceil(steps_per_epoch * (i + 1) / per_epoch) for i in range(per_epoch)}
    return tuple(
        epoch * steps_per_epoch + step for epoch in range(num_epochs) for step in sorted(within)
    )


def micro_batches(rows: Indices, lengths: Indices, token_budget: int) -> list[Indices]:
    """Cut a step's rows into groups of like length.

    A group holds at most `token_budget` padded tokens (one longer row stands alone), and beyond
    1024 tokens takes no row that would be padded by more than a fifth. Longest first.
    """
    order = np.argsort(-lengths, kind="stable")
    rows, falling = rows[order], -lengths[order]
    groups = []
    start = 0
    while start < len(rows):
        longest = max(1, -int(falling[start]))
        most = max(1, token_budget // longest)
        alike = int(np.searchsorted(falling, -longest * (1 - _MAX_PADDING), side="right")) - start
        taken = min(most, max(alike, math.ceil(_MIN_MICRO_TOKENS / longest)))
        groups.append(rows[start : start + taken])
        start += taken
    return groups


def share_out(
    rows: Indices, lengths: Indices, num_ranks: int, square_length: float
) -> list[Indices]:
    """A step's rows for each rank, so that all take about as long: the costliest first, each to
    whoever has least (LPT; Graham 1969). A row of L tokens costs L + L^2 / `square_length`.

    A function of its arguments: which row is where needs no history.
    """
    costs = lengths + lengths.astype(np.float64) ** 2 / square_length
    loads = [(0.0, rank) for rank in range(num_ranks)]
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    for place in np.argsort(-costs, kind="stable").tolist():
        load, rank = loads[0]
        shares[rank].append(place)
        heapq.heapreplace(loads, (load + float(costs[place]), rank))
    return [rows[sorted(share)] for share in shares]
