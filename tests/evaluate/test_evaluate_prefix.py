"""What prompts have in common is computed once, and changes nothing."""

import random

import pytest
import tiny

from feldspar.evaluate.benchmarks.prefix import common_prefix, score_alike
from feldspar.student.scoring.score import Tree, score_trees


def test_what_all_begin_with_leaves_a_token_of_each() -> None:
    assert common_prefix([[1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 9]]) == [1, 2]
    assert common_prefix([[1, 2], [2, 2]]) == []
    assert common_prefix([[1, 2, 3]]) == []
    assert common_prefix([[7, 8, 9], [7, 8, 9]]) == [7, 8]


def test_scores_are_those_of_whole_prompts() -> None:
    student = tiny.make_tiny()
    rng = random.Random(1)

    def draw(count: int) -> list[int]:
        return [rng.randrange(5, 200) for _ in range(count)]

    shots = draw(60)
    trees = [
        Tree([*shots, *draw(rng.randint(1, 20))], [draw(n) for n in (1, 1, 1, rng.randint(2, 6))])
        for _ in range(9)
    ]
    for mine, theirs in zip(score_alike(student, trees), score_trees(student, trees), strict=True):
        for one, other in zip(mine, theirs, strict=True):
            assert one.total == pytest.approx(other.total, abs=1e-4)
            assert one[1:] == other[1:]
