"""Best of N (docs/preference.md): fine-tuning on the answer of the highest reward."""

from __future__ import annotations

from collections.abc import Sequence

from feldspar.prefer.methods.method import PromptRows, TuningRow, any_of, best_of
from feldspar.records import Candidate
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.objective import Objective


class BestOfN:
    """The control tunes on one of the prompt's answers at random."""

    def rows(self, candidates: Sequence[Candidate], key: str) -> PromptRows:
        return PromptRows([TuningRow(best_of(candidates))], [TuningRow(any_of(candidates, key))])

    def objective(
        self, rows: Sequence[TuningRow], chosen: TokenRows, rejected: TokenRows
    ) -> Objective | None:
        return None
