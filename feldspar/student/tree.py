"""How likely a student finds the continuations of prompts: the one scorer behind rewards, exams and
multiple-choice benchmarks.

Shapes: B rows, T tokens, H hidden size, N scored tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from feldspar.errors import TrainingError
from feldspar.progress import SILENT, Progress
from feldspar.student.batch import collate
from feldspar.student.head import score_targets
from feldspar.student.model import Student
from feldspar.student.schedule import micro_batches

_TOKENS_PER_BATCH = 1 << 14


class Tree(NamedTuple):
    """Ids of a prompt, and of what may follow it: each continuation goes on from the prompt."""

    prompt: Sequence[int]
    continuations: Sequence[Sequence[int]]


class ContinuationScore(NamedTuple):
    """Sum of the log-probabilities of a continuation's tokens, in nats, and how many there are."""

    total: float
    num_tokens: int
    greedy: bool
    """Whether every token was the likeliest where it stands."""


def score_trees(
    student: Student, trees: Sequence[Tree], progress: Progress = SILENT
) -> list[list[ContinuationScore]]:
    """Score every continuation of every tree, in their order, in float32 log-softmax.

    An empty continuation scores 0 over 0 tokens, and is greedy. Raises TrainingError for a
    continuation of an empty prompt: nothing stands before its first token.
    """
    rows = [_row(tree.prompt, ids) for tree in trees for ids in tree.continuations]
    lengths = np.array([len(row.ids) for row in rows], dtype=np.int64)
    totals, greedy = np.zeros(len(rows)), np.ones(len(rows), dtype=np.bool_)
    groups = micro_batches(np.arange(len(rows)), lengths, _TOKENS_PER_BATCH)
    with progress.task("log-probabilities", len(rows), "answers") as task:
        for group in groups:
            _score(student, [rows[i] for i in group], group, totals, greedy)
            task.advance(len(group))
    scored = iter(
        ContinuationScore(float(total), int(row.mask.sum()), bool(best))
        for total, row, best in zip(totals, rows, greedy, strict=True)
    )
    return [[next(scored) for _ in tree.continuations] for tree in trees]


class _Row(NamedTuple):
    ids: NDArray[np.int32]
    mask: NDArray[np.bool_]


def _row(prompt: Sequence[int], continuation: Sequence[int]) -> _Row:
    if continuation and not prompt:
        raise TrainingError("a continuation of an empty prompt cannot be scored; give it a BOS")
    ids = np.array([*prompt, *continuation], dtype=np.int32)
    return _Row(ids, np.arange(len(ids)) >= len(prompt))


def _score(
    student: Student,
    rows: Sequence[_Row],
    numbers: NDArray[np.int64],
    totals: NDArray[np.float64],
    greedy: NDArray[np.bool_],
) -> None:
    """Score rows into the places `numbers` of `totals` and `greedy`."""
    batch = collate([r.ids for r in rows], [r.mask for r in rows], student.template.pad_id)
    ids_BT = torch.from_numpy(batch.ids_BT).to(student.device)
    positions_N = torch.from_numpy(batch.positions_N).to(student.device)
    targets_N = torch.from_numpy(batch.targets_N).to(student.device)
    with torch.inference_mode(), student.computing():
        hidden_NH = student.hidden_states(ids_BT).flatten(0, 1).index_select(0, positions_N)
        scores = score_targets(student.head, hidden_NH, targets_N)
    places_N = numbers[batch.rows_N]
    np.add.at(totals, places_N, scores.log_probs_N.cpu().numpy())
    np.logical_and.at(greedy, places_N, scores.is_best_N.cpu().numpy())
