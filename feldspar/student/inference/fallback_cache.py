"""Rows of any model, with the cache that the model makes for itself: those that began together are
computed together. Slower than `KVCache`, and right wherever transformers' own generation is.

Shapes: P prompts, R rows, T tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from feldspar.student.model import Student


class FallbackCache:
    """Prompts padded on the left, with one row or several each."""

    def __init__(
        self, student: Student, prompts: Sequence[Sequence[int]], num_rows: Sequence[int]
    ) -> None:
        width = max(map(len, prompts))
        ids_PT = np.full((len(prompts), width), student.template.pad_id, dtype=np.int64)
        mask_PT = np.zeros_like(ids_PT)
        for row, ids in enumerate(prompts):
            ids_PT[row, width - len(ids) :] = ids
            mask_PT[row, width - len(ids) :] = 1
        self._student = student
        mask = torch.from_numpy(mask_PT).to(student.device)
        output = student.model.base_model(
            input_ids=torch.from_numpy(ids_PT).to(student.device),
            attention_mask=mask,
            # Padding on the left moves no real token: the first one of each row is at position 0.
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
            use_cache=True,
        )
        self._cache = output.past_key_values
        self.hidden_PH: Tensor = output.last_hidden_state[:, -1]
        index = torch.repeat_interleave(torch.tensor(num_rows)).to(student.device)
        if len(index) > len(prompts):
            select_rows(self._cache, index, len(prompts))
        self._mask_RT = mask[index]
        self._places_R = self._mask_RT.sum(dim=1)

    @torch.inference_mode()
    def keep(self, kept: Sequence[int]) -> None:
        """Go on with these rows only."""
        index = torch.tensor(kept, device=self._student.device)
        select_rows(self._cache, index, len(self._places_R))
        self._mask_RT = self._mask_RT[index]
        self._places_R = self._places_R[index]

    def advance(self, tokens: Sequence[int]) -> Tensor:
        """Compute one token more of each row; hidden states [R, H]."""
        seen = self._mask_RT.new_ones((len(tokens), 1))
        self._mask_RT = torch.cat([self._mask_RT, seen], dim=1)
        output = self._student.model.base_model(
            input_ids=torch.tensor(tokens, device=self._student.device)[:, None],
            attention_mask=self._mask_RT,
            position_ids=self._places_R[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        self._places_R = self._places_R + 1
        hidden: Tensor = output.last_hidden_state[:, -1]
        return hidden


def select_rows(cache: Any, index: Tensor, num_rows: int) -> None:
    """Take rows of a cache by number, those of recurrent layers among them: their states, which
    know no way to be chosen from, are tensors with a place for each row."""
    for layer in cache.layers:
        if hasattr(layer, "batch_select_indices"):
            layer.batch_select_indices(index)
            continue
        for name, value in vars(layer).items():
            setattr(layer, name, _rows_of(value, index, num_rows))


def _rows_of(value: Any, index: Tensor, num_rows: int) -> Any:
    if isinstance(value, Tensor) and value.ndim and len(value) == num_rows:
        return value[index.to(value.device)]
    if isinstance(value, dict):
        return {key: _rows_of(one, index, num_rows) for key, one in value.items()}
    if isinstance(value, list):
        return [_rows_of(one, index, num_rows) for one in value]
    return value
