"""Answers drawn from a student, in batches, with random numbers that know nothing of the batch.

Shapes: P prompts, R rows (prompts times answers), T tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feldspar.progress import SILENT, Progress, Task
from feldspar.records import Message
from feldspar.student.counter import key_of, uniforms
from feldspar.student.model import Student

_TOKENS_PER_BATCH = 1 << 15
_COMPACT_BELOW = 0.75
"""Finished rows are taken out once less than this part of the rows goes on."""


class Sampled(NamedTuple):
    """An answer as text, whether it came to its stop token, and its tokens with that one."""

    text: str
    ended: bool
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    num_answers: int
    temperature: float
    max_new_tokens: int


def sample_answers(
    student: Student,
    prompts: Sequence[Sequence[Message]],
    *,
    keys: Sequence[str],
    num_answers: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int,
    seed: int,
    progress: Progress = SILENT,
) -> list[list[Sampled]]:
    """`num_answers` answers to each prompt, in the prompts' order. Temperature 0: the likeliest.

    Every draw is a function of (seed, key, answer number, token number), so answers do not depend
    on what else is in the batch, up to float noise.
    """
    ids = [student.template.render_prompt(messages) for messages in prompts]
    # The likeliest answer is the same every time: find it once.
    num_drawn = num_answers if temperature > 0 else 1
    options = _Options(
        num_answers=num_drawn, temperature=temperature, max_new_tokens=max_new_tokens
    )
    with progress.task("answers", len(prompts), "prompts") as task:
        drawn = _draw_all(student, ids, keys, seed, options, task)
        return [_to_text(student, own) * (num_answers // num_drawn) for own in drawn]


def sample_questions(
    student: Student,
    *,
    keys: Sequence[str],
    temperature: float,
    max_new_tokens: int,
    seed: int,
    progress: Progress = SILENT,
) -> list[str]:
    """What a student writes as a user's turn, one question a key, with nothing given.

    A question ends where any special token comes, and may be empty.
    """
    template = student.template
    options = _Options(num_answers=1, temperature=temperature, max_new_tokens=max_new_tokens)
    openings = [template.render_opening()] * len(keys)
    with progress.task("questions", len(keys), "questions") as task:
        drawn = _draw_all(student, openings, keys, seed, options, task)
    ids = [list(takewhile(lambda i: i not in template.special_ids, own)) for (own,) in drawn]
    return [text.strip() for text in template.decode_answers(ids)]


def _draw_all(
    student: Student,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[str],
    seed: int,
    options: _Options,
    task: Task,
) -> list[list[list[int]]]:
    """Ids of every prompt's answers, in the prompts' order."""
    answers: list[list[list[int]]] = [[] for _ in prompts]
    num_drawn = options.num_answers
    for group in _groups(prompts, options):
        row_keys = [key_of(seed, keys[i], draw) for i in group for draw in range(num_drawn)]
        drawn = _draw(student, [prompts[i] for i in group], _to_array(row_keys), options)
        for place, i in enumerate(group):
            answers[i] = drawn[place * num_drawn : (place + 1) * num_drawn]
        task.advance(len(group))
    return answers


def _groups(ids: Sequence[Sequence[int]], options: _Options) -> Iterator[list[int]]:
    """Prompts of like length, longest first, as many as the token budget holds."""
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    start = 0
    while start < len(order):
        tokens = (len(ids[order[start]]) + options.max_new_tokens) * options.num_answers
        taken = max(1, _TOKENS_PER_BATCH // tokens)
        yield order[start : start + taken]
        start += taken


def _draw(
    student: Student,
    prompts: Sequence[Sequence[int]],
    keys_R: NDArray[np.uint64],
    options: _Options,
) -> list[list[int]]:
    """Ids of each row's answer, its stop token last when it ended. Prompts are computed once."""
    stop_id = student.template.stop_id
    head = student.head
    answers_RT = np.full((len(keys_R), options.max_new_tokens), stop_id, dtype=np.int64)
    going = np.arange(len(keys_R))
    ended = np.zeros(len(keys_R), dtype=np.bool_)
    with torch.inference_mode(), student.computing():
        state = _State(student, prompts, options.num_answers)
        for step in range(options.max_new_tokens):
            numbers_R = uniforms(keys_R[going], step)
            chosen_R = _choose(head.logits(state.hidden_RH), options.temperature, numbers_R)
            tokens_R = np.where(ended[going], stop_id, chosen_R.cpu().numpy())
            answers_RT[going, step] = tokens_R
            ended[going] = tokens_R == stop_id
            if ended.all() or step + 1 == options.max_new_tokens:
                break
            kept = np.flatnonzero(~ended[going])
            if len(kept) < _COMPACT_BELOW * len(going):
                going = going[kept]
                index_R = torch.from_numpy(kept).to(student.device)
                state.keep(index_R)
                chosen_R = chosen_R[index_R]
            state.advance(chosen_R)
    return [_cut(row, stop_id) for row in answers_RT.tolist()]


