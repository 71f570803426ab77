"""Cross-entropy, and on some rows also the divergence from what the base says there.

    loss = sum of -log q(token) over all trained tokens
           + beta * sum of KL(p || q) over the trained tokens of the rows that are held

divided, as always, by the number of trained tokens of the step. p is the base, q the student. Of p
the K likeliest tokens are known, and the mass of all others as one more outcome:

    KL(p || q) = sum over top K of p(v) (log p(v) - log q(v)) + p(rest) (log p(rest) - log q(rest))

which is never above the whole divergence (log-sum inequality; Cover and Thomas 2006, theorem 2.7.1)
and equals it where K is the vocabulary. Holding a student to its own start by KL is Li and Hoiem
2016 ("Learning without Forgetting", equation 3), with the old model's outputs on rows as they are.

Shapes: N trained tokens of a micro-batch, M of them held, K tokens kept, R rows, P places.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from feldspar.student.lm_head import Head, cross_entropy
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.base_top_k import BaseTopK, log_rest, read_top_k
from feldspar.student.training.forward import ForwardPass, MicroBatchTensors
from feldspar.student.training.objective import (
    LossFunction,
    MicroBatchLosses,
    ObjectiveParts,
    StepScorer,
)
from feldspar.student.training.schedule import Indices
from feldspar.tokens.arrays import TokenRow


class HeldToBase:
    """An `Objective`: cross-entropy on all rows, and `beta` times the divergence on those of one
    source, whose top tokens lie in `folder`.

    `new_ids`: tokens that the base lacks (a template's), so that what it says where they follow
    means nothing; these places are not held.
    """

    metric_names: tuple[str, ...] = ("kl",)
    """The divergence summed over held tokens, by all trained tokens, in nats."""

    def __init__(
        self, rows: TokenRows, source: int, folder: Path, *, beta: float, new_ids: frozenset[int]
    ) -> None:
        self._rows, self._source, self._folder = rows, source, folder
        self._beta, self._new_ids = beta, new_ids
        self.lengths, self.counts = rows.lengths, rows.trained
        first = sum(rows.num_rows[:source])
        last = first + rows.num_rows[source]
        self._first_row = first
        self._starts: NDArray[np.int64] = np.concatenate(
            [[0], np.cumsum(rows.trained[first:last], dtype=np.int64)]
        )
        self._new = torch.tensor(sorted(new_ids), dtype=torch.int64)
        self._top: BaseTopK = read_top_k(folder)
        assert len(self._top.rest_P) == self._starts[-1], "the cache is of these rows"
        parts = ["kl", beta, source, self._top.ids_PK.shape[1], sorted(new_ids), folder.name]
        self.key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def prepare(self, scorer: StepScorer, folder: Path) -> None:
        """Needs nothing: what the base says was computed before."""

    def of_step(self, rows: Indices, scorer: StepScorer) -> LossFunction:
        """A token's loss needs no other token of its step."""
        return self.losses

    def computed(self, rows: Indices) -> list[TokenRow]:
        return [self._rows.row(i) for i in rows]

    def losses(
        self, forward: ForwardPass, tensors: MicroBatchTensors, rows: Indices, scale: float
    ) -> MicroBatchLosses:
        """Losses [N] in nats; their sum has the gradient of `scale` times their sum."""
        head, hidden_NH = forward.head, forward.hidden(tensors)
        losses_N = cross_entropy(head, hidden_NH, tensors.targets_N, scale)
        held_M, places_M = self._held(tensors, rows)
        if not len(held_M):
            return MicroBatchLosses(losses_N, tensors.rows_N, {"kl": losses_N.new_zeros(())})
        kl_M = self._divergence(head, hidden_NH.index_select(0, held_M), places_M)
        weighed_M = self._beta * kl_M
        # The value of the loss, the gradient of `scale` times it.
        added_M = weighed_M.detach() + scale * (weighed_M - weighed_M.detach())
        losses_N = losses_N.index_add(0, held_M, added_M)
        return MicroBatchLosses(losses_N, tensors.rows_N, {"kl": kl_M.detach().sum()})

    def _held(self, tensors: MicroBatchTensors, rows: Indices) -> tuple[Tensor, NDArray[np.int64]]:
        """Which of the N tokens are held, and their places in the cache."""
        of_row_N = tensors.rows_N
        sizes = np.bincount(of_row_N, minlength=len(rows))
        within_N = np.arange(len(of_row_N)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        is_held = self._rows.source_of[rows][of_row_N] == self._source
        targets_N = tensors.targets_N.cpu()
        is_held &= ~torch.isin(targets_N, self._new).numpy()
        held = np.flatnonzero(is_held)
        places = self._starts[rows[of_row_N[held]] - self._first_row] + within_N[held]
        return torch.from_numpy(held).to(tensors.targets_N.device), places

    def _divergence(self, head: Head, hidden_MH: Tensor, places_M: NDArray[np.int64]) -> Tensor:
        device = hidden_MH.device
        ids_MK, log_p_MK, rest_M = (
            torch.from_numpy(np.ascontiguousarray(part[places_M])).to(device) for part in self._top
        )
        parts = (hidden_MH, ids_MK.long(), log_p_MK, rest_M)
        chunks = zip(*(torch.split(part, head.chunk_rows) for part in parts), strict=True)
        # Logits are computed again for the gradient, so that they never exist whole.
        return torch.cat([checkpoint(kl_to, head, *chunk, use_reentrant=False) for chunk in chunks])

    def parts(self) -> ObjectiveParts:
        return ObjectiveParts(
            {},
            {"beta": self._beta, "source": float(self._source)}
            | {f"new {number}": float(token) for number, token in enumerate(self._new_ids)},
            str(self._folder),
        )

    @classmethod
    def of_parts(cls, rows: TokenRows, parts: ObjectiveParts) -> Self:
        settings = parts.settings
        new_ids = frozenset(int(v) for name, v in settings.items() if name.startswith("new "))
        source = int(settings["source"])
        return cls(rows, source, Path(parts.folder), beta=settings["beta"], new_ids=new_ids)


def kl_to(
    head: Head, hidden_MH: Tensor, ids_MK: Tensor, log_p_MK: Tensor, rest_M: Tensor
) -> Tensor:
    """KL(p || q) [M] in nats, with q by the head; see the top of the file."""
    logits_MV = head.logits(hidden_MH)
    log_q_MK = logits_MV.gather(1, ids_MK) - torch.logsumexp(logits_MV, dim=1, keepdim=True)
    top_M = (log_p_MK.exp() * (log_p_MK - log_q_MK)).sum(dim=1)
    if ids_MK.shape[1] == logits_MV.shape[1]:
        return top_M
    return top_M + rest_M.exp() * (rest_M - log_rest(log_q_MK))
