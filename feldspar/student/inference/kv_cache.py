"""The key-value cache of rows that come and go: each row's own part, and prompts that rows share.

A row attends to one or two *segments*: its own, which grows by a token a step, and that of a prompt
of which several answers are drawn, computed and read once for all of them (prefix attention, also
called cascade attention). A pool holds the segments of up to one width side by side, without gaps;
a segment that outgrows its pool moves to one of twice the width. So rows join and leave between any
two steps.

    pool of width 64      [ row a | row c | row f |  free ]     each row's own answer so far
    pool of width 128     [ row b | free ..               ]     an answer that outgrew 64 tokens
    prompt pool of 256    [ prompt of a, c | prompt of f  ]     read once for all rows of a prompt

Shapes: R rows, S segments of a pool, P prompts, N rows of a prompt, T tokens, H heads, K heads of
keys and values, G = H / K, D head size, L layers. Pools are [2 L, S, K, T, D], keys before values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import DynamicLayer

from feldspar.student.attention import attending_by
from feldspar.student.model import Student
from feldspar.student.training.packing import num_alike

IMPLEMENTATION = "feldspar_kv_cache"
_LEAST_SHARED = 8
"""Tokens at the beginning of all prompts that are worth a forward pass of their own."""
_LEAST_WIDTH = 64
_LEAST_SEGMENTS = 8


@dataclass(eq=False, slots=True)
class CacheSegment:
    """Keys and values of `length` tokens, at `slot` of the pool of its width."""

    length: int
    width: int = 0
    slot: int = 0
    prefix: CacheSegment | None = None
    """The shared segment of the prompt; a prompt's own has none."""
    num_rows: int = 1
    """Of a prompt's segment: rows that still attend to it."""

    @property
    def position(self) -> int:
        """Of the token that comes next."""
        return self.length + (self.prefix.length if self.prefix else 0)


class UnsupportedAttention(Exception):
    """The model's attention does something that this cache does not know."""


