"""Rows of token ids: kept end to end, and put side by side for the device.

Shapes: B rows, T tokens, N trained tokens.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from feldspar.files import whole_folder
from feldspar.records import Conversation
from feldspar.student.template.render import Template, is_text
from feldspar.tokens.arrays import TokenArrays, TokenRow, gather, read, write

log = logging.getLogger(__name__)

_RENDERED_TOGETHER = 4096
_VERSION = 1
"""Of the way rows become tokens: part of the key of what is kept."""


class TokenRows:
    """Tokenised rows of one or more named sources, numbered through in the sources' order."""

    def __init__(self, sources: Iterable[tuple[str, TokenArrays]]) -> None:
        self.sources = tuple(sources)
        self.source_names = tuple(name for name, _ in self.sources)
        arrays = [part for _, part in self.sources]
        self.num_rows = tuple(part.num_rows for part in arrays)
        """Rows kept, per source."""
        self.num_dropped = tuple(part.num_dropped for part in arrays)
        """Rows left out per source: longer than the limit, or with nothing to train on."""
        self.lengths: NDArray[np.int64] = np.concatenate(
            [np.empty(0, dtype=np.int64), *(np.diff(part.starts) for part in arrays)]
        )
        self.trained: NDArray[np.int32] = np.concatenate(
            [np.empty(0, dtype=np.int32), *(part.trained for part in arrays)]
        )
        """Trained tokens per row."""
        self.source_of: NDArray[np.int64] = np.repeat(np.arange(len(arrays)), self.num_rows)
        """Index into `source_names`, per row."""
        self.key = hashlib.sha256(json.dumps([p.digest for p in arrays]).encode()).hexdigest()
        """Of all tokens, in their order."""
        self._first = np.cumsum([0, *self.num_rows])

    def __len__(self) -> int:
        return int(self._first[-1])

    def row(self, index: int) -> TokenRow:
        source = int(self.source_of[index])
        return self.sources[source][1].row(index - int(self._first[source]))


def tokenise(
    template: Template, sources: Iterable[tuple[str, Iterable[Conversation]]], max_length: int
) -> TokenRows:
    """Render conversations of named sources; what cannot be trained on is left out and counted.

    Plain text that is longer than `max_length` is cut into rows of that length.
    """
    return TokenRows(
        (name, gather(_rendered(template, rows, max_length))) for name, rows in sources
    )


class Kept(NamedTuple):
    """Rows whose tokens are kept: `digest` is of their content, `folder` where to keep them."""

    name: str
    rows: Iterable[Conversation]
    digest: str
    folder: Path


def tokenise_once(template: Template, sources: Iterable[Kept], max_length: int) -> TokenRows:
    """The same with arrays on disk, found again by the content of rows and template.

    Several processes may ask for the same: one writes, the others wait.
    """
    return TokenRows((source.name, _kept(template, source, max_length)) for source in sources)


def _kept(template: Template, source: Kept, max_length: int) -> TokenArrays:
    parts = json.dumps([_VERSION, source.digest, template.key, max_length])
    folder = source.folder / hashlib.sha256(parts.encode()).hexdigest()[:16]
    if not folder.is_dir():
        source.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                with whole_folder(folder) as temporary:
                    write(temporary, _rendered(template, source.rows, max_length))
    return read(folder)


def _rendered(
    template: Template, conversations: Iterable[Conversation], max_length: int
) -> Iterator[list[TokenRow | None]]:
    """Rows in batches; None for each that is left out."""
    left = iter(conversations)
    refused: list[str] = []
    while batch := list(islice(left, _RENDERED_TOGETHER)):
        why = [template.refusal(conversation) for conversation in batch]
        refused += [f"{c.id}: {reason}" for c, reason in zip(batch, why, strict=True) if reason]
        rows: list[TokenRow | None] = [None for reason in why if reason]
        written = [c for c, reason in zip(batch, why, strict=True) if not reason]
        for conversation, row in zip(written, template.render_all(written), strict=True):
            pieces = _cut(row, max_length) if is_text(conversation) else [row]
            fit = [p for p in pieces if len(p.ids) <= max_length and p.mask[1:].any()]
            rows += fit or [None]
        yield rows
    if refused:
        log.warning(
            "%d rows are left out that the chat template cannot write; the first: %s",
            len(refused),
            refused[0],
        )


def _cut(row: TokenRow, max_length: int) -> list[TokenRow]:
    cuts = [slice(at, at + max_length) for at in range(0, len(row.ids), max_length)]
    return [TokenRow(row.ids[cut], row.mask[cut]) for cut in cuts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Right-padded inputs, and which of their positions predict which trained token."""

    ids_BT: NDArray[np.int64]
    """Without each row's last token: nothing is predicted from it."""
    positions_N: NDArray[np.int64]
    """Into the flattened [B * T] positions."""
    targets_N: NDArray[np.int64]
    rows_N: NDArray[np.int64]
    """Which row each trained token is of."""


def collate(
    ids: Sequence[NDArray[np.int32]], masks: Sequence[NDArray[np.bool_]], pad_id: int
) -> Batch:
    """Put rows side by side. A row's first token is never trained: nothing stands before it."""
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
