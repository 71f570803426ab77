"""Direct preference optimisation on pairs of answers (Rafailov et al. 2023).

    loss = -log sigmoid(margin)
    margin = beta * ((log p(chosen) - log p_ref(chosen)) - (log p(rejected) - log p_ref(rejected)))

The reference is the model that the round starts from; its log-probabilities are computed once.

Shapes: P pairs, B = 2 P token rows, first the chosen, then the rejected.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from feldspar.files import write_json
from feldspar.keys import content_key
from feldspar.prefer.methods.method import EQUAL_WITHIN, PromptRows, TuningRow, best_of
from feldspar.records import Candidate
from feldspar.stored import read_stored, reading
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.forward import ForwardPass, MicroBatchTensors
from feldspar.student.training.objective import (
    LossFunction,
    MicroBatchLosses,
    Objective,
    ObjectiveParts,
    StepScorer,
)
from feldspar.student.training.schedule import Indices
from feldspar.tokens.arrays import TokenRow

BETA = 0.1
"""Where a recipe says none: the paper's, for dialogue."""


class DPO:
    """The best answer against a random other one of less reward. In the control which of the two is
    preferred is a coin's choice."""

    def __init__(self, beta: float | None) -> None:
        self._beta = BETA if beta is None else beta

    def rows(self, candidates: Sequence[Candidate], key: str) -> PromptRows:
        best = best_of(candidates)
        others = [c for c in candidates if c.reward < best.reward - EQUAL_WITHIN]
        if not others:
            return PromptRows([], [])
        other = random.Random(f"other {key}").choice(others)
        is_turned = random.Random(f"turn {key}").random() < 0.5
        turned = TuningRow(other, best) if is_turned else TuningRow(best, other)
        return PromptRows([TuningRow(best, other)], [turned])

    def objective(
        self, rows: Sequence[TuningRow], chosen: TokenRows, rejected: TokenRows
    ) -> Objective | None:
        return PreferencePairs(chosen, rejected, self._beta)


class PreferencePairs:
    """An `Objective`: row i of `chosen` against row i of `rejected`."""

    metric_names: tuple[str, ...] = ("margin", "accuracy")
    """Of pairs: the mean margin, and the part of them whose margin is above 0."""

    def __init__(self, chosen: TokenRows, rejected: TokenRows, beta: float) -> None:
        assert len(chosen) == len(rejected), (len(chosen), len(rejected))
        self._chosen, self._rejected, self._beta = chosen, rejected, beta
        self.lengths: NDArray[np.int64] = chosen.lengths + rejected.lengths
        self.counts: NDArray[np.int32] = np.ones(len(chosen), dtype=np.int32)
        """A step's loss is the mean over its pairs."""
        self.key = content_key("dpo", beta, chosen.key, rejected.key)
        self._reference_P2: NDArray[np.float64] = np.zeros((len(chosen), 2))

    def prepare(self, scorer: StepScorer, folder: Path) -> None:
        """Find the reference's log-probabilities, in nats, or read what an earlier try found."""
        path = folder / "reference.json"
        known = read_stored(path, dict[str, object]) if path.exists() else {}
        if scorer.all_agree(known.get("key") == self.key):
            with reading(path):
                self._reference_P2 = np.array(known["log_probs"], dtype=np.float64)
                if self._reference_P2.shape != (len(self.counts), 2):
                    raise ValueError("it is of other pairs")
            return
        self._reference_P2 = scorer.sums(np.arange(len(self.counts)), self.computed)
        if scorer.is_first:
            write_json(path, {"key": self.key, "log_probs": self._reference_P2.tolist()})

    def of_step(self, rows: Indices, scorer: StepScorer) -> LossFunction:
        """A pair's loss needs no other pair of its step."""
        return self.losses

    def computed(self, rows: Indices) -> list[TokenRow]:
        """First the chosen, then the rejected."""
        return [side.row(i) for side in (self._chosen, self._rejected) for i in rows]

    def losses(
        self, forward: ForwardPass, tensors: MicroBatchTensors, rows: Indices, scale: float
    ) -> MicroBatchLosses:
        """Losses [P] in nats; their sum has the gradient of `scale` times their sum."""
        reference_2P = torch.from_numpy(self._reference_P2[rows].T).to(
            forward.student.device, torch.float32
        )
        ratios_2P = forward.row_log_probs(tensors).view(2, -1) - reference_2P
        margins_P = self._beta * (ratios_2P[0] - ratios_2P[1])
        losses_P = -functional.logsigmoid(margins_P)
        with torch.no_grad():
            metrics = {"margin": margins_P.sum(), "accuracy": (margins_P > 0).float().sum()}
        return MicroBatchLosses(
            # The value of the loss, the gradient of `scale` times it.
            losses_P.detach() + scale * (losses_P - losses_P.detach()),
            np.arange(len(rows)),
            metrics,
        )

    def parts(self) -> ObjectiveParts:
        return ObjectiveParts({"rejected": self._rejected}, {"beta": self._beta})

    @classmethod
    def of_parts(cls, rows: TokenRows, parts: ObjectiveParts) -> Self:
        return cls(rows, parts.rows["rejected"], parts.settings["beta"])