class KVCache:
    """All rows under way, in the order of `rows`."""

    def __init__(self, student: Student) -> None:
        self._student = student
        self._model = student.model.base_model
        self._own_pools: dict[int, _SegmentPool] = {}
        self._prompt_pools: dict[int, _SegmentPool] = {}

    @property
    def rows(self) -> list[CacheSegment]:
        return [row for _, pool in sorted(self._own_pools.items()) for row in pool.segments]

    def prefill(
        self, prompts: Sequence[Sequence[int]], *, least_shared: int = _LEAST_SHARED
    ) -> tuple[Tensor, Tensor]:
        """Last hidden states [P, H] of prompts, and their keys and values [2 L, P, K, T, D].

        What all of them begin with, from `least_shared` tokens on, is computed once.
        """
        rows = [np.asarray(ids) for ids in prompts]
        num_shared = min((num_alike(rows[0], row) for row in rows[1:]), default=0)
        if num_shared < least_shared:
            num_shared = 0
        cache = self._begun(rows[0][:num_shared], len(rows)) if num_shared else DynamicCache()
        lengths = np.array([len(row) - num_shared for row in rows])
        ids_PT = np.full((len(rows), lengths.max()), self._student.template.pad_id)
        for place, row in enumerate(rows):
            ids_PT[place, : lengths[place]] = row[num_shared:]
        device = self._student.device
        # Padded on the right: a causal model's tokens do not see what comes after them.
        output = self._model(
            input_ids=torch.from_numpy(ids_PT).to(device), past_key_values=cache, use_cache=True
        )
        layers = _plain_layers(output.past_key_values)
        keys_values = torch.stack(
            [tensor for each in layers for tensor in (each.keys, each.values)]
        )
        hidden_PH = output.last_hidden_state[
            torch.arange(len(rows), device=device), torch.from_numpy(lengths - 1).to(device)
        ]
        return hidden_PH, keys_values

    def _begun(self, ids: NDArray[np.integer[Any]], num_rows: int) -> DynamicCache:
        """Keys and values of what `num_rows` prompts begin with."""
        cache = DynamicCache()
        begin = torch.from_numpy(ids.astype(np.int64)).to(self._student.device)[None]
        self._model(input_ids=begin, past_key_values=cache, use_cache=True)
        for layer in _plain_layers(cache):
            layer.keys, layer.values = (
                x.expand(num_rows, -1, -1, -1) for x in (layer.keys, layer.values)
            )
        return cache

    def add_rows(self, keys_values: Tensor, length: int, num_rows: int) -> list[CacheSegment]:
        """Let rows begin after a prompt: its keys and values [2 L, K, T, D], `length` of T."""
        if num_rows == 1:
            row = CacheSegment(length)
            self._put(self._own_pools, [row], length + 1)
            self._own_pools[row.width].write(row, keys_values)
            return [row]
        prompt = CacheSegment(length, num_rows=num_rows)
        self._put(self._prompt_pools, [prompt], length)
        self._prompt_pools[prompt.width].write(prompt, keys_values)
        rows = [CacheSegment(0, prefix=prompt) for _ in range(num_rows)]
        self._put(self._own_pools, rows, 1, like=keys_values)
        return rows

    @torch.inference_mode()
    def remove_rows(self, gone: Sequence[CacheSegment]) -> None:
        """Let rows end; a prompt's segment goes with its last row."""
        for width in {row.width for row in gone}:
            self._own_pools[width].drop([row for row in gone if row.width == width])
        prompts = [row.prefix for row in gone if row.prefix]
        for prompt in prompts:
            prompt.num_rows -= 1
        done = {id(prompt): prompt for prompt in prompts if prompt.num_rows == 0}.values()
        for width in {prompt.width for prompt in done}:
            self._prompt_pools[width].drop([prompt for prompt in done if prompt.width == width])
        if not any(pool.segments for pool in self._own_pools.values()):
            self._own_pools.clear()
            self._prompt_pools.clear()

    def advance(self, tokens: Sequence[int]) -> Tensor:
        """Compute one token more of each row, in the order of `rows`; hidden states [R, H]."""
        device = self._student.device
        rows = self.rows
        places = torch.tensor([[row.position] for row in rows], device=device)
        plan = _plan_reads(rows, self._own_pools, self._prompt_pools, device)
        with attending_by(self._model, IMPLEMENTATION):
            output = self._model(
                input_ids=torch.tensor(tokens, device=device)[:, None],
                position_ids=places,
                past_key_values=_PassThrough(),
                use_cache=True,
                cache_reads=plan,
            )
        for row in rows:
            row.length += 1
        self._widen()
        hidden: Tensor = output.last_hidden_state[:, -1]
        return hidden

    def _put(
        self,
        pools: dict[int, _SegmentPool],
        segments: list[CacheSegment],
        room: int,
        like: Tensor | None = None,
    ) -> None:
        width = _LEAST_WIDTH
        while width < room:
            width *= 2
        pool = pools.setdefault(width, _SegmentPool(width))
        pool.take(segments)
        if like is not None:
            pool.reserve(like)

    def _widen(self) -> None:
        """Move rows that fill their segments to twice the width."""
        for width, pool in list(self._own_pools.items()):
            full = [row for row in pool.segments if row.length == width]
            if full:
                slots = [row.slot for row in full]
                held = pool.held[:, slots]
                pool.drop(full)
                wider = self._own_pools.setdefault(2 * width, _SegmentPool(2 * width))
                wider.take(full)
                wider.reserve(held[:, 0])
                wider.held[:, full[0].slot : full[0].slot + len(full), :, :width] = held


def _plain_layers(cache: Any) -> list[Any]:
    """Raises UnsupportedAttention where one keeps something else than keys and values."""
    layers = list(cache.layers)
    if any(type(layer) is not DynamicLayer for layer in layers):
        raise UnsupportedAttention("a layer keeps something else than keys and values")
    return layers


