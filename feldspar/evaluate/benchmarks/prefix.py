"""Continuations of prompts that all begin alike, such as MMLU's five shots of a subject: what they
have in common is computed once, and the head only where an answer is scored.

Shapes: B rows, T tokens, N scored tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import DynamicCache

from feldspar.progress import SILENT, Progress
from feldspar.student.lm_head import score_targets
from feldspar.student.model import Student
from feldspar.student.scoring.score import ContinuationScore, Tree, score_trees

MIN_PREFIX_TOKENS = 32
"""A shorter common beginning is not worth a cache."""
_BATCH_TOKENS = 1 << 13
"""Keys held at once, each row's copy of the common beginning among them."""


def score_alike(
    student: Student, trees: Sequence[Tree], progress: Progress = SILENT
) -> list[list[ContinuationScore]]:
    """As `score_trees`, to float noise, for trees whose prompts may begin alike."""
    prefix = common_prefix([tree.prompt for tree in trees])
    num_prompt = sum(len(tree.prompt) for tree in trees)
    is_worth_it = len(prefix) >= MIN_PREFIX_TOKENS and 2 * len(prefix) * len(trees) >= num_prompt
    if not is_worth_it or not _caches_all(student):
        return score_trees(student, trees, progress=progress)
    rows = _rows(trees, len(prefix))
    totals = [[ContinuationScore(0.0, 0, True)] * len(tree.continuations) for tree in trees]
    with torch.inference_mode(), student.computing():
        ids_BT = torch.tensor([list(prefix)], device=student.device)
        cache = DynamicCache(config=student.model.config)
        student.model.base_model(input_ids=ids_BT, past_key_values=cache, use_cache=True)
        with progress.task("log-probabilities", len(rows), "prompts") as task:
            for batch in _batches(rows, len(prefix)):
                _score(student, cache, batch, totals)
                task.advance(len(batch))
    return totals


def common_prefix(prompts: Sequence[Sequence[int]]) -> list[int]:
    """What all begin with, one token at least of each left out."""
    if len(prompts) < 2:
        return []
    # What the first and the last in order have in common, all between them have too.
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    shortest = min(len(prompt) for prompt in prompts) - 1
    num = 0
    while num < min(shortest, len(first), len(last)) and first[num] == last[num]:
        num += 1
    return list(first[:num])


class _ScoredRow(NamedTuple):
    """What is computed after the common beginning, and the answers that are read off it.

    Answers of one token are all read where the prompt ends.
    """

    ids: tuple[int, ...]
    answers: list[tuple[int, int, Sequence[int]]]
    """(tree, continuation, its ids)."""


def _rows(trees: Sequence[Tree], num_prefix: int) -> list[_ScoredRow]:
    rows: dict[tuple[int, ...], _ScoredRow] = {}
    for i, tree in enumerate(trees):
        rest = tuple(tree.prompt[num_prefix:])
        for j, ids in enumerate(tree.continuations):
            if ids:
                inputs = (*rest, *ids[:-1])
                rows.setdefault(inputs, _ScoredRow(inputs, [])).answers.append((i, j, ids))
    return sorted(rows.values(), key=lambda row: -len(row.ids))


def _batches(rows: Sequence[_ScoredRow], num_prefix: int) -> list[Sequence[_ScoredRow]]:
    """Rows of like length, as many as the budget of keys holds."""
    batches, start = [], 0
    while start < len(rows):
        taken = max(1, _BATCH_TOKENS // (num_prefix + len(rows[start].ids)))
        batches.append(rows[start : start + taken])
        start += taken
    return batches


def _score(
    student: Student,
    prefix: DynamicCache,
    batch: Sequence[_ScoredRow],
    totals: list[list[ContinuationScore]],
) -> None:
    width = max(len(row.ids) for row in batch)
    ids_BT = np.full((len(batch), width), student.template.pad_id, dtype=np.int64)
    places: list[int] = []
    targets: list[int] = []
    owners: list[tuple[int, int]] = []
    for number, row in enumerate(batch):
        ids_BT[number, : len(row.ids)] = row.ids
        for i, j, ids in row.answers:
            start = number * width + len(row.ids) - len(ids)
            places += range(start, start + len(ids))
            targets += ids
            owners += [(i, j)] * len(ids)
    cache = copy.deepcopy(prefix)
    cache.batch_repeat_interleave(len(batch))
    # No mask: a causal model's tokens do not look at padding that comes after them.
    hidden_BTH = student.model.base_model(
        input_ids=torch.from_numpy(ids_BT).to(student.device),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    hidden_NH = hidden_BTH.flatten(0, 1)[torch.tensor(places, device=student.device)]
    targets_N = torch.tensor(targets, device=student.device)
    scores = score_targets(student.head, hidden_NH, targets_N)
    for (i, j), log_prob, best in zip(
        owners, scores.log_probs_N.tolist(), scores.is_best_N.tolist(), strict=True
    ):
        total, num_tokens, greedy = totals[i][j]
        totals[i][j] = ContinuationScore(total + log_prob, num_tokens + 1, greedy and bool(best))


def _caches_all(student: Student) -> bool:
    """Whether every layer keeps the keys and values of all that it has seen."""
    config: Any = student.model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    has_window = getattr(config, "sliding_window", None) is not None
    return set(kinds) == {"full_attention"} and not has_window
