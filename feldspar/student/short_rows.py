"""Attention of many short packed rows at once, by plain matrix products, on a CPU below float32.

A row by itself is some dozen tokens: its products are too small to fill a core, and its share of
the time goes into calling them. So rows of about one length are padded at their end to the longest
and computed together. Attention is causal, so no token sees the padding behind it, and no mask has
to say so. Backward is written out, since that of a gather would add up what is never added.

Rows that share a beginning (training/packing.py) stand in groups of their own: their keys are those
of the beginning and then theirs, and all tokens see all of the beginning. Its own tokens are a row
like another.

Shapes: T tokens, S rows, P tokens of the beginning that rows share, L tokens of the longest without
it, A heads, K key-value heads, G = A / K, D head size, N tokens of a group's rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

LONGEST = 320
"""Tokens of a row up to which plain products are faster than the fused kernel."""
_FULL = 0.8
"""Share of a group that is tokens and no padding."""


class RowGroup(NamedTuple):
    """Rows that are computed together."""

    tokens_SL: Tensor
    """Which of the T tokens each place takes; padding takes the row's last."""
    places_N: Tensor
    """Of each token in the flattened [S * L]."""
    tokens_N: Tensor
    """Where each token stands among the T."""
    num_shared: int = 0
    """P: the first so many of the T tokens stand before each of the rows."""

    @property
    def keys_SJ(self) -> Tensor:
        """Which of the T tokens each row sees, J = P + L; padding stands at the end."""
        if not self.num_shared:
            return self.tokens_SL
        first_SP = torch.arange(self.num_shared).expand(len(self.tokens_SL), -1)
        return torch.cat([first_SP, self.tokens_SL], dim=1)


def group_rows(
    lengths: Sequence[int], num_shared: int = 0, sharing: Sequence[bool] = ()
) -> list[RowGroup]:
    """Of packed rows of `lengths` those that are short, in groups that are little padded. The first
    `num_shared` tokens stand before the rows that are `sharing`."""
    if not num_shared:
        return _grouped(lengths, range(len(lengths)), 0)
    alone = [row for row, shares in enumerate(sharing) if not shares]
    rest = [row for row, shares in enumerate(sharing) if shares]
    return [*_grouped(lengths, alone, 0), *_grouped(lengths, rest, num_shared)]


def _grouped(lengths: Sequence[int], rows: Sequence[int], num_shared: int) -> list[RowGroup]:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    groups: list[list[int]] = []
    num_tokens = 0
    short = [row for row in rows if lengths[row] <= LONGEST]
    for row in sorted(short, key=lambda r: -lengths[r]):
        num_tokens += lengths[row]
        if not groups or num_tokens < _FULL * lengths[groups[-1][0]] * (len(groups[-1]) + 1):
            groups.append([])
            num_tokens = lengths[row]
        groups[-1].append(row)
    return [_group(np.sort(group), starts, num_shared) for group in groups]


def _group(rows: np.ndarray[Any, np.dtype[np.int64]], starts: Any, num_shared: int) -> RowGroup:
    first_S1, lengths_S1 = starts[rows, None], (starts[rows + 1] - starts[rows])[:, None]
    places_L = np.arange(lengths_S1.max())
    is_token_SL = places_L < lengths_S1
    tokens_SL = first_S1 + np.minimum(places_L, lengths_S1 - 1)
    return RowGroup(
        torch.from_numpy(tokens_SL),
        torch.from_numpy(np.flatnonzero(is_token_SL)),
        torch.from_numpy(tokens_SL[is_token_SL]),
        num_shared,
    )


def short_row_attention(
    query: Tensor, key: Tensor, value: Tensor, groups: list[RowGroup], scale: float
) -> Tensor:
    """Causal attention [1, T, A, D] inside each row of the groups, with what stands before it; zero
    elsewhere. `query` is [1, A, T, D], `key` and `value` [1, K, T, D]."""
    output: Tensor = _ShortRows.apply(query, key, value, groups, scale)  # type: ignore[no-untyped-call]
    return output


