"""Random numbers without state: each is a function of a key and a counter, on any device."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def key_of(*parts: str | int) -> int:
    """64 bits that stand for the parts, the same on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The splitmix64 finaliser (Steele, Lea and Flood 2014): a bijection that scatters bits."""
    with np.errstate(over="ignore"):
        z = values + _STEP
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        return z ^ (z >> np.uint64(31))


def uniforms(keys: NDArray[np.uint64], counter: int | NDArray[np.uint64]) -> NDArray[np.float64]:
    """One number in [0, 1) per key, at this counter, or at one counter per key."""
    bits = mix(mix(keys) ^ mix(np.atleast_1d(np.asarray(counter, dtype=np.uint64))))
    numbers: NDArray[np.float64] = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers


def permutation(num_items: int, *key: str | int) -> NDArray[np.int64]:
    """A permutation of `range(num_items)` that is a function of the key alone."""
    salt = np.uint64(key_of(*key))
    ranks = mix(np.arange(num_items, dtype=np.uint64) ^ mix(np.array([salt], dtype=np.uint64)))
    return np.argsort(ranks, kind="stable")


def probe_tokens(vocab_size: int) -> list[list[int]]:
    """Draws of nine tokens, for comparing two ways of computing a model in low precision: what
    is wrong is wrong for each, and some tokens make rounding ten times as large."""
    return [[(1 + draw + i * 7919) % vocab_size for i in range(9)] for draw in (0, 613, 1229)]
