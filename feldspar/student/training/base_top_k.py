"""What the base says next at every trained place of some rows: its likeliest tokens, and the mass
of all others, on disk and mapped.

    ids.i4  [P, K]   log_probs.f4  [P, K]   rest.f4  [P]   about.json

Shapes: P trained places, row after row; K tokens kept; N places computed at once; V vocabulary.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from feldspar.files import whole_folder
from feldspar.progress import SILENT, Progress
from feldspar.stored import reading
from feldspar.student.lm_head import Head
from feldspar.student.model import Student, compute_threads
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.forward import ForwardPass

_TOKENS_PER_BATCH = 1 << 13
_ABOUT = "about.json"


class BaseTopK(NamedTuple):
    """Log-probabilities in nats, places in the order of rows and of their tokens."""

    ids_PK: NDArray[np.int32]
    log_probs_PK: NDArray[np.float32]
    rest_P: NDArray[np.float32]
    """Log of the probability of all other tokens together."""


def write_top_k(
    base: Student,
    rows: TokenRows,
    top_k: int,
    folder: Path,
    progress: Progress = SILENT,
    *,
    packing: bool = True,
) -> None:
    """Compute all of it with the base's weights, as training computes (`packing`); the folder is
    there whole or not at all.

    A row's trained places lie together, so memory holds one batch at a time.
    """
    forward = ForwardPass(base, packing=packing)
    starts = np.concatenate([[0], np.cumsum(rows.trained, dtype=np.int64)])
    num_places, width = int(starts[-1]), min(top_k, base.head.weight_VH.shape[0])
    with whole_folder(folder) as beside:
        found = BaseTopK(
            np.memmap(beside / "ids.i4", "<i4", "w+", shape=(num_places, width)),
            np.memmap(beside / "log_probs.f4", "<f4", "w+", shape=(num_places, width)),
            np.memmap(beside / "rest.f4", "<f4", "w+", shape=(num_places,)),
        )
        groups = forward.cutter(_TOKENS_PER_BATCH)(np.arange(len(rows)), rows.lengths)
        with progress.task("what the base says", len(rows), "rows") as task:
            for group in groups:
                _fill(forward, rows, group, starts, found)
                task.advance(len(group))
        # Mapped files are written out when nobody looks at them.
        del found
        about = {"num_places": num_places, "width": width}
        (beside / _ABOUT).write_text(json.dumps(about), encoding="utf-8")


def read_top_k(folder: Path) -> BaseTopK:
    """What was written, left on disk until it is looked at. Raises RunError where it is damaged."""
    with reading(folder / _ABOUT, f"delete {folder} and run again: it is made anew"):
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        shape = (int(about["num_places"]), int(about["width"]))
        return BaseTopK(
            np.memmap(folder / "ids.i4", "<i4", "r", shape=shape),
            np.memmap(folder / "log_probs.f4", "<f4", "r", shape=shape),
            np.memmap(folder / "rest.f4", "<f4", "r", shape=shape[:1]),
        )


def log_rest(log_probs_NK: torch.Tensor) -> torch.Tensor:
    """Log of what the given probabilities leave of 1; at least that of float32's rounding."""
    left = -torch.expm1(torch.logsumexp(log_probs_NK, dim=1))
    return left.clamp_min(torch.finfo(torch.float32).eps).log()


def top_k_of(head: Head, hidden_NH: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [N, K] and log-probabilities [N, K] of the likeliest tokens."""
    log_probs_NV = torch.log_softmax(head.logits(hidden_NH), dim=1)
    found = log_probs_NV.topk(width, dim=1)
    return found.indices, found.values


def _fill(
    forward: ForwardPass,
    rows: TokenRows,
    group: NDArray[np.int64],
    starts: NDArray[np.int64],
    found: BaseTopK,
) -> None:
    tensors = forward.to_tensors([rows.row(index) for index in group])
    places_N = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in group])
    head, width = forward.head, found.ids_PK.shape[1]
    with torch.inference_mode(), compute_threads(forward.student), forward.ready():
        hidden_NH = forward.hidden(tensors)
        for first in range(0, len(places_N), head.chunk_rows):
            chunk = slice(first, first + head.chunk_rows)
            ids, log_probs = top_k_of(head, hidden_NH[chunk], width)
            found.ids_PK[places_N[chunk]] = ids.cpu().numpy()
            found.log_probs_PK[places_N[chunk]] = log_probs.cpu().numpy()
            found.rest_P[places_N[chunk]] = log_rest(log_probs).cpu().numpy()
