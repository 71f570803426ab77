"""A loss that sees its whole step, as KTO's does: each row against the mean of all rows."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch.nn import functional

from feldspar.student.training.objective import MicroBatchLosses, ObjectiveParts


class StepMean:
    """-log sigmoid(beta * (s - z)): s is a row's log-probability, z the step's mean of these, which
    has no gradient."""

    metric_names = ("mean",)

    def __init__(self, rows, beta):
        self.key = f"step mean {beta}"
        self._rows, self._beta = rows, beta
        self.lengths = rows.lengths
        self.counts = np.ones(len(rows), dtype=np.int32)

    def prepare(self, scorer, folder):
        pass

    def of_step(self, rows, scorer):
        return partial(self.losses, float(scorer.sums(rows, self.computed).mean()))

    def computed(self, rows):
        return [self._rows.row(i) for i in rows]

    def losses(self, mean, forward, tensors, rows, scale):
        sums = forward.row_log_probs(tensors)
        losses = -functional.logsigmoid(self._beta * (sums - mean))
        return MicroBatchLosses(
            losses.detach() + scale * (losses - losses.detach()),
            np.arange(len(rows)),
            {"mean": torch.full((), mean * len(rows))},
        )

    def parts(self):
        return ObjectiveParts({}, {"beta": self._beta})

    @classmethod
    def of_parts(cls, rows, parts):
        return cls(rows, parts.settings["beta"])
