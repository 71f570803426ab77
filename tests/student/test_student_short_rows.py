"""Short rows computed together are each its own causal attention, gradients included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from feldspar.student.attention import Boundaries, packed_attention
from feldspar.student.short_rows import LONGEST, group_rows, short_row_attention

lengths_of_rows = st.lists(st.integers(1, 40), min_size=1, max_size=9)


def heads(lengths: list[int], num_heads: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(1, sum(lengths), num_heads, 8, generator=generator).to(dtype)
    # As models hand them over: a view of [1, T, A, D].
    return tokens.transpose(1, 2).detach().requires_grad_()


def row_by_row(tensors: list[torch.Tensor], lengths: list[int]) -> torch.Tensor:
    rows = zip(*(t.split(lengths, dim=2) for t in tensors), strict=True)
    found = [
        functional.scaled_dot_product_attention(*row, is_causal=True, scale=0.3, enable_gqa=True)
        for row in rows
    ]
    return torch.cat(found, dim=2).transpose(1, 2)


@settings(max_examples=30, deadline=None)
@given(lengths_of_rows, st.sampled_from([(4, 4), (6, 2), (3, 1)]))
def test_a_row_does_not_know_what_it_is_computed_with(
    lengths: list[int], num_heads: tuple[int, int]
) -> None:
    tensors = [
        heads(lengths, number, torch.float32, seed)
        for seed, number in enumerate([num_heads[0], num_heads[1], num_heads[1]])
    ]
    slopes = torch.randn(1, sum(lengths), num_heads[0], 8)
    found = short_row_attention(*tensors, group_rows(lengths), 0.3)
    mine = torch.autograd.grad(found, tensors, slopes)
    expected = row_by_row(tensors, lengths)
    assert torch.allclose(found, expected, atol=1e-5)
    for one, other in zip(mine, torch.autograd.grad(expected, tensors, slopes), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def whole_rows(tensor: torch.Tensor, lengths: list[int], sharing: list[bool]) -> torch.Tensor:
    """The parts of [1, A, T, D] as rows: the first part stands before each that shares it."""
    first, *rests = tensor.split(lengths, dim=2)
    rows = [
        torch.cat([first, rest], dim=2) if shares else rest
        for rest, shares in zip(rests, sharing, strict=True)
    ]
    return torch.cat([first, *rows], dim=2)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=9),
    st.sampled_from([(4, 4), (6, 2), (3, 1)]),
)
def test_what_rows_share_is_as_if_each_had_it(
    num_shared: int, rests: list[tuple[int, bool]], num_heads: tuple[int, int]
) -> None:
    """Gradients too: those of what is shared are sums over all rows behind it."""
    lengths = [num_shared, *(length for length, _ in rests)]
    sharing = [shares for _, shares in rests]
    tensors = [
        heads(lengths, number, torch.float32, seed)
        for seed, number in enumerate([num_heads[0], num_heads[1], num_heads[1]])
    ]
    groups = group_rows(lengths, num_shared, [False, *sharing])
    found = short_row_attention(*tensors, groups, 0.3)
    slopes = torch.randn(1, sum(lengths), num_heads[0], 8)
    mine = torch.autograd.grad(found, tensors, slopes)
    by_row = [num_shared, *(n + num_shared * shares for n, shares in rests)]
    wide = row_by_row([whole_rows(t, lengths, sharing) for t in tensors], by_row)
    first, *rows = wide.split(by_row, dim=1)
    cut = [row[:, num_shared * shares :] for row, shares in zip(rows, sharing, strict=True)]
    expected = torch.cat([first, *cut], dim=1)
    assert torch.allclose(found, expected, atol=1e-5)
    for one, other in zip(mine, torch.autograd.grad(expected, tensors, slopes), strict=True):
        assert torch.allclose(one, other, atol=2e-4)


@settings(deadline=None)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=40))
def test_every_short_row_is_in_one_group_and_little_is_padding(lengths: list[int]) -> None:
    groups = group_rows(lengths)
    tokens = torch.cat([g.tokens_N for g in groups]) if groups else torch.empty(0)
    starts = [sum(lengths[:row]) for row in range(len(lengths))]
    short = [
        start + place
        for start, length in zip(starts, lengths, strict=True)
        if length <= LONGEST
        for place in range(length)
    ]
    assert sorted(tokens.tolist()) == short
    for group in groups:
        assert len(group.tokens_N) >= 0.8 * group.tokens_SL.numel()
        assert torch.equal(group.tokens_SL.flatten()[group.places_N], group.tokens_N)


@pytest.mark.parametrize("lengths", [[5, 400, 6, 5], [400, 350], [7, 7, 7]])
def test_long_rows_among_short_ones_are_computed_too(lengths: list[int]) -> None:
    tensors = [heads(lengths, number, torch.bfloat16, number) for number in (6, 2, 2)]
    boundaries = Boundaries(tuple(lengths), torch.empty(0))
    found, _ = packed_attention(None, *tensors, None, scaling=0.3, boundaries=boundaries)
    slopes = torch.randn(1, sum(lengths), 6, 8)
    mine = torch.autograd.grad(found, tensors, slopes.bfloat16())
    exact = [t.detach().float().requires_grad_() for t in tensors]
    expected = row_by_row(exact, lengths)
    assert torch.allclose(found.float(), expected, atol=0.02)
    for one, other in zip(mine, torch.autograd.grad(expected, exact, slopes), strict=True):
        assert functional.cosine_similarity(one.float().flatten(), other.flatten(), dim=0) > 0.999
