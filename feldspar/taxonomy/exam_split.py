"""Which seeds are held out from the teacher, so that a leaf can be examined on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from feldspar.records import Seed

MIN_SEEDS = 5
"""Leaves with fewer seeds hold none out."""


class SeedSplit(NamedTuple):
    taught: tuple[Seed, ...]
    held_out: tuple[Seed, ...]


def split_seeds(seeds: Sequence[Seed], fraction: float) -> SeedSplit:
    """Hold out about `fraction` of the seeds, one at least of five or more, each by its own hash.

    A seed's hash is a number in [0, 1). Those below `fraction` are candidates, and the lowest are
    taken up to the rounded share, so a seed that is taught stays so when others are added, unless
    it is a candidate. `fraction` 0 holds none out.
    """
    if len(seeds) < MIN_SEEDS or fraction == 0:
        return SeedSplit(tuple(seeds), ())
    ranked = sorted(seeds, key=_rank)
    num_held_out = max(1, round(fraction * len(seeds)))
    held_out = {seed.id for seed in ranked[:num_held_out] if _rank(seed)[0] < fraction}
    held_out = held_out or {ranked[0].id}
    return SeedSplit(
        tuple(seed for seed in seeds if seed.id not in held_out),
        tuple(seed for seed in seeds if seed.id in held_out),
    )


def _rank(seed: Seed) -> tuple[float, str]:
    digest = hashlib.sha256(f"exam {seed.id}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64, seed.id
