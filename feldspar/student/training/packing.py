"""Rows of one micro-batch end to end, with the boundaries that attention must not cross.

Shapes: T tokens, N trained tokens, S rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Inputs without padding, and which of their positions predict which trained token."""

    ids_T: Indices
    """Without each row's last token: nothing is predicted from it."""
    places_T: Indices
    """Position of each token in its own row."""
    lengths_S: Indices
    positions_N: Indices
    targets_N: Indices
    rows_N: Indices
    """Which row each trained token is of."""


def pack(ids: Sequence[NDArray[np.int32]], masks: Sequence[NDArray[np.bool_]]) -> Packed:
    """Put rows end to end. A row's first token is never trained: nothing stands before it."""
    lengths_S = np.array([max(1, len(row) - 1) for row in ids], dtype=np.int64)
    starts_S = np.cumsum(lengths_S) - lengths_S
    trained = [np.flatnonzero(mask[1:]) for mask in masks]
    counts = [len(places) for places in trained]
    return Packed(
        ids_T=np.concatenate([row[: max(1, len(row) - 1)] for row in ids]).astype(np.int64),
        places_T=np.arange(lengths_S.sum()) - np.repeat(starts_S, lengths_S),
        lengths_S=lengths_S,
        positions_N=np.concatenate(trained) + np.repeat(starts_S, counts),
        targets_N=np.concatenate(
            [row[1:][places] for row, places in zip(ids, trained, strict=True)]
        ).astype(np.int64),
        rows_N=np.repeat(np.arange(len(ids)), counts),
    )


def packed_batches(rows: Indices, lengths: Indices, token_budget: int) -> list[Indices]:
    """Cut a step's rows into groups of at most `token_budget` tokens (one longer stands alone).

    Longest first, so that a group's rows are of like length.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    groups = []
    start, before = 0, 0
    while start < len(rows):
        end = max(start + 1, int(np.searchsorted(ends, before + token_budget, side="right")))
        groups.append(rows[order[start:end]])
        start, before = end, int(ends[end - 1])
    return groups
