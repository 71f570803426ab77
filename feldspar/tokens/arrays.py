"""Token ids of many rows, end to end: in memory, or on disk and mapped, at no cost in memory.

A folder of them holds `ids.i4`, `mask.b1`, `starts.i8` and `trained.i4` (raw, little-endian) and
`about.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feldspar.stored import reading

_ABOUT = "about.json"


class TokenRow(NamedTuple):
    """A row: `ids` [T] int32, and `mask` [T] bool, true where the token is trained."""

    ids: NDArray[np.int32]
    mask: NDArray[np.bool_]


class TokenArrays(NamedTuple):
    """Rows of one source."""

    ids: NDArray[np.int32]
    mask: NDArray[np.bool_]
    starts: NDArray[np.int64]
    """Where each row starts in `ids`, and the end: one more than there are rows."""
    trained: NDArray[np.int32]
    """Trained tokens per row; a row's first token cannot be predicted and is not counted."""
    num_dropped: int
    """Rows left out: longer than the limit, or with nothing to train on."""
    digest: str
    """Of ids, mask and starts."""

    @property
    def num_rows(self) -> int:
        return len(self.starts) - 1

    def row(self, index: int) -> TokenRow:
        cut = slice(self.starts[index], self.starts[index + 1])
        return TokenRow(self.ids[cut], self.mask[cut])


def gather(batches: Iterable[Sequence[TokenRow | None]]) -> TokenArrays:
    """Rows in memory. None is a row left out."""
    ids: list[NDArray[Any]] = [np.empty(0, dtype=np.int32)]
    mask: list[NDArray[Any]] = [np.empty(0, dtype=np.bool_)]
    counts = _lay_out(batches, ids.append, mask.append)
    return counts._replace(ids=np.concatenate(ids), mask=np.concatenate(mask))


def write(folder: Path, batches: Iterable[Sequence[TokenRow | None]]) -> None:
    """The same into a folder, without holding more than a batch in memory."""
    with ExitStack() as stack:
        ids, mask = (stack.enter_context((folder / n).open("wb")) for n in ("ids.i4", "mask.b1"))
        counts = _lay_out(
            batches,
            lambda array: ids.write(array.astype("<i4", copy=False).data),
            lambda array: mask.write(array.data),
        )
    counts.starts.astype("<i8", copy=False).tofile(folder / "starts.i8")
    counts.trained.astype("<i4", copy=False).tofile(folder / "trained.i4")
    about = {"num_dropped": counts.num_dropped, "digest": counts.digest}
    (folder / _ABOUT).write_text(json.dumps(about), encoding="utf-8")


def read(folder: Path) -> TokenArrays:
    """What `write` wrote: ids and mask stay on disk until they are looked at.

    Raises RunError where it is not what was written.
    """
    with reading(folder, f"delete {folder} and run again: it is made anew"):
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        arrays = TokenArrays(
            ids=_mapped(folder / "ids.i4", "<i4"),
            mask=_mapped(folder / "mask.b1", "?"),
            starts=np.fromfile(folder / "starts.i8", dtype="<i8"),
            trained=np.fromfile(folder / "trained.i4", dtype="<i4"),
            num_dropped=about["num_dropped"],
            digest=about["digest"],
        )
        _check(arrays)
    return arrays


def _check(arrays: TokenArrays) -> None:
    """Raises ValueError where files do not belong together, or their content is another."""
    ids, mask, starts, trained = arrays.ids, arrays.mask, arrays.starts, arrays.trained
    if not len(starts) == len(trained) + 1 or not starts[-1] == len(ids) == len(mask):
        raise ValueError("its files are of different lengths")
    if arrays.digest != _digest(hashlib.sha256(ids.data), hashlib.sha256(mask.data), starts):
        raise ValueError("its content was changed")
    if len(trained):
        first = starts[:-1]
        counted = np.add.reduceat(mask, first, dtype=np.int64) - mask[first]
        if not np.array_equal(counted, trained):
            raise ValueError("its counts of trained tokens were changed")


def _digest(of_ids: hashlib._Hash, of_mask: hashlib._Hash, starts: NDArray[np.int64]) -> str:
    digests = [h.hexdigest() for h in (of_ids, of_mask, hashlib.sha256(starts.tobytes()))]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def _lay_out(
    batches: Iterable[Sequence[TokenRow | None]],
    keep_ids: Callable[[NDArray[Any]], object],
    keep_mask: Callable[[NDArray[Any]], object],
) -> TokenArrays:
    """Everything but ids and mask themselves, which are handed on batch by batch."""
    hashes = [hashlib.sha256(), hashlib.sha256()]
    lengths = [np.zeros(1, dtype=np.int64)]
    trained = [np.empty(0, dtype=np.int32)]
    num_dropped = 0
    for batch in batches:
        rows = [row for row in batch if row is not None]
        num_dropped += len(batch) - len(rows)
        if not rows:
            continue
        ids = np.concatenate([row.ids for row in rows])
        mask = np.concatenate([row.mask for row in rows])
        lengths.append(np.array([len(row.ids) for row in rows], dtype=np.int64))
        trained.append(np.array([row.mask[1:].sum() for row in rows], dtype=np.int32))
        for digest, array in zip(hashes, (ids, mask), strict=True):
            digest.update(array.data)
        keep_ids(ids)
        keep_mask(mask)
    starts = np.cumsum(np.concatenate(lengths))
    return TokenArrays(
        ids=np.empty(0, dtype=np.int32),
        mask=np.empty(0, dtype=np.bool_),
        starts=starts,
        trained=np.concatenate(trained),
        num_dropped=num_dropped,
        digest=_digest(hashes[0], hashes[1], starts),
    )


def _mapped(path: Path, dtype: str) -> NDArray[Any]:
    if not path.stat().st_size:
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")