class _State:
    """Keys and values of all rows so far (prompts padded on the left), and last hidden states."""

    def __init__(self, student: Student, prompts: Sequence[Sequence[int]], repeats: int) -> None:
        width = max(map(len, prompts))
        ids_PT = np.full((len(prompts), width), student.template.pad_id, dtype=np.int64)
        mask_PT = np.zeros_like(ids_PT)
        for row, ids in enumerate(prompts):
            ids_PT[row, width - len(ids) :] = ids
            mask_PT[row, width - len(ids) :] = 1
        self._model = student.model.base_model
        self._mask_RT = torch.from_numpy(mask_PT).to(student.device)
        self._places_R = self._mask_RT.sum(dim=1)
        places_PT = (self._mask_RT.cumsum(dim=1) - 1).clamp(min=0)
        output = self._model(
            input_ids=torch.from_numpy(ids_PT).to(student.device),
            attention_mask=self._mask_RT,
            position_ids=places_PT,
            use_cache=True,
        )
        self._cache = output.past_key_values
        self.hidden_RH: Tensor = output.last_hidden_state[:, -1]
        if repeats > 1:
            self._cache.batch_repeat_interleave(repeats)
            self._mask_RT = self._mask_RT.repeat_interleave(repeats, dim=0)
            self._places_R = self._places_R.repeat_interleave(repeats)
            self.hidden_RH = self.hidden_RH.repeat_interleave(repeats, dim=0)

    def keep(self, index_R: Tensor) -> None:
        """Go on with these rows only."""
        self._cache.batch_select_indices(index_R)
        self._mask_RT = self._mask_RT[index_R]
        self._places_R = self._places_R[index_R]

    def advance(self, tokens_R: Tensor) -> None:
        """Compute one token more of each row."""
        seen = self._mask_RT.new_ones((len(tokens_R), 1))
        self._mask_RT = torch.cat([self._mask_RT, seen], dim=1)
        output = self._model(
            input_ids=tokens_R[:, None],
            attention_mask=self._mask_RT,
            position_ids=self._places_R[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        self._places_R = self._places_R + 1
        self.hidden_RH = output.last_hidden_state[:, -1]


def _choose(logits_RV: Tensor, temperature: float, numbers_R: NDArray[np.float64]) -> Tensor:
    """The likeliest token, or the one at which the cumulative distribution passes the number."""
    if temperature == 0:
        return logits_RV.argmax(dim=-1)
    wide = torch.float32 if logits_RV.device.type == "mps" else torch.float64
    scaled_RV = logits_RV / temperature
    # Summed in float64: in float32 the unlikely tokens of a large vocabulary would add nothing.
    sums_RV = (scaled_RV - scaled_RV.amax(-1, keepdim=True)).exp_().cumsum(-1, dtype=wide)
    numbers = torch.from_numpy(numbers_R).to(logits_RV.device, wide)[:, None] * sums_RV[:, -1:]
    return torch.searchsorted(sums_RV, numbers, right=True)[:, 0].clamp(max=sums_RV.shape[1] - 1)


def _cut(ids: list[int], stop_id: int) -> list[int]:
    return ids[: ids.index(stop_id) + 1] if stop_id in ids else ids


def _to_array(keys: Sequence[int]) -> NDArray[np.uint64]:
    return np.array(keys, dtype=np.uint64)


def _to_text(student: Student, drawn: Sequence[list[int]]) -> list[Sampled]:
    stop_id = student.template.stop_id
    texts = student.template.decode_answers(drawn)
    return [
        Sampled(text, ids[-1] == stop_id, len(ids)) for text, ids in zip(texts, drawn, strict=True)
    ]
