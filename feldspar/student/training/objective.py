"""What a step's loss is of its rows: the answers' cross-entropy, or another (`Objective`).

An objective sees a whole optimizer step, all its rows in whichever process they are computed,
before the step is cut into micro-batches; then it gives the losses of each micro-batch.

Shapes: R rows of a step, C token rows that an objective computes for each, N losses.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feldspar.errors import TrainingError
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.forward import ForwardPass, MicroBatchTensors
from feldspar.student.training.process_group import ProcessGroup
from feldspar.student.training.schedule import Indices
from feldspar.tokens.arrays import TokenRow


class MicroBatchLosses(NamedTuple):
    """Losses of a micro-batch, and figures of it."""

    losses_N: Tensor
    """In nats. Backward from their sum gives the gradient of `scale` times it."""
    rows_N: NDArray[np.int64]
    """Which of the micro-batch's rows each loss is of."""
    metrics: dict[str, Tensor]
    """Sums over the micro-batch's rows by `Objective.metric_names`, without gradient."""


LossFunction = Callable[[ForwardPass, MicroBatchTensors, Indices, float], MicroBatchLosses]
"""(forward, tensors of what is computed, rows, scale) -> losses of a micro-batch."""


class ObjectiveParts(NamedTuple):
    """What another process makes the same objective of, besides the rows that are trained."""

    rows: Mapping[str, TokenRows]
    settings: Mapping[str, float]
    folder: str = ""
    """What is read from disk, where all processes see it."""


class Objective(Protocol):
    """A loss over rows. Losses are pure functions of weights and rows: no step knows another."""

    key: str
    """Of all that decides the losses besides the rows that are trained."""
    lengths: NDArray[np.int64]
    """Tokens computed for each row."""
    counts: NDArray[np.int32]
    """What each row adds to the number that a step's sums of losses and metrics are divided by."""
    metric_names: tuple[str, ...]
    """Means over a step that are written to metrics.jsonl with its loss."""

    def prepare(self, scorer: StepScorer, folder: Path) -> None:
        """Called once, while the weights are those that training starts from, also of a fit that
        goes on. What is expensive may be kept in `folder`."""

    def of_step(self, rows: Indices, scorer: StepScorer) -> LossFunction:
        """The losses of a step that sees these rows, in whichever process each is computed."""

    def computed(self, rows: Indices) -> list[TokenRow]:
        """What is computed at once for these rows: C token rows each, [C, R] flattened."""

    def parts(self) -> ObjectiveParts: ...

    @classmethod
    def of_parts(cls, rows: TokenRows, parts: ObjectiveParts) -> Self: ...


class CrossEntropy:
    """The mean over all trained tokens of -log p(token): supervised fine-tuning."""

    key = ""
    metric_names: tuple[str, ...] = ()

    def __init__(self, rows: TokenRows) -> None:
        self._rows = rows
        self.lengths, self.counts = rows.lengths, rows.trained

    def prepare(self, scorer: StepScorer, folder: Path) -> None:
        """Needs nothing."""

    def of_step(self, rows: Indices, scorer: StepScorer) -> LossFunction:
        return self._losses

    def computed(self, rows: Indices) -> list[TokenRow]:
        return [self._rows.row(i) for i in rows]

    def parts(self) -> ObjectiveParts:
        return ObjectiveParts({}, {})

    @classmethod
    def of_parts(cls, rows: TokenRows, parts: ObjectiveParts) -> Self:
        return cls(rows)

    def _losses(
        self, forward: ForwardPass, tensors: MicroBatchTensors, rows: Indices, scale: float
    ) -> MicroBatchLosses:
        return MicroBatchLosses(forward.losses(tensors, scale), tensors.rows_N, {})


class StepScorer:
    """Log-probabilities without a gradient, shared among the processes that train.

    All processes must ask for the same at the same time.
    """

    def __init__(self, forward: ForwardPass, group: ProcessGroup, token_budget: int) -> None:
        self._forward, self._group, self._token_budget = forward, group, token_budget
        self.is_first = group.rank == 0
        """Whether this process writes files."""

    def sums(
        self, rows: Indices, computed: Callable[[Indices], list[TokenRow]]
    ) -> NDArray[np.float64]:
        """Sums [R, C] of the log-probabilities of trained tokens, in nats, as weights are now.

        `computed` gives C token rows for each row, [C, R] flattened: an objective's own, or others,
        such as prompts with another row's answer.
        """
        places = np.arange(len(rows))
        each = [computed(rows[i : i + 1]) for i in places]
        lengths = np.array([sum(len(r.ids) for r in of_row) for of_row in each], dtype=np.int64)
        found = torch.zeros(len(rows), len(each[0]), dtype=torch.float64)
        cut = self._forward.cutter(self._token_budget)
        for micro in self._group.micro_batches(places, lengths, cut):
            tensors = self._forward.to_tensors(computed(rows[micro.rows]))
            with torch.no_grad(), self._forward.ready():
                score = partial(self._forward.row_log_probs, tensors)
                sums_CR = self._group.compute(micro, score).view(found.shape[1], -1)
            found[torch.from_numpy(micro.rows)] += micro.weight * sums_CR.T.cpu().double()
        self._group.release()
        sums: NDArray[np.float64] = self._group.total(found).numpy()
        return sums

    def all_agree(self, is_so: bool) -> bool:
        """Whether it is so in every process."""
        return int(self._group.total(torch.tensor(int(is_so)))) == self._group.size


def name_of_kind(objective: Objective) -> str:
    """`module:Class`, by which another process finds the kind of an objective."""
    kind = type(objective)
    assert "<" not in kind.__qualname__, f"{kind.__qualname__} is not at the top of its module"
    return f"{kind.__module__}:{kind.__qualname__}"


def objective_of(name: str, rows: TokenRows, parts: ObjectiveParts) -> Objective:
    """The objective whose kind has this name (`name_of_kind`), made of its parts.

    Raises TrainingError where its module is not found.
    """
    module, _, kind = name.partition(":")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise TrainingError(
            f"the objective {name} is not found in this process: {error}; put the folder of its "
            "module into PYTHONPATH"
        ) from error
    made: Objective = getattr(found, kind).of_parts(rows, parts)
    return made
