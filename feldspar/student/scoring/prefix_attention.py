"""Attention over packed trees: a prompt's keys are read once for all that follows it.

A pack is one row of tokens, `[prompt | c1 | c2 | .. | prompt | c1 | ..]`, in which each
continuation stands at the positions after its prompt. Its tokens look at the prompt and at what
came before them in their own continuation; the two parts are computed apart and merged by their
log-sum-exp, which is what one softmax over both would give.

Shapes: A heads, K key heads, T tokens of the pack, D head size, C continuations, L their longest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface

from feldspar.student.attention import attending_by
from feldspar.student.layers import untraced

_NAME = "feldspar_tree"


@dataclass(frozen=True)
class TreeBlock:
    """Where one tree lies in its pack, and how long its continuations are, each at least 1."""

    start: int
    num_prompt: int
    lengths: tuple[int, ...]
    device: torch.device

    @property
    def num_continued(self) -> int:
        return sum(self.lengths)

    @cached_property
    def side_by_side(self) -> SideBySide:
        """For all layers."""
        within = torch.arange(max(self.lengths))[None]
        lengths_C = torch.tensor(self.lengths, dtype=torch.int64)[:, None]
        starts_C = lengths_C.cumsum(0) - lengths_C
        is_there = within < lengths_C
        index_CL = torch.where(is_there, starts_C + within, 0)
        places = is_there.flatten().nonzero()[:, 0]
        return SideBySide(index_CL.to(self.device), places.to(self.device))


class SideBySide(NamedTuple):
    """Continuations padded to one length."""

    index_CL: Tensor
    """Which of the tree's continuation tokens stands where; padding repeats the first."""
    places: Tensor
    """Where each continuation token stands in the flattened [C * L]."""


class Attended(NamedTuple):
    """Outputs [.., A, T, D], and the log-sum-exp [.., A, T] of the scores behind them."""

    out: Tensor
    lse: Tensor


_blocks: ContextVar[Sequence[TreeBlock]] = ContextVar("blocks of the pack being computed")


@contextmanager
def attending(model: Any, blocks: Sequence[TreeBlock], *, traced: bool = True) -> Iterator[None]:
    """Within it, the model's attention is that of the pack that `blocks` describe.

    Layers that are compiled need it not `traced`.
    """
    token = _blocks.set(blocks)
    try:
        with attending_by(model, _NAME if traced else untraced(_NAME)):
            yield
    finally:
        _blocks.reset(token)


def is_replaceable(model: Any, longest: int) -> bool:
    """Whether the model lets its attention be replaced by a plain causal one over `longest`."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    chunk = getattr(config, "attention_chunk_size", None)
    capped = getattr(config, "attn_logit_softcapping", None)
    return bool(
        model._can_set_attn_implementation()
        and capped is None
        and all(size is None or longest <= size for size in (window, chunk))
    )


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """A transformers attention function: [1, A or K, T, D] in, [1, T, A, D] out."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = torch.empty_like(query)
    for block in _blocks.get():
        cut = slice(block.start, block.start + block.num_prompt)
        end = cut.stop + block.num_continued
        prompt = _attend(query[:, :, cut], key[:, :, cut], value[:, :, cut], scale, causal=True)
        out[:, :, cut] = prompt.out
        if block.num_continued:
            rest = [tensor[:, :, cut.stop : end] for tensor in (query, key, value)]
            seen = _attend_all(rest[0], key[:, :, cut], value[:, :, cut], scale)
            alone = _each if query.device.type == "cpu" else _side_by_side
            out[:, :, cut.stop : end] = _merged(seen, alone(block, rest, scale))
    return out.transpose(1, 2), None


def _each(block: TreeBlock, rest: Sequence[Tensor], scale: float) -> Attended:
    """Each continuation's attention to itself, one after the other: nothing is padded or moved."""
    parts = zip(*(torch.split(x, list(block.lengths), dim=2) for x in rest), strict=True)
    found = [_attend(query, key, value, scale, causal=True) for query, key, value in parts]
    return Attended(
        torch.cat([part.out for part in found], dim=2),
        torch.cat([part.lse for part in found], dim=2),
    )


def _side_by_side(block: TreeBlock, rest: Sequence[Tensor], scale: float) -> Attended:
    """The same in one call, for devices that calls keep waiting: padded on the right."""
    index_CL, places = block.side_by_side
    num, longest = index_CL.shape
    index = index_CL.flatten()
    query, key, value = (
        tensor[0].index_select(1, index).view(tensor.shape[1], num, longest, -1).transpose(0, 1)
        for tensor in rest
    )
    found = _attend(query, key, value, scale, causal=True)
    out = found.out.transpose(0, 1).flatten(1, 2).index_select(1, places)
    lse = found.lse.transpose(0, 1).flatten(1, 2).index_select(1, places)
    return Attended(out[None], lse[None])


def _merged(first: Attended, second: Attended) -> Tensor:
    share = torch.sigmoid(first.lse - second.lse)[..., None]
    return torch.lerp(second.out, first.out, share.to(first.out.dtype))


def _attend_all(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Attended:
    """Every query looks at every key. Queries of one key head are laid end to end."""
    num_heads, num_queries = query.shape[1:3]
    num_keys = key.shape[1]
    grouped = query.reshape(len(query), num_keys, -1, query.shape[-1])
    out, lse = _attend(grouped, key, value, scale, causal=False)
    return Attended(
        out.reshape(len(query), num_heads, num_queries, -1),
        lse.reshape(len(query), num_heads, num_queries),
    )


def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float, *, causal: bool) -> Attended:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    if query.device.type == "cpu" and value.shape[-1] == query.shape[-1]:
        return Attended(
            *torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query, key, value, 0.0, causal, scale=scale
            )
        )
    return _attend_plainly(query, key, value, scale, causal)


def _attend_plainly(
    query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool
) -> Attended:
    """Scores whole, for devices whose kernels do not give their log-sum-exp."""
    scores = (query @ key.transpose(-1, -2)).float() * scale
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores.masked_fill_(later, float("-inf"))
    lse = scores.logsumexp(dim=-1)
    weights = (scores - lse[..., None]).exp().to(value.dtype)
    return Attended(weights @ value, lse)


AttentionInterface.register(_NAME, _attention)
