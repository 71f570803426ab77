"""How likely a checkpoint finds the rows that a phase sets apart from training."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from feldspar.config import StudentConfig
from feldspar.keys import content_key
from feldspar.records import Checkpoint, Conversation, Phase
from feldspar.runs import read_rows
from feldspar.student.lm_head import score_targets
from feldspar.student.model import load_to_answer
from feldspar.student.token_rows import collate, tokenise
from feldspar.student.training.schedule import micro_batches

_TOKENS_PER_BATCH = 1 << 14


class HeldOut:
    """Marks checkpoints by held-out rows: mean log-likelihood of a row's trained tokens, in nats.

    A `ScoreItems`: an item is a row, named `SOURCE: NUMBER`.
    """

    metric = "log-likelihood"

    def __init__(self, phase: Phase, student: StudentConfig) -> None:
        self._phase, self._student = phase, student
        self.key = content_key(phase.held_out)

    def values(self, checkpoint: Checkpoint) -> dict[str, float]:
        """Of every row that fits `student.max_length`."""
        loaded = load_to_answer(checkpoint.path, self._student)
        sources = [(s.name, read_rows(Path(s.path), Conversation)) for s in self._phase.held_out]
        rows = tokenise(loaded.template, sources, self._student.max_length)
        sums = np.zeros(len(rows))
        for group in micro_batches(np.arange(len(rows)), rows.lengths, _TOKENS_PER_BATCH):
            picked = [rows.row(i) for i in group]
            batch = collate(
                [r.ids for r in picked], [r.mask for r in picked], loaded.template.pad_id
            )
            ids_BT = torch.from_numpy(batch.ids_BT).to(loaded.device)
            positions_N = torch.from_numpy(batch.positions_N).to(loaded.device)
            targets_N = torch.from_numpy(batch.targets_N).to(loaded.device)
            with torch.inference_mode(), loaded.computing():
                hidden_NH = loaded.hidden_states(ids_BT).flatten(0, 1).index_select(0, positions_N)
                scores_N = score_targets(loaded.head, hidden_NH, targets_N).log_probs_N
            np.add.at(sums, group[batch.rows_N], scores_N.cpu().numpy())
        means: NDArray[np.float64] = sums / rows.trained
        names = _names(rows.source_names, rows.num_rows)
        return dict(zip(names, means.tolist(), strict=True))


def _names(sources: tuple[str, ...], num_rows: tuple[int, ...]) -> Iterator[str]:
    return chain.from_iterable(
        (f"{name}: {number}" for number in range(num))
        for name, num in zip(sources, num_rows, strict=True)
    )
