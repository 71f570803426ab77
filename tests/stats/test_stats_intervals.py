import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.stats import intervals
from feldspar.stats.intervals import mean_interval, paired_difference, proportion_interval


def test_same_values_and_seed_give_the_same_interval():
    values = [0.1, 0.5, 0.2, 0.9]
    assert mean_interval(values, 500, seed=3) == mean_interval(values, 500, seed=3)
    assert mean_interval(values, 500, seed=3) != mean_interval(values, 500, seed=4)


def test_a_95_percent_interval_holds_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        low, high = mean_interval(rng.normal(2.0, 1.0, size=60).tolist(), 300, seed=trial)
        held += low <= 2.0 <= high
    assert 0.89 <= held / 200 <= 0.985


def test_blocks_do_not_change_what_is_measured(monkeypatch):
    values = np.random.default_rng(1).normal(size=50).tolist()
    whole = mean_interval(values, 2000, seed=1)
    monkeypatch.setattr(intervals, "MAX_DRAWN_AT_ONCE", 120)
    assert mean_interval(values, 2000, seed=1) == whole


def test_wilson_agrees_with_published_figures():
    # Newcombe 1998, table I: 81 of 263 and 0 of 20.
    assert proportion_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert proportion_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_proportion_lies_in_its_interval(counts):
    num_right, num_items = counts
    low, high = proportion_interval(num_right, num_items)
    assert 0 <= low <= num_right / num_items <= high <= 1
    assert high > low


def test_pairs_find_a_small_gain_that_unpaired_means_hide():
    rng = np.random.default_rng(2)
    before = rng.normal(0, 5, size=100)
    after = before + rng.normal(0.2, 0.1, size=100)
    difference = paired_difference(before.tolist(), after.tolist(), 1000, seed=1)
    assert difference.is_beyond_noise
    assert difference.value == pytest.approx((after - before).mean())
    assert mean_interval(before.tolist(), 1000, 1).high > mean_interval(after.tolist(), 1000, 1).low


def test_no_change_is_not_beyond_noise():
    rng = np.random.default_rng(3)
    before = rng.normal(size=50).tolist()
    assert not paired_difference(before, before, 200, seed=1).is_beyond_noise


def test_nothing_and_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="no values"):
        mean_interval([], 10, seed=1)
    with pytest.raises(ValueError, match="not paired: 2 items before, 1 after"):
        paired_difference([1, 2], [1], 10, seed=1)
    with pytest.raises(ValueError, match="3 right of 2"):
        proportion_interval(3, 2)
