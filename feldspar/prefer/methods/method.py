"""What a preference method is: from a prompt's candidates to rows to tune on, and how on these.

A method is one file here, its name in `METHODS` and in the recipe's `prefer.method`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from feldspar.records import Candidate
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.objective import Objective

EQUAL_WITHIN = 1e-4
"""In nats: what batching alone may change in a sum of log-probabilities."""


@dataclass(frozen=True, slots=True)
class TuningRow:
    """An answer to tune on, and for methods that compare the answer it is preferred to. A method
    whose loss needs more of a row makes rows of a subclass."""

    chosen: Candidate
    rejected: Candidate | None = None


class PromptRows(NamedTuple):
    """What one prompt gives: rows of the round, and as many of its control, which know nothing of
    the reward."""

    tuned: list[TuningRow]
    control: list[TuningRow]


class PreferenceMethod(Protocol):
    """Pure: the same candidates give the same rows."""

    def rows(self, candidates: Sequence[Candidate], key: str) -> PromptRows:
        """Of one prompt's finished candidates, whose rewards are not all equal. `key` stands for
        seed and prompt: random choices are functions of it."""

    def objective(
        self, rows: Sequence[TuningRow], chosen: TokenRows, rejected: TokenRows
    ) -> Objective | None:
        """The loss over `rows`, where it is not the chosen answers' cross-entropy.

        `chosen` are their tokens, in order; `rejected` those of the answers they are preferred to,
        or empty."""


def best_of(candidates: Sequence[Candidate]) -> Candidate:
    """That of the highest reward; of equal rewards the first drawn."""
    return max(candidates, key=lambda candidate: (candidate.reward, -candidate.draw))


def any_of(candidates: Sequence[Candidate], key: str) -> Candidate:
    """One at random: the control of `best_of`."""
    return random.Random(f"control {key}").choice(candidates)
