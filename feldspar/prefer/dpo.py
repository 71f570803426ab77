"""Direct preference optimisation on pairs of picked answers (Rafailov et al. 2023).

    loss = -log sigmoid(beta * ((log p(chosen) - log p_ref(chosen))
                              - (log p(rejected) - log p_ref(rejected))))

The reference is the model that the round starts from; its log-probabilities are computed once.

Shapes: P pairs of a micro-batch, B = 2 P rows, T tokens, N answer tokens, H hidden size.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from feldspar.runs import write_json
from feldspar.student.batch import TokenRows, collate
from feldspar.student.head import Head
from feldspar.student.model import Student
from feldspar.student.schedule import Indices, micro_batches

_HEAD_ELEMENTS = 1 << 24
"""Logits held at once: 64 MB in float32, computed again for the gradient."""


class PreferencePairs:
    """An `Objective` of `fit`: row i of `chosen` against row i of `rejected`."""

    def __init__(self, chosen: TokenRows, rejected: TokenRows, beta: float) -> None:
        assert len(chosen) == len(rejected), (len(chosen), len(rejected))
        self._chosen, self._rejected, self._beta = chosen, rejected, beta
        self.lengths: NDArray[np.int64] = chosen.lengths + rejected.lengths
        self.counts: NDArray[np.int32] = np.ones(len(chosen), dtype=np.int32)
        """A step's loss is the mean over its pairs."""
        parts = ["dpo", beta, chosen.key, rejected.key]
        self.key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        self._reference_B2: NDArray[np.float64] = np.zeros((len(chosen), 2))

    def find_reference(self, student: Student, path: Path, budget: int) -> None:
        """Log-probabilities of the student as it is now, in nats, kept at `path`."""
        if not path.exists():
            rows = np.arange(len(self.counts))
            for group in micro_batches(rows, self.lengths, budget):
                with torch.no_grad(), student.computing():
                    sums_B = self._log_probs(student, group)
                self._reference_B2[group] = sums_B.view(2, -1).T.cpu().numpy()
            write_json(path, {"key": self.key, "log_probs": self._reference_B2.tolist()})
        self._reference_B2 = np.array(json.loads(path.read_text(encoding="utf-8"))["log_probs"])

    def losses(self, student: Student, rows: Indices, scale: float) -> Tensor:
        """Losses [P] in nats; their sum has the gradient of `scale` times their sum."""
        reference_2P = torch.from_numpy(self._reference_B2[rows].T.copy())
        ratios_2P = self._log_probs(student, rows).view(2, -1) - reference_2P.to(
            student.device, torch.float32
        )
        losses_P = -functional.logsigmoid(self._beta * (ratios_2P[0] - ratios_2P[1]))
        return losses_P.detach() + scale * (losses_P - losses_P.detach())

    def _log_probs(self, student: Student, rows: Indices) -> Tensor:
        """Sums of the answers' log-probabilities [B]: first the chosen, then the rejected."""
        picked = [self._chosen.row(i) for i in rows] + [self._rejected.row(i) for i in rows]
        batch = collate([r.ids for r in picked], [r.mask for r in picked], student.template.pad_id)
        device = student.device
        positions_N = torch.from_numpy(batch.positions_N).to(device)
        targets_N = torch.from_numpy(batch.targets_N).to(device)
        hidden_BTH = student.hidden_states(torch.from_numpy(batch.ids_BT).to(device))
        hidden_NH = hidden_BTH.flatten(0, 1).index_select(0, positions_N)
        log_probs_N = _head_log_probs(student.head, hidden_NH, targets_N)
        sums_B = torch.zeros(len(picked), device=device)
        return sums_B.index_add(0, torch.from_numpy(batch.rows_N).to(device), log_probs_N)


def _head_log_probs(head: Head, hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
    """With a gradient, and without all logits at once."""
    size = max(1, _HEAD_ELEMENTS // head.weight_VH.shape[0])
    parts: Sequence[Tensor] = [
        checkpoint(
            _chunk_log_probs,
            head,
            hidden_NH[start : start + size],
            targets_N[start : start + size],
            use_reentrant=False,
        )
        for start in range(0, len(targets_N), size)
    ]
    return torch.cat([*parts])


def _chunk_log_probs(head: Head, hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
    return -functional.cross_entropy(head.logits(hidden_NH), targets_N, reduction="none")