class _SegmentPool:
    """KVCache of one width, without gaps between them."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.segments: list[CacheSegment] = []
        self.held: Tensor = torch.empty(0)

    def take(self, segments: Sequence[CacheSegment]) -> None:
        for segment in segments:
            segment.width, segment.slot = self.width, len(self.segments)
            self.segments.append(segment)

    def reserve(self, like: Tensor) -> None:
        """Room for all segments, of the kind of keys and values [2 L, K, T, D]."""
        num_held = self.held.shape[1] if self.held.dim() > 1 else 0
        if num_held >= len(self.segments):
            return
        num = max(_LEAST_SEGMENTS, len(self.segments), 2 * num_held)
        # Zeros: what lies beyond a segment's end is multiplied by zero, and must be a number.
        wider = like.new_zeros((like.shape[0], num, like.shape[1], self.width, like.shape[3]))
        if num_held:
            wider[:, :num_held] = self.held
        self.held = wider

    def write(self, segment: CacheSegment, keys_values: Tensor) -> None:
        self.reserve(keys_values)
        length = segment.length
        self.held[:, segment.slot, :, :length] = keys_values[:, :, :length]

    def drop(self, gone: Sequence[CacheSegment]) -> None:
        """Fill the gaps with the last segments."""
        holes = {segment.slot for segment in gone}
        left = len(self.segments) - len(holes)
        movers = [s for s in self.segments[left:] if s.slot not in holes]
        free = sorted(slot for slot in holes if slot < left)
        if movers:
            self.held[:, free] = self.held[:, [s.slot for s in movers]]
        for slot, mover in zip(free, movers, strict=True):
            mover.slot = slot
            self.segments[slot] = mover
        del self.segments[left:]


class _OwnRead(NamedTuple):
    """Rows `at` to `at + S` grow in `held`."""

    held: Tensor
    at: int
    num: int
    longest: int
    """Tokens of the longest, the new one with it."""
    places_S: Tensor | None
    """Where each row's new token goes; None where that is `longest - 1` for all."""
    mask_ST: Tensor | None


class _PromptRead(NamedTuple):
    """Prompts in `held` and the rows that attend to them."""

    held: Tensor
    num: int
    longest: int
    rows_PN: Tensor
    """Rows of each prompt, the first repeated where a prompt has fewer than N."""
    taken_R: Tensor
    """Which of the P * N are real."""
    targets_R: Tensor
    """The row that each of these is."""
    mask_PT: Tensor | None


@dataclass
class _ReadPlan:
    own: list[_OwnRead] = field(default_factory=list)
    shared: list[_PromptRead] = field(default_factory=list)


def _plan_reads(
    rows: Sequence[CacheSegment],
    own: dict[int, _SegmentPool],
    shared: dict[int, _SegmentPool],
    device: torch.device,
) -> _ReadPlan:
    plan = _ReadPlan()
    at = 0
    for _, pool in sorted(own.items()):
        lengths = [row.length for row in pool.segments]
        if lengths:
            places = None
            if min(lengths) < max(lengths):
                places = torch.tensor(lengths, device=device)
            mask = _mask([n + 1 for n in lengths], device)
            plan.own.append(_OwnRead(pool.held, at, len(lengths), max(lengths) + 1, places, mask))
        at += len(lengths)
    of_prompt: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        if row.prefix:
            of_prompt.setdefault(id(row.prefix), []).append(number)
    for _, pool in sorted(shared.items()):
        groups = [of_prompt[id(prompt)] for prompt in pool.segments]
        if groups:
            most = max(map(len, groups))
            lengths = [prompt.length for prompt in pool.segments]
            rows_PN = [group + group[:1] * (most - len(group)) for group in groups]
            taken = [p * most + n for p, group in enumerate(groups) for n in range(len(group))]
            plan.shared.append(
                _PromptRead(
                    pool.held,
                    len(groups),
                    max(lengths),
                    torch.tensor(rows_PN, device=device),
                    torch.tensor(taken, device=device),
                    torch.tensor([row for group in groups for row in group], device=device),
                    _mask(lengths, device),
                )
            )
    return plan


def _mask(lengths: list[int], device: torch.device) -> Tensor | None:
    """0 at a segment's tokens, -inf after them; None where all are equally long."""
    if min(lengths) == max(lengths):
        return None
    beyond = (
        torch.arange(max(lengths), device=device) >= torch.tensor(lengths, device=device)[:, None]
    )
    return torch.zeros(beyond.shape, device=device).masked_fill_(beyond, -torch.inf)


