"""How likely a student finds the continuations of prompts: the one scorer behind rewards, exams and
multiple-choice benchmarks.

Trees whose prompt has several continuations are packed and their prompts computed once
(prefix_attention.py); single continuations, and models whose attention cannot be replaced, are
computed in padded batches.

Shapes: B rows, T tokens, H hidden size, N scored tokens.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feldspar.errors import TrainingError
from feldspar.progress import SILENT, Progress
from feldspar.student.counter_rng import probe_tokens
from feldspar.student.layers import can_compile, layers_run
from feldspar.student.lm_head import score_targets
from feldspar.student.model import Student
from feldspar.student.scoring.prefix_attention import PackedTree, is_replaceable, prefix_attention
from feldspar.student.token_rows import collate
from feldspar.student.training.schedule import micro_batches

log = logging.getLogger(__name__)

_TOKENS_PER_BATCH = 1 << 14
_TOKENS_PER_PACK = 1 << 13


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


class _Piece(NamedTuple):
    """A prompt with some of its continuations, and the numbers of these among all."""

    prompt: Sequence[int]
    continuations: list[Sequence[int]]
    numbers: list[int]

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + sum(map(len, self.continuations))


class _Inputs(NamedTuple):
    """A forward pass, and what is read off it: `owners_N` is the continuation of each target.

    Of the prompt `a b` with the continuations `c d` and `e`, packed:

        ids_BT       a b c      the last token of a continuation predicts nothing and is left out
        places_BT    0 1 2
        positions_N  1 2 1      `b` predicts the first token of each continuation
        targets_N    c d e
        owners_N     0 0 1
    """

    ids_BT: Tensor
    places_BT: Tensor | None
    packed_trees: list[PackedTree]
    positions_N: NDArray[np.int64]
    targets_N: NDArray[np.int64]
    owners_N: NDArray[np.int64]


def score_trees(
    student: Student, trees: Sequence[Tree], progress: Progress = SILENT
) -> list[list[ContinuationScore]]:
    """Score every continuation of every tree, in their order, in float32 log-softmax.

    An empty continuation scores 0 over 0 tokens, and is greedy. Raises TrainingError for a
    continuation of an empty prompt: nothing stands before its first token.
    """
    if any(not tree.prompt and any(tree.continuations) for tree in trees):
        raise TrainingError("a continuation of an empty prompt cannot be scored; give it a BOS")
    counts = [len(ids) for tree in trees for ids in tree.continuations]
    totals, greedy = np.zeros(len(counts)), np.ones(len(counts), dtype=np.bool_)
    with progress.task("log-probabilities", len(counts), "answers") as task:
        for inputs in _all_inputs(student, trees):
            scores = _compute(student, inputs)
            np.add.at(totals, inputs.owners_N, scores[0])
            np.logical_and.at(greedy, inputs.owners_N, scores[1])
            task.advance(len(np.unique(inputs.owners_N)))
    scored = iter(map(ContinuationScore, totals.tolist(), counts, greedy.tolist()))
    return [[next(scored) for _ in tree.continuations] for tree in trees]


def _all_inputs(student: Student, trees: Sequence[Tree]) -> Iterator[_Inputs]:
    pieces = _pieces(trees)
    longest = max((len(p.prompt) + max(map(len, p.continuations)) for p in pieces), default=0)
    if any(len(p.continuations) > 1 for p in pieces) and not _can_pack(student, longest):
        pieces = [
            _Piece(piece.prompt, [ids], [number])
            for piece in pieces
            for ids, number in zip(piece.continuations, piece.numbers, strict=True)
        ]
    for pack in _packs([p for p in pieces if len(p.continuations) > 1]):
        yield _packed(pack, student.device)
    single = [p for p in pieces if len(p.continuations) == 1]
    lengths = np.array([p.num_tokens for p in single], dtype=np.int64)
    for group in micro_batches(np.arange(len(single)), lengths, _TOKENS_PER_BATCH):
        yield _padded([single[i] for i in group], student)


def _pieces(trees: Sequence[Tree]) -> list[_Piece]:
    """Trees without their empty continuations, cut where one is too large for a pack."""
    pieces: list[_Piece] = []
    number = 0
    for tree in trees:
        piece = _Piece(tree.prompt, [], [])
        for ids in tree.continuations:
            if ids and piece.numbers and piece.num_tokens + len(ids) > _TOKENS_PER_PACK:
                pieces.append(piece)
                piece = _Piece(tree.prompt, [], [])
            if ids:
                piece.continuations.append(ids)
                piece.numbers.append(number)
            number += 1
        if piece.numbers:
            pieces.append(piece)
    return pieces


def _packs(pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
    pack: list[_Piece] = []
    num_tokens = 0
    for piece in pieces:
        if pack and num_tokens + piece.num_tokens > _TOKENS_PER_PACK:
            yield pack
            pack, num_tokens = [], 0
        pack.append(piece)
        num_tokens += piece.num_tokens
    if pack:
        yield pack


def _packed(pieces: Sequence[_Piece], device: torch.device) -> _Inputs:
    """Trees end to end, in one row of tokens: see `_Inputs` for an example."""
    ids: list[int] = []
    places: list[int] = []
    packed_trees: list[PackedTree] = []
    positions: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for prompt, continuations, numbers in pieces:
        start, last = len(ids), len(ids) + len(prompt) - 1
        ids += prompt
        places += range(len(prompt))
        for continuation, number in zip(continuations, numbers, strict=True):
            positions += [last, *range(len(ids), len(ids) + len(continuation) - 1)]
            targets += continuation
            owners += [number] * len(continuation)
            ids += continuation[:-1]
            places += range(len(prompt), len(prompt) + len(continuation) - 1)
        lengths = tuple(len(c) - 1 for c in continuations if len(c) > 1)
        packed_trees.append(PackedTree(start, len(prompt), lengths, device))
    return _Inputs(
        ids_BT=torch.tensor([ids], device=device),
        places_BT=torch.tensor([places], device=device),
        packed_trees=packed_trees,
        positions_N=np.array(positions, dtype=np.int64),
        targets_N=np.array(targets, dtype=np.int64),
        owners_N=np.array(owners, dtype=np.int64),
    )


def _padded(pieces: Sequence[_Piece], student: Student) -> _Inputs:
    ids = [np.array([*p.prompt, *p.continuations[0]], dtype=np.int32) for p in pieces]
    masks = [np.arange(len(i)) >= len(p.prompt) for i, p in zip(ids, pieces, strict=True)]
    batch = collate(ids, masks, student.template.pad_id)
    return _Inputs(
        ids_BT=torch.from_numpy(batch.ids_BT).to(student.device),
        places_BT=None,
        packed_trees=[],
        positions_N=batch.positions_N,
        targets_N=batch.targets_N,
        owners_N=np.array([p.numbers[0] for p in pieces])[batch.rows_N],
    )


def _compute(student: Student, inputs: _Inputs) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    positions_N = torch.from_numpy(inputs.positions_N).to(student.device)
    targets_N = torch.from_numpy(inputs.targets_N).to(student.device)
    with torch.inference_mode(), student.computing():
        hidden_NH = _hidden(student, inputs).flatten(0, 1).index_select(0, positions_N)
        scores = score_targets(student.head, hidden_NH, targets_N)
    return scores.log_probs_N.cpu().numpy(), scores.is_best_N.cpu().numpy()


def _hidden(student: Student, inputs: _Inputs) -> Tensor:
    if inputs.places_BT is None:
        return student.hidden_states(inputs.ids_BT)
    is_compiled = student.compile is True and can_compile()
    with (
        prefix_attention(student.model, inputs.packed_trees, traced=not is_compiled),
        layers_run(student.model, compiled=is_compiled),
    ):
        hidden: Tensor = student.model.base_model(
            input_ids=inputs.ids_BT, position_ids=inputs.places_BT, use_cache=False
        ).last_hidden_state
    return hidden


_tried: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def _can_pack(student: Student, longest: int) -> bool:
    """Whether a pack gives what single rows give: by the model's configuration, and tried once."""
    if not is_replaceable(student.model, longest):
        return False
    if student.model not in _tried:
        _tried[student.model] = _packs_alike(student)
        if not _tried[student.model]:
            log.info("%s: answers to a prompt are computed apart", type(student.model).__name__)
    return _tried[student.model]


def _packs_alike(student: Student) -> bool:
    tolerance = 1e-3 if student.dtype == torch.float32 else 5e-2
    draws = probe_tokens(student.model.config.get_text_config().vocab_size)
    return any(_packing_moves(student, ids) <= tolerance for ids in draws)


def _packing_moves(student: Student, ids: Sequence[int]) -> float:
    """How far a pack of a prompt with two continuations is from rows of their own, as a part of
    these; infinite where the model cannot be packed."""
    prompt, continuations = ids[:4], (ids[4:7], ids[7:9])
    piece = _Piece(prompt, list(continuations), [0, 1])
    inputs = _packed([piece], student.device)
    singles = _padded([_Piece(prompt, [c], [i]) for i, c in enumerate(continuations)], student)
    with torch.inference_mode(), student.computing():
        try:
            found = _hidden(student, inputs).flatten(0, 1)[inputs.positions_N].float()
        except (TypeError, ValueError, RuntimeError):
            return math.inf
        expected = _hidden(student, singles).flatten(0, 1)[singles.positions_N].float()
    return float((found - expected).norm() / expected.norm())
