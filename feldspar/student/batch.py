"""Rows of token ids: kept end to end, and laid side by side for the device.

Shapes: B rows, T tokens, N trained tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feldspar.records import Conversation
from feldspar.student.render import Rendered, Template


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRows:
    """Tokenised rows of one or more sources, end to end, in the sources' order."""

    ids: NDArray[np.int32]
    mask: NDArray[np.bool_]
    starts: NDArray[np.int64]
    """Where each row starts in `ids`, and the end: one more than there are rows."""
    source_of: NDArray[np.int64]
    """Index into `source_names`, per row."""
    source_names: tuple[str, ...]
    num_dropped: tuple[int, ...]
    """Rows left out per source: longer than the limit, or with nothing to train on."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    @property
    def num_rows(self) -> tuple[int, ...]:
        """Rows kept, per source."""
        counts = np.bincount(self.source_of, minlength=len(self.source_names))
        return tuple(counts.tolist())

    def row(self, index: int) -> Rendered:
        cut = slice(self.starts[index], self.starts[index + 1])
        return Rendered(self.ids[cut], self.mask[cut])


def tokenise(
    template: Template, sources: Iterable[tuple[str, Iterable[Conversation]]], max_length: int
) -> TokenRows:
    """Render conversations of named sources; what cannot be trained on is left out and counted."""
    kept: list[Rendered] = []
    source_of, names, num_dropped = [], [], []
    for number, (name, conversations) in enumerate(sources):
        dropped = 0
        for conversation in conversations:
            row = template.render(conversation)
            if len(row.ids) > max_length or not row.mask[1:].any():
                dropped += 1
                continue
            kept.append(row)
            source_of.append(number)
        names.append(name)
        num_dropped.append(dropped)
    empty = Rendered(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.bool_))
    lengths = [0, *(len(row.ids) for row in kept)]
    return TokenRows(
        ids=np.concatenate([empty.ids, *(row.ids for row in kept)]),
        mask=np.concatenate([empty.mask, *(row.mask for row in kept)]),
        starts=np.cumsum(lengths, dtype=np.int64),
        source_of=np.array(source_of, dtype=np.int64),
        source_names=tuple(names),
        num_dropped=tuple(num_dropped),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Right-padded inputs, and which of their positions foretell which trained token."""

    ids_BT: NDArray[np.int64]
    """Without each row's last token: nothing is foretold from it."""
    positions_N: NDArray[np.int64]
    """Into the flattened [B * T] positions."""
    targets_N: NDArray[np.int64]
    rows_N: NDArray[np.int64]
    """Which row each trained token is of."""


def collate(
    ids: Sequence[NDArray[np.int32]], masks: Sequence[NDArray[np.bool_]], pad_id: int
) -> Batch:
    """Lay rows side by side. A row's first token is never trained: nothing stands before it."""
    num_inputs = np.array([max(1, len(row) - 1) for row in ids])
    width = int(num_inputs.max())
    inside = np.arange(width) < num_inputs[:, None]
    ids_BT = np.full(inside.shape, pad_id, dtype=np.int64)
    ids_BT[inside] = np.concatenate([row[: max(1, len(row) - 1)] for row in ids])
    rows_N, places_N = np.nonzero(_pad([mask[1:] for mask in masks], width))
    starts = np.cumsum([0, *(len(row) for row in ids)])[:-1]
    return Batch(
        ids_BT=ids_BT,
        positions_N=rows_N * width + places_N,
        targets_N=np.concatenate(ids)[starts[rows_N] + places_N + 1].astype(np.int64),
        rows_N=rows_N,
    )


def _pad(masks: Sequence[NDArray[np.bool_]], width: int) -> NDArray[np.bool_]:
    padded = np.zeros((len(masks), width), dtype=np.bool_)
    padded[np.arange(width) < np.array([len(m) for m in masks])[:, None]] = np.concatenate(masks)
    return padded
