"""Direct preference optimisation on pairs of picked answers (Rafailov et al. 2023).

    loss = -log sigmoid(beta * ((log p(chosen) - log p_ref(chosen))
                              - (log p(rejected) - log p_ref(rejected))))

The reference is the model that the round starts from; its log-probabilities are computed once.

Shapes: P pairs of a micro-batch, B = 2 P rows, N answer tokens.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from feldspar.runs import write_json
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.forward import Compute, Laid
from feldspar.student.training.schedule import Indices
from feldspar.tokens.arrays import TokenRow


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
        self._reference_P2: NDArray[np.float64] = np.zeros((len(chosen), 2))

    def find_reference(self, compute: Compute, path: Path, budget: int) -> None:
        """Log-probabilities of the student as it is now, in nats, kept at `path`."""
        if not path.exists():
            pairs = np.arange(len(self.counts))
            with torch.no_grad(), compute.ready():
                for group in compute.cutter(budget)(pairs, self.lengths):
                    sums_2P = self._log_probs(compute, compute.lay(self.computed(group)))
                    self._reference_P2[group] = sums_2P.T.cpu().numpy()
            write_json(path, {"key": self.key, "log_probs": self._reference_P2.tolist()})
        self._reference_P2 = np.array(json.loads(path.read_text(encoding="utf-8"))["log_probs"])

    def computed(self, rows: Indices) -> list[TokenRow]:
        """First the chosen, then the rejected."""
        return [side.row(i) for side in (self._chosen, self._rejected) for i in rows]

    def losses(self, compute: Compute, laid: Laid, rows: Indices, scale: float) -> Tensor:
        """Losses [P] in nats; their sum has the gradient of `scale` times their sum."""
        reference_2P = torch.from_numpy(self._reference_P2[rows].T).to(
            compute.student.device, torch.float32
        )
        ratios_2P = self._log_probs(compute, laid) - reference_2P
        losses_P = -functional.logsigmoid(self._beta * (ratios_2P[0] - ratios_2P[1]))
        return losses_P.detach() + scale * (losses_P - losses_P.detach())

    def _log_probs(self, compute: Compute, laid: Laid) -> Tensor:
        """Sums of the answers' log-probabilities [2, P]: of the chosen, of the rejected."""
        log_probs_N = compute.log_probs(laid)
        sums_B = log_probs_N.new_zeros(laid.num_rows)
        rows_N = torch.from_numpy(laid.rows_N).to(log_probs_N.device)
        return sums_B.index_add(0, rows_N, log_probs_N).view(2, -1)
