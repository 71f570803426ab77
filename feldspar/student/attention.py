"""Causal attention inside each row of a packed micro-batch, never across their boundaries.

Boundaries come from our own batch, as a keyword that transformers hands through to its attention
function; there is never an attention mask (transformers leaks across packed rows without a word
when it is given one).

Shapes: T tokens, S rows, A heads, K key-value heads, D head size.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from feldspar.errors import TrainingError
from feldspar.student.short_rows import LONGEST, RowGroup, group_rows, short_row_attention

NAME = "feldspar_packed"
"""Of the attention function, where transformers looks for it."""

_NOT_KNOWN = ("softcap", "s_aux", "position_bias")
"""What some families want of attention and this one does not do."""


@dataclass(slots=True)
class Boundaries:
    """Where the rows of a packed micro-batch end."""

    # Neither a tuple nor frozen: into those the compiler looks, to compile anew for each number of
    # rows.
    lengths: tuple[int, ...]
    starts: Tensor
    """Where each row starts, and the end: int32 [S + 1] on the device."""
    num_shared: int = 0
    """Tokens of the first row that stand before each row that is `sharing`."""
    sharing: tuple[bool, ...] = ()

    _groups: list[RowGroup] | None = None

    @property
    def longest(self) -> int:
        """With what stands before it."""
        sharing = [n for n, shares in zip(self.lengths, self.sharing, strict=False) if shares]
        return max(*self.lengths, self.num_shared + max(sharing, default=0))

    @property
    def groups(self) -> list[RowGroup]:
        """Short rows that are computed together: the same for every layer."""
        if self._groups is None:
            self._groups = group_rows(self.lengths, self.num_shared, self.sharing)
        return self._groups


@contextmanager
def attending_by(model: Any, name: str) -> Iterator[None]:
    """Within it, the model attends by the function that transformers knows under `name`."""
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    boundaries: Boundaries | None = None,
    **model_inputs: Any,
) -> tuple[Tensor, None]:
    """Attention [1, T, A, D] of packed rows, in the form transformers asks for.

    `query` is [1, A, T, D], `key` and `value` [1, K, T, D]. Raises TrainingError for what it would
    have to leave out.
    """
    unknown = [name for name in _NOT_KNOWN if model_inputs.get(name) is not None]
    if boundaries is None or attention_mask is not None or dropout or unknown:
        what = ", ".join(unknown) or "other boundaries"
        raise TrainingError(
            f"{type(module).__name__} asks attention for {what}, which packed rows do not have; "
            "set train.packing = false"
        )
    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        query, key, value = (x.to(torch.get_autocast_dtype(kind)) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = sliding_window if sliding_window and boundaries.longest > sliding_window else None
    is_grouped = query.device.type == "cpu" and query.dtype != torch.float32 and window is None
    assert is_grouped or not boundaries.num_shared, "only groups of short rows share a beginning"
    if query.is_cuda and query.dtype != torch.float32:
        return _varlen(query, key, value, boundaries, scale, window), None
    short: Tensor | None = None
    if is_grouped:
        short = short_row_attention(query, key, value, boundaries.groups, scale)
        if boundaries.longest <= LONGEST:
            return short, None
    if key.shape[1] != query.shape[1]:
        repeats = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(repeats, dim=1) for x in (key, value))
    rows = zip(*(_by_row(x, boundaries, dim=2) for x in (query, key, value)), strict=True)
    computed: Sequence[Tensor | None] = [None] * len(boundaries.lengths)
    if short is not None:
        computed = _by_row(short, boundaries, dim=1)
    outputs = [
        _one_row(q, k, v, scale, window) if found is None or found.shape[1] > LONGEST else found
        for (q, k, v), found in zip(rows, computed, strict=True)
    ]
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(NAME, packed_attention)


def _varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Boundaries,
    scale: float,
    window: int | None,
) -> Tensor:
    # Its keywords grew from torch 2.10 to 2.13.
    from torch.nn.attention.varlen import varlen_attn

    knows = inspect.signature(varlen_attn).parameters
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    keywords: dict[str, Any] = {}
    if "enable_gqa" in knows:
        keywords["enable_gqa"] = key.shape[1] != query.shape[1]
    elif key.shape[1] != query.shape[1]:
        repeats = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(repeats, dim=1) for x in (key, value))
    if "scale" in knows:
        keywords["scale"] = scale
    else:
        query = query * (scale * query.shape[-1] ** 0.5)
    if "window_size" in knows:
        keywords["window_size"] = (-1 if window is None else window - 1, 0)
    elif window is not None:
        raise TrainingError(
            f"rows longer than the model's sliding window of {window} tokens need torch 2.11; "
            "upgrade it, lower student.max_length, or set train.packing = false"
        )
    if "is_causal" in knows:
        keywords["is_causal"] = True
    longest = boundaries.longest
    output = varlen_attn(
        query, key, value, boundaries.starts, boundaries.starts, longest, longest, **keywords
    )
    assert isinstance(output, Tensor)
    return output[None]


def _by_row(packed: Tensor, boundaries: Boundaries, dim: int) -> Sequence[Tensor]:
    return torch.split(packed, list(boundaries.lengths), dim)


def _one_row(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
    """[1, length, A, D]."""
    length = query.shape[2]
    mask = _band(length, window, query) if window is not None and length > window else None
    found = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale
    )
    return found.transpose(1, 2)


def _band(length: int, window: int, like: Tensor) -> Tensor:
    """What is added to scores: nothing where a token sees another, else minus infinity."""
    seen = torch.ones(length, length, dtype=torch.bool, device=like.device)
    seen = seen.tril() & seen.triu(1 - window)
    return torch.zeros_like(seen, dtype=like.dtype).masked_fill_(~seen, float("-inf"))
