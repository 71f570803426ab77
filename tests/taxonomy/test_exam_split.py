"""Held-out seeds: enough, deterministic, and steady while a leaf grows."""

from __future__ import annotations

import random

from feldspar.records import Seed
from feldspar.taxonomy import split_seeds


def make_seeds(count: int, prefix: str = "seed") -> list[Seed]:
    return [Seed(id=f"{prefix}{i}", question="q", answer="a") for i in range(count)]


def test_a_leaf_of_five_holds_one_out_and_a_smaller_one_none() -> None:
    for trial in range(50):
        assert len(split_seeds(make_seeds(5, f"t{trial}-"), 0.2).held_out) == 1
        assert split_seeds(make_seeds(4, f"t{trial}-"), 0.2).held_out == ()
    assert split_seeds(make_seeds(20), 0.0).held_out == ()


def test_the_share_is_about_the_fraction_and_never_more() -> None:
    sizes = [len(split_seeds(make_seeds(50, f"t{trial}-"), 0.2).held_out) for trial in range(100)]
    assert max(sizes) <= 10
    assert sum(sizes) / len(sizes) > 7


def test_the_order_of_the_file_does_not_count() -> None:
    seeds = make_seeds(20)
    shuffled = random.Random(1).sample(seeds, len(seeds))
    assert set(split_seeds(seeds, 0.3).held_out) == set(split_seeds(shuffled, 0.3).held_out)


def test_few_taught_seeds_become_exam_seeds_when_a_leaf_grows() -> None:
    num_turned = 0
    for trial in range(100):
        before = split_seeds(make_seeds(20, f"t{trial}-"), 0.2)
        after = split_seeds(make_seeds(22, f"t{trial}-"), 0.2)
        num_turned += len(set(before.taught) & set(after.held_out))
    assert num_turned < 10
