"""What leaves borrow of each other: seeds for pooled sampling, and passages as distractors."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from feldspar.config import GenerateConfig
from feldspar.records import Chunk, Leaf, Seed

MAX_SEEDS = 4096
MAX_CHUNKS = 512
"""A taxonomy of any size is known by so many of each, drawn evenly."""
POOLED_TASK = "Skills of many kinds, as the examples show them."

T = TypeVar("T")


class Borrowed(NamedTuple):
    """Empty where the recipe has leaves keep to themselves."""

    plain: tuple[Seed, ...] = ()
    grounded: tuple[Seed, ...] = ()
    """Seeds of skills, without a context and with one."""
    chunks: tuple[Chunk, ...] = ()

    def seeds_like(self, leaf: Leaf) -> tuple[Seed, ...]:
        return self.grounded if leaf.is_grounded else self.plain


def gather_borrowed(leaves: Iterable[Leaf], config: GenerateConfig, seed: int) -> Borrowed:
    """One pass over the leaves, or none where nothing is borrowed."""
    options = config.knowledge
    borrows_chunks = "retrieval" in options.kinds and options.distractors == "taxonomy"
    if config.sampling == "leaf" and not borrows_chunks:
        return Borrowed()
    rng = random.Random(f"{seed} pool")
    plain, grounded = _Reservoir[Seed](MAX_SEEDS, rng), _Reservoir[Seed](MAX_SEEDS, rng)
    chunks = _Reservoir[Chunk](MAX_CHUNKS, rng)
    for leaf in leaves:
        if leaf.branch != "knowledge" and config.sampling == "pooled":
            (grounded if leaf.is_grounded else plain).add(leaf.seeds)
        elif leaf.branch == "knowledge" and borrows_chunks:
            chunks.add(leaf.chunks)
    return Borrowed(tuple(plain.drawn), tuple(grounded.drawn), tuple(chunks.drawn))


class _Reservoir(Generic[T]):
    """An even draw of at most `size` from all that went by (Vitter 1985, algorithm R)."""

    def __init__(self, size: int, rng: random.Random) -> None:
        self.drawn: list[T] = []
        self._size, self._rng, self._num_seen = size, rng, 0

    def add(self, items: Iterable[T]) -> None:
        for item in items:
            self._num_seen += 1
            if len(self.drawn) < self._size:
                self.drawn.append(item)
            elif (place := self._rng.randrange(self._num_seen)) < self._size:
                self.drawn[place] = item
