"""The next token of each row: the likeliest, or one drawn with the row's own random number.

Shapes: R rows, V vocabulary, B blocks of the vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_BLOCK = 256
"""Tokens whose chances are summed in float32, before the sums are summed in float64."""


class TokenLogProb(NamedTuple):
    """A token's log-probability in nats, before temperature and top_p, and the likeliest others."""

    token: int
    log_prob: float
    likeliest: tuple[tuple[int, float], ...] = ()


def sample_tokens(
    logits_RV: Tensor,
    temperatures_R: NDArray[np.float64],
    top_ps_R: NDArray[np.float64],
    numbers_R: NDArray[np.float64],
) -> Tensor:
    """Tokens [R]. Temperature 0 takes the likeliest; else the token at which the cumulative
    distribution passes the row's number, among the fewest tokens that hold `top_p` of it."""
    drawn = np.flatnonzero(temperatures_R > 0)
    if not len(drawn):
        return logits_RV.argmax(dim=-1)
    device = logits_RV.device
    rows = torch.from_numpy(drawn).to(device)
    scaled_RV = logits_RV if len(drawn) == len(logits_RV) else logits_RV[rows]
    if (temperatures_R[drawn] != 1).any():
        temperatures = torch.from_numpy(temperatures_R[drawn]).to(device, torch.float32)
        scaled_RV = scaled_RV / temperatures[:, None]
    chances_RV = (scaled_RV - scaled_RV.amax(-1, keepdim=True)).exp_()
    narrow = np.flatnonzero(top_ps_R[drawn] < 1)
    if len(narrow):
        index = torch.from_numpy(narrow).to(device)
        top_ps = torch.from_numpy(top_ps_R[drawn][narrow]).to(device, torch.float32)
        chances_RV[index] = _nucleus(chances_RV[index], top_ps)
    drawn_R = _pass(chances_RV, numbers_R[drawn])
    if len(drawn) == len(logits_RV):
        return drawn_R
    tokens_R = logits_RV.argmax(dim=-1)
    tokens_R[rows] = drawn_R
    return tokens_R


def log_probs_of(
    logits_RV: Tensor, tokens: list[int], num_likeliest: list[int]
) -> list[TokenLogProb]:
    """What the model gives each row's token, and its `num_likeliest` likeliest."""
    log_probs_RV = functional.log_softmax(logits_RV, dim=-1)
    index = torch.tensor(tokens, device=logits_RV.device)[:, None]
    own = log_probs_RV.gather(1, index)[:, 0].tolist()
    top = log_probs_RV.topk(max(1, *num_likeliest), dim=-1)
    found = zip(tokens, own, num_likeliest, top.indices.tolist(), top.values.tolist(), strict=True)
    return [
        TokenLogProb(token, value, tuple(zip(ids[:num], values[:num], strict=True)))
        for token, value, num, ids, values in found
    ]


def _nucleus(chances_RV: Tensor, top_ps_R: Tensor) -> Tensor:
    """Zero outside the fewest tokens that hold `top_p` (Holtzman et al. 2020)."""
    sorted_RV, order_RV = chances_RV.sort(dim=-1, descending=True)
    shares_RV = sorted_RV / sorted_RV.sum(-1, keepdim=True)
    before_RV = shares_RV.cumsum(-1) - shares_RV
    sorted_RV = sorted_RV.masked_fill(before_RV >= top_ps_R[:, None], 0.0)
    return torch.zeros_like(chances_RV).scatter_(-1, order_RV, sorted_RV)


def _pass(chances_RV: Tensor, numbers_R: NDArray[np.float64]) -> Tensor:
    """Where the cumulative sum passes `number` of the whole, found by block and then inside it.

    Sums of blocks are summed in float64: in float32 the unlikely tokens of a large vocabulary
    would add nothing.
    """
    num_rows, num_tokens = chances_RV.shape
    wide = torch.float32 if chances_RV.device.type == "mps" else torch.float64
    padded = functional.pad(chances_RV, (0, -num_tokens % _BLOCK))
    blocks = padded.view(num_rows, -1, _BLOCK)
    sums_RB = blocks.sum(-1).to(wide)
    ends_RB = sums_RB.cumsum(-1)
    targets_R = torch.from_numpy(numbers_R).to(chances_RV.device, wide)[:, None] * ends_RB[:, -1:]
    block_R = torch.searchsorted(ends_RB, targets_R, right=True).clamp(max=ends_RB.shape[1] - 1)
    size_R = sums_RB.gather(1, block_R)
    share_R = ((targets_R - ends_RB.gather(1, block_R) + size_R) / size_R).clamp(0, 1 - 1e-7)
    rows = torch.arange(num_rows, device=chances_RV.device)
    inside = blocks[rows, block_R[:, 0]].to(wide).cumsum(-1)
    place_R = torch.searchsorted(inside, share_R * inside[:, -1:], right=True)
    tokens_R: Tensor = (block_R * _BLOCK + place_R)[:, 0]
    return tokens_R.clamp_(max=num_tokens - 1)
