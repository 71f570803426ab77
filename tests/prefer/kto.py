"""A third method, as one would add it: KTO (Ethayarajh et al. 2024), with its reference point taken
from the step's own rows. Every finished answer is a row, wanted where its reward is above the mean.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from feldspar.prefer.methods.method import PromptRows, TuningRow
from feldspar.student.training.objective import MicroBatchLosses, ObjectiveParts

BETA = 0.5


@dataclass(frozen=True, slots=True)
class LabelledRow(TuningRow):
    is_wanted: bool = True


class KTO:
    def rows(self, candidates, key):
        mean = sum(c.reward for c in candidates) / len(candidates)
        rows = [LabelledRow(c, is_wanted=c.reward > mean) for c in candidates]
        return PromptRows(rows, [LabelledRow(row.chosen) for row in rows])

    def objective(self, rows, chosen, rejected):
        return LabelledAnswers(chosen, [row.is_wanted for row in rows])


class LabelledAnswers:
    """1 - sigmoid(+-beta * (r - z)): r is log p - log p_ref, z the step's mean of r, at least 0."""

    metric_names = ("reference_point", "wanted")

    def __init__(self, rows, is_wanted):
        self._rows, self._is_wanted = rows, np.array(is_wanted)
        self.key = f"kto {is_wanted}"
        self.lengths, self.counts = rows.lengths, np.ones(len(rows), dtype=np.int32)

    def prepare(self, scorer, folder):
        self._reference = scorer.sums(np.arange(len(self.counts)), self.computed)[:, 0]

    def of_step(self, rows, scorer):
        ratios = scorer.sums(rows, self.computed)[:, 0] - self._reference[rows]
        return partial(self._losses, max(0.0, float(ratios.mean())))

    def computed(self, rows):
        return [self._rows.row(i) for i in rows]

    def _losses(self, point, forward, tensors, rows, scale):
        reference = torch.from_numpy(self._reference[rows]).float()
        sign = torch.from_numpy(np.where(self._is_wanted[rows], 1.0, -1.0)).float()
        margins = BETA * sign * (forward.row_log_probs(tensors) - reference - point)
        losses = 1 - torch.sigmoid(margins)
        metrics = {
            "reference_point": torch.tensor(point * len(rows)),
            "wanted": torch.tensor(float(self._is_wanted[rows].sum())),
        }
        value = losses.detach() + scale * (losses - losses.detach())
        return MicroBatchLosses(value, np.arange(len(rows)), metrics)

    def parts(self):
        wanted = {str(i): float(is_wanted) for i, is_wanted in enumerate(self._is_wanted)}
        return ObjectiveParts({}, wanted)

    @classmethod
    def of_parts(cls, rows, parts):
        return cls(rows, [bool(parts.settings[str(i)]) for i in range(len(rows))])