class _ShortRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, groups: list[RowGroup], scale: float
    ) -> Tensor:
        _, num_heads, num_tokens, size = query.shape
        output_TAD = query.new_zeros(num_tokens, num_heads, size)
        kept: list[Tensor] = []
        for group in groups:
            queries = _queries(query[0].index_select(1, group.tokens_SL.flatten()), key, group)
            keys, values = (_keys(x, group) for x in (key, value))
            mask = _causal(group, query).repeat(num_heads // key.shape[1], 1)
            scores = torch.baddbmm(mask, queries, keys.transpose(1, 2), alpha=scale)
            weights = torch.softmax(scores, dim=-1)
            found_NAD = _tokens(torch.bmm(weights, values), key, group)
            output_TAD.index_copy_(0, group.tokens_N, found_NAD)
            kept += [queries, keys, values, weights]
        ctx.save_for_backward(query, key, *kept)
        ctx.groups, ctx.scale = groups, scale
        return output_TAD[None]

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        query, key, *kept = ctx.saved_tensors
        [slopes_TAD] = slopes[0]
        heads, num_tokens, size = query.shape[1:]
        by_query = query.new_zeros(num_tokens, heads, size)
        by_key, by_value = (query.new_zeros(num_tokens, key.shape[1], size) for _ in range(2))
        for number, group in enumerate(ctx.groups):
            queries, keys, values, weights = kept[4 * number : 4 * number + 4]
            # Padding gets no slope, so it hands none on.
            padded = slopes_TAD.new_zeros(group.tokens_SL.numel(), heads, size)
            padded.index_copy_(0, group.places_N, slopes_TAD.index_select(0, group.tokens_N))
            outer = _queries(padded.transpose(0, 1), key, group)
            by_weights = torch.bmm(outer, values.transpose(1, 2))
            by_scores = torch._softmax_backward_data(by_weights, weights, -1, weights.dtype)
            by_scores.mul_(ctx.scale)
            by_query.index_copy_(0, group.tokens_N, _tokens(torch.bmm(by_scores, keys), key, group))
            num_shared = group.num_shared
            for total, part in (
                (by_key, torch.bmm(by_scores.transpose(1, 2), queries)),
                (by_value, torch.bmm(weights.transpose(1, 2), outer)),
            ):
                own = part[:, num_shared:]
                total.index_copy_(0, group.tokens_N, _tokens(own, key, group))
                if num_shared:
                    # Groups without it come first: what they copy is there already.
                    of_rows = part[:, :num_shared].reshape(-1, key.shape[1], num_shared, size)
                    total[:num_shared] += of_rows.sum(dim=0).transpose(0, 1)
        by_three = (x.transpose(0, 1)[None] for x in (by_query, by_key, by_value))
        return *by_three, None, None


def _queries(places_ASLD: Tensor, key: Tensor, group: RowGroup) -> Tensor:
    """[A, S * L, D] as [S * K, G * L, D]: heads that share a key stand below each other."""
    rows, longest = group.tokens_SL.shape
    shared = key.shape[1]
    parts = places_ASLD.reshape(shared, -1, rows, longest, places_ASLD.shape[-1])
    return parts.permute(2, 0, 1, 3, 4).reshape(rows * shared, -1, parts.shape[-1])


def _keys(heads_KTD: Tensor, group: RowGroup) -> Tensor:
    """[1, K, T, D] as [S * K, J, D]."""
    keys_SJ = group.keys_SJ
    rows, longest = keys_SJ.shape
    places = heads_KTD[0].index_select(1, keys_SJ.flatten())
    parts = places.view(len(places), rows, longest, -1).transpose(0, 1)
    return parts.reshape(rows * len(places), longest, -1)


def _tokens(rows_found: Tensor, key: Tensor, group: RowGroup) -> Tensor:
    """[S * K, G * L, D] of queries, or [S * K, L, D] of keys, as [N, A, D] or [N, K, D]."""
    rows, longest = group.tokens_SL.shape
    parts = rows_found.reshape(rows, key.shape[1], -1, longest, rows_found.shape[-1])
    places = parts.permute(0, 3, 1, 2, 4).reshape(rows * longest, -1, parts.shape[-1])
    return places.index_select(0, group.places_N)


def _causal(group: RowGroup, like: Tensor) -> Tensor:
    """What is added to scores [L, J]: nothing where a token sees another, else minus infinity."""
    length, num_shared = group.tokens_SL.shape[1], group.num_shared
    hidden = torch.full((length, num_shared + length), float("-inf"), dtype=like.dtype)
    return hidden.triu_(num_shared + 1)
