"""Attention of short packed rows on a CPU in bfloat16: together, and one row after another.

    python benchmarks/short_rows.py

Forward and backward of one layer with the heads of SmolLM2-135M (9, of which 3 share a key, of 64),
the median of 20. `one by one` is plain matrix products, `fused` torch's kernel, both a row at a
time: what packed training does without grouping.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from feldspar.student.short_rows import group_rows, short_row_attention

HEADS, KEY_HEADS, SIZE = 9, 3, 64
SCALE = SIZE**-0.5


def main() -> None:
    torch.set_num_threads(2)
    print("| rows | tokens a row | together (ms) | one by one (ms) | fused (ms) |")
    print("|---:|---|---:|---:|---:|")
    for rows, mean, spread in [(8, 60, 0), (8, 60, 15), (32, 60, 0), (32, 60, 15), (16, 120, 30)]:
        dice = random.Random(1)
        lengths = [mean + dice.randint(-spread, spread) for _ in range(rows)]
        tensors = [heads(sum(lengths), number) for number in (HEADS, KEY_HEADS, KEY_HEADS)]
        slopes = torch.randn(1, sum(lengths), HEADS, SIZE).bfloat16()
        groups = group_rows(lengths)
        ways: list[Callable[[], Tensor]] = [
            lambda t=tensors, g=groups: short_row_attention(*t, g, SCALE),  # type: ignore[misc]
            lambda t=tensors, n=lengths: by_rows(t, n, plain),  # type: ignore[misc]
            lambda t=tensors, n=lengths: by_rows(t, n, fused),  # type: ignore[misc]
        ]
        took = [milliseconds(way, tensors, slopes) for way in ways]
        around = f"{mean} ± {spread}" if spread else str(mean)
        print(f"| {rows} | {around} | " + " | ".join(f"{t:.1f}" for t in took) + " |")


def heads(num_tokens: int, number: int) -> Tensor:
    tokens = torch.randn(1, num_tokens, number, SIZE).bfloat16()
    return tokens.transpose(1, 2).detach().requires_grad_()


def by_rows(
    tensors: list[Tensor], lengths: list[int], attend: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    query, *others = tensors
    key, value = (x.repeat_interleave(HEADS // KEY_HEADS, dim=1) for x in others)
    rows = zip(*(torch.split(x, lengths, dim=2) for x in (query, key, value)), strict=True)
    return torch.cat([attend(*row).transpose(1, 2) for row in rows], dim=1)


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    length = query.shape[2]
    mask = torch.full((length, length), float("-inf"), dtype=query.dtype).triu_(1)
    scores = torch.baddbmm(mask, query[0], key[0].transpose(1, 2), alpha=SCALE)
    return (torch.softmax(scores, dim=-1) @ value[0])[None]


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=SCALE)


def milliseconds(way: Callable[[], Tensor], tensors: list[Tensor], slopes: Tensor) -> float:
    took = []
    for _ in range(23):
        began = time.perf_counter()
        torch.autograd.grad(way(), tensors, slopes)
        took.append(time.perf_counter() - began)
    return statistics.median(took[3:]) * 1e3


if __name__ == "__main__":
    main()
