"""The randomness of one reply, and which rows of a pool are its turn."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

PoolRow = TypeVar("PoolRow")
TURNS = 2**20
"""Draws that belong together: a seed of a request is (variety, turn) in this base."""


class ReplyDraw(NamedTuple):
    """The randomness of one choice, and which place in a pool is its turn.

    A caller's draws of one prompt count up from 0, so that none repeats another; those that are
    to stay apart from them, as an exam's, lie half of `TURNS` higher and count from the end.
    """

    rng: random.Random
    variety: int
    turn: int

    def hits(self, rate: float) -> bool:
        return self.rng.random() < rate


def next_rows(pool: Sequence[PoolRow], count: int, draw: ReplyDraw) -> list[PoolRow]:
    """Up to `count` different rows that follow one another: for pools whose order matters."""
    start = draw.turn * count
    return [pool[(start + i) % len(pool)] for i in range(min(count, len(pool)))]


def spread_rows(pool: Sequence[PoolRow], count: int, draw: ReplyDraw) -> list[PoolRow]:
    """Up to `count` different rows, one of each part of a pool.

    So a last call that asks for fewer does not repeat what an early call was given.
    """
    count = min(count, len(pool))
    start = draw.turn + draw.variety * 7919
    return [pool[(start + i * len(pool) // count) % len(pool)] for i in range(count)]