class _PassThrough(DynamicCache):  # type: ignore[misc]
    """Hands new keys and values on to the attention function, which keeps them."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        return key_states, value_states


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    cache_reads: _ReadPlan | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention [R, 1, H, D] of one new token per row to its own segment and its prompt's."""
    odd = [name for name in ("softcap", "s_aux", "sinks") if kwargs.get(name) is not None]
    if cache_reads is None or odd or attention_mask is not None:
        raise UnsupportedAttention(f"attention with {', '.join(odd) or 'a mask of its own'}")
    num_rows, num_heads, _, size = query.shape
    kind = cache_reads.own[0].held.dtype
    query, key, value = query.to(kind), key.to(kind), value.to(kind)
    # [R, H, 1, D] -> [R, K, G, D]: the G heads that share a key head are its queries. Scaled here
    # once, and not in each of the products below.
    query = query.reshape(num_rows, key.shape[1], -1, size) * (scaling or size**-0.5)
    parts = [_attend_own(own, module.layer_idx, query, key, value) for own in cache_reads.own]
    out = torch.cat([part[0] for part in parts]) if len(parts) > 1 else parts[0][0]
    weight = torch.cat([part[1] for part in parts]) if len(parts) > 1 else parts[0][1]
    for shared in cache_reads.shared:
        theirs, their_weight = _attend_shared(shared, module.layer_idx, query)
        rows = shared.targets_R
        # One softmax over both segments is a mean of the two, weighted by the sums of their
        # exponentials: e^a / (e^a + e^b) = sigmoid(a - b) of the logs of these sums.
        part = torch.sigmoid(their_weight - weight[rows]).to(out.dtype)
        out[rows] = torch.lerp(out[rows], theirs, part.expand_as(theirs))
    return out.reshape(num_rows, 1, num_heads, size), None


AttentionInterface.register(IMPLEMENTATION, _attend)


def _attend_own(
    own: _OwnRead, layer: int, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    rows = slice(own.at, own.at + own.num)
    keys, values = (own.held[2 * layer + i, : own.num, :, : own.longest] for i in (0, 1))
    # Written before it is read: a token attends to itself too. Where all rows are equally long its
    # place is one slice, which is cheaper than an index.
    if own.places_S is None:
        keys[:, :, -1], values[:, :, -1] = key[rows, :, 0], value[rows, :, 0]
    else:
        index = torch.arange(own.num, device=key.device)
        keys[index, :, own.places_S] = key[rows, :, 0]
        values[index, :, own.places_S] = value[rows, :, 0]
    return _softmax(query[rows], keys, values, own.mask_ST)


def _attend_shared(shared: _PromptRead, layer: int, query: Tensor) -> tuple[Tensor, Tensor]:
    keys, values = (shared.held[2 * layer + i, : shared.num, :, : shared.longest] for i in (0, 1))
    num_prompts, most = shared.rows_PN.shape
    # [P, N, K, G, D] -> [P, K, N, G, D]: all rows of a prompt are queries of one product with its
    # keys. A prompt with fewer than N rows has its first one again; that is left out at the end.
    asked = query[shared.rows_PN].transpose(1, 2)
    num_heads, group, size = asked.shape[1], asked.shape[3], asked.shape[4]
    asked = asked.reshape(num_prompts, num_heads, most * group, size)
    parts = _softmax(asked, keys, values, shared.mask_PT)
    out, weight = (
        part.view(num_prompts, num_heads, most, group, -1)
        .transpose(1, 2)
        .reshape(num_prompts * most, num_heads, group, -1)[shared.taken_R]
        for part in parts
    )
    return out, weight


def _softmax(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attention [.., D] over one segment, and the log of its summed weights [.., 1] in float32."""
    # In float32 from here: exponentials of bfloat16 scores would be off by a percent.
    if keys.device.type == "cpu" and keys.dtype == torch.bfloat16:
        # The same to the bit; the other way round keys would be copied to one piece first.
        turned = torch.matmul(keys, query.transpose(-1, -2)).transpose(-1, -2)
        scores = turned.to(torch.float32, memory_format=torch.contiguous_format)
    else:
        scores = torch.matmul(query, keys.transpose(-1, -2)).float()
    if mask is not None:
        scores += mask[:, None, None]
    weight = scores.logsumexp(-1, keepdim=True)
    out = torch.matmul(scores.sub_(weight).exp_().to(values.dtype), values)
    return out, weight
