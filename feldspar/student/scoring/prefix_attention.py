"""Prefix attention over packed trees: a prompt's keys are read once for all that follows it.

A pack is one row of tokens, `[prompt | c1 | c2 | .. | prompt | c1 | ..]`, in which each
continuation stands at the positions after its prompt. Its tokens look at the prompt and at what
came before them in their own continuation:

                 prompt   c1    c2
        prompt   causal   .     .
        c1       all    causal  .         one call for both "all", one causal call for each rest
        c2       all      .   causal

The two parts of a continuation's row are computed apart, each with the log-sum-exp of its scores,
and merged. That is what one softmax over both gives: with a and b the log-sum-exps, the parts'
shares are e^a / (e^a + e^b) = sigmoid(a - b), and 1 - that.

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

_NAME = "feldspar_prefix"


@dataclass(frozen=True)
class PackedTree:
    """Where one tree lies in its pack, and how long its continuations are, each at least 1."""

    start: int
    num_prompt: int
    lengths: tuple[int, ...]
    device: torch.device

    @property
    def num_continued(self) -> int:
        return sum(self.lengths)

    @cached_property
    def side_by_side(self) -> PaddedContinuations:
        """Where continuations stand when padded to one length: the same for all layers."""
        within = torch.arange(max(self.lengths))[None]
        lengths_C = torch.tensor(self.lengths, dtype=torch.int64)[:, None]
        starts_C = lengths_C.cumsum(0) - lengths_C
        is_there = within < lengths_C
        index_CL = torch.where(is_there, starts_C + within, 0)
        places = is_there.flatten().nonzero()[:, 0]
        return PaddedContinuations(index_CL.to(self.device), places.to(self.device))


class PaddedContinuations(NamedTuple):
    """Continuations padded to one length."""

    index_CL: Tensor
    """Which of the tree's continuation tokens stands where; padding repeats the first."""
    places: Tensor
    """Where each continuation token stands in the flattened [C * L]."""


class PartialAttention(NamedTuple):
    """Outputs [.., A, T, D], and the log-sum-exp [.., A, T] of the scores behind them."""

    out: Tensor
    lse: Tensor


_packed_trees: ContextVar[Sequence[PackedTree]] = ContextVar("trees of the pack being computed")


@contextmanager
def prefix_attention(
    model: Any, blocks: Sequence[PackedTree], *, traced: bool = True
) -> Iterator[None]:
    """Within it, the model's attention is that of the pack that `blocks` describe.

    Layers that are compiled need it not `traced`.
    """
    token = _packed_trees.set(blocks)
    try:
        with attending_by(model, _NAME if traced else untraced(_NAME)):
            yield
    finally:
        _packed_trees.reset(token)


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
    for block in _packed_trees.get():
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


def _each(block: PackedTree, rest: Sequence[Tensor], scale: float) -> PartialAttention:
    """Each continuation's attention to itself, one after the other: nothing is padded or moved."""
    parts = zip(*(torch.split(x, list(block.lengths), dim=2) for x in rest), strict=True)
    found = [_attend(query, key, value, scale, causal=True) for query, key, value in parts]
    return PartialAttention(
        torch.cat([part.out for part in found], dim=2),
        torch.cat([part.lse for part in found], dim=2),
    )


def _side_by_side(block: PackedTree, rest: Sequence[Tensor], scale: float) -> PartialAttention:
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
    return PartialAttention(out[None], lse[None])


def _merged(first: PartialAttention, second: PartialAttention) -> Tensor:
    share = torch.sigmoid(first.lse - second.lse)[..., None]
    return torch.lerp(second.out, first.out, share.to(first.out.dtype))


def _attend_all(query: Tensor, key: Tensor, value: Tensor, scale: float) -> PartialAttention:
    """Every query looks at every key."""
    # The G query heads of a key head go end to end, [1, A, T, D] -> [1, K, G * T, D]: without a
    # causal mask the order of queries does not matter, and keys need not be repeated G times.
    num_heads, num_queries = query.shape[1:3]
    num_keys = key.shape[1]
    grouped = query.reshape(len(query), num_keys, -1, query.shape[-1])
    out, lse = _attend(grouped, key, value, scale, causal=False)
    return PartialAttention(
        out.reshape(len(query), num_heads, num_queries, -1),
        lse.reshape(len(query), num_heads, num_queries),
    )


def _attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float, *, causal: bool
) -> PartialAttention:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    # The public function does not give the log-sum-exp; on a CPU its own kernel does.
    if query.device.type == "cpu" and value.shape[-1] == query.shape[-1]:
        return PartialAttention(
            *torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query, key, value, 0.0, causal, scale=scale
            )
        )
    return _attend_plainly(query, key, value, scale, causal)


def _attend_plainly(
    query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool
) -> PartialAttention:
    """Scores whole, for devices whose kernels do not give their log-sum-exp."""
    scores = (query @ key.transpose(-1, -2)).float() * scale
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores.masked_fill_(later, float("-inf"))
    lse = scores.logsumexp(dim=-1)
    weights = (scores - lse[..., None]).exp().to(value.dtype)
    return PartialAttention(weights @ value, lse)


AttentionInterface.register(_NAME, _attention)
