"""How likely a student finds given answers: for rewards and for exams.

Shapes: B rows, T tokens, H hidden size, N scored tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from feldspar.progress import SILENT, Progress
from feldspar.records import Message
from feldspar.student.batch import collate
from feldspar.student.head import log_probs
from feldspar.student.model import Student
from feldspar.student.schedule import micro_batches
from feldspar.tokens.arrays import TokenRow

_TOKENS_PER_BATCH = 1 << 14


class AnswerRow(NamedTuple):
    """An answer to `messages`; its stop token is scored only when it `ended`."""

    messages: Sequence[Message]
    answer: str
    ended: bool = True


class AnswerLogProb(NamedTuple):
    """Sum of the log-probabilities of an answer's tokens, in nats, and how many there are."""

    total: float
    num_tokens: int


def answer_log_probs(
    student: Student, rows: Sequence[AnswerRow], progress: Progress = SILENT
) -> list[AnswerLogProb]:
    """Score answers, in the order of `rows`. An answer without tokens scores 0."""
    rendered = [_render(student, row) for row in rows]
    lengths = np.array([len(r.ids) for r in rendered], dtype=np.int64)
    totals = np.zeros(len(rows))
    groups = micro_batches(np.arange(len(rows)), lengths, _TOKENS_PER_BATCH)
    with progress.task("log-probabilities", len(rows), "answers") as task:
        for group in groups:
            totals[group] = _score(student, [rendered[i] for i in group])
            task.advance(len(group))
    counts = [int(r.mask.sum()) for r in rendered]
    return [AnswerLogProb(float(t), c) for t, c in zip(totals, counts, strict=True)]


def _render(student: Student, row: AnswerRow) -> TokenRow:
    prompt = student.template.render_prompt(row.messages)
    answer = student.template.render_answer(row.messages, row.answer, ended=row.ended)
    mask = np.arange(len(prompt) + len(answer)) >= len(prompt)
    return TokenRow(np.array([*prompt, *answer], dtype=np.int32), mask)


def _score(student: Student, rows: Sequence[TokenRow]) -> NDArray[np.float64]:
    batch = collate([r.ids for r in rows], [r.mask for r in rows], student.template.pad_id)
    ids_BT = torch.from_numpy(batch.ids_BT).to(student.device)
    positions_N = torch.from_numpy(batch.positions_N).to(student.device)
    targets_N = torch.from_numpy(batch.targets_N).to(student.device)
    with torch.inference_mode(), student.computing():
        hidden_NH = student.hidden_states(ids_BT).flatten(0, 1).index_select(0, positions_N)
        scores_N = log_probs(student.head, hidden_NH, targets_N).cpu().numpy()
    totals = np.zeros(len(rows))
    np.add.at(totals, batch.rows_N, scores_N)
    return totals
