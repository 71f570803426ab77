"""Rows of one micro-batch end to end, with the boundaries that attention must not cross.

Chat templates begin every row alike (a system prompt, the mark of the user's turn), and a causal
model computes the same for it in every row. So what rows begin with alike can be packed once, with
all of them behind it:

    beginning | rest of row 0 | rest of row 1 | ..        instead of        row 0 | row 1 | ..

Shapes: T tokens, N trained tokens, R rows, S parts: rows, or what they share and their rests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

_LEAST_SAVED = 1 / 16
"""Of all tokens, for which a beginning is set apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Inputs without padding, and which of their positions predict which trained token."""

    ids_T: Indices
    """Without each row's last token: nothing is predicted from it."""
    places_T: Indices
    """Position of each token in its own row."""
    lengths_S: Indices
    num_shared: int
    """Tokens of the first part, which rows share; 0: there is none."""
    shares_S: NDArray[np.bool_]
    """Which parts follow it, wherever they lie."""
    positions_N: Indices
    targets_N: Indices
    rows_N: Indices
    """Which row each trained token is of."""


class Beginning(NamedTuple):
    """What rows begin with alike."""

    length: int
    rows_R: NDArray[np.bool_]
    """Which rows begin so."""


def pack(
    ids: Sequence[NDArray[np.int32]],
    masks: Sequence[NDArray[np.bool_]],
    *,
    longest_sharing: int = 0,
) -> Packed:
    """Put rows end to end. A row's first token is never trained: nothing stands before it.

    Rows of up to `longest_sharing` tokens share a beginning where that saves enough.
    """
    inputs = [row[: max(1, len(row) - 1)] for row in ids]
    begin = shared_beginning(inputs, longest_sharing)
    cut_R = begin.length * begin.rows_R
    lengths_R = np.array([len(row) for row in inputs], dtype=np.int64) - cut_R
    starts_R = begin.length + np.cumsum(lengths_R) - lengths_R
    trained = [np.flatnonzero(mask[1:]) for mask in masks]
    counts = [len(places) for places in trained]
    rests = [row[cut:] for row, cut in zip(inputs, cut_R, strict=True)]
    places_N, first_N = np.concatenate(trained), np.repeat(starts_R - cut_R, counts)
    # A place in the beginning is the same for all rows that share it.
    is_shared_N = places_N < np.repeat(cut_R, counts)
    shared = [inputs[int(np.argmax(begin.rows_R))][: begin.length]] if begin.length else []
    return Packed(
        ids_T=np.concatenate([*shared, *rests]).astype(np.int64),
        places_T=np.concatenate(
            [
                np.arange(begin.length),
                np.arange(lengths_R.sum()) - np.repeat(starts_R - begin.length - cut_R, lengths_R),
            ]
        ),
        lengths_S=np.concatenate([[begin.length], lengths_R]) if begin.length else lengths_R,
        num_shared=begin.length,
        shares_S=np.concatenate([[False], begin.rows_R]) if begin.length else begin.rows_R,
        positions_N=np.where(is_shared_N, places_N, places_N + first_N),
        targets_N=np.concatenate(
            [row[1:][places] for row, places in zip(ids, trained, strict=True)]
        ).astype(np.int64),
        rows_N=np.repeat(np.arange(len(ids)), counts),
    )


def shared_beginning(rows: Sequence[NDArray[np.int32]], longest: int) -> Beginning:
    """Of rows of up to `longest` tokens those that begin alike, and how far: the choice that saves
    the most tokens. Every row keeps one of its own. Length 0 where it saves too few."""
    nobody = Beginning(0, np.zeros(len(rows), dtype=np.bool_))
    # In this order rows that begin alike stand together, whatever their bytes mean.
    order = sorted(
        (i for i, row in enumerate(rows) if 1 < len(row) <= longest),
        key=lambda i: rows[i].astype(np.int32).tobytes(),
    )
    alike = np.array([num_alike(rows[i], rows[j]) for i, j in pairwise(order)], dtype=np.int64)
    most, found = _LEAST_SAVED * sum(len(row) for row in rows), nobody
    for length in np.unique(alike[alike > 0]):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], alike >= length, [0]])))
        firsts, lasts = edges[::2], edges[1::2]
        run = int(np.argmax(lasts - firsts))
        saved = int(length * (lasts[run] - firsts[run]))
        if saved > most:
            sharing = nobody.rows_R.copy()
            sharing[order[firsts[run] : lasts[run] + 1]] = True
            most, found = saved, Beginning(int(length), sharing)
    return found


def num_alike(one: NDArray[np.integer[Any]], other: NDArray[np.integer[Any]]) -> int:
    """Tokens that both begin with; each keeps one of its own."""
    most = min(len(one), len(other)) - 1
    different = np.flatnonzero(one[:most] != other[:most])
    return int(different[0]) if len(different) else most


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
