import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.config import EvaluateConfig
from feldspar.stats import intervals
from feldspar.stats.intervals import (
    NUM_RESAMPLES,
    cluster_interval,
    mean_interval,
    paired_difference,
    paired_shares_interval,
    proportion_interval,
)


def test_a_recipe_that_does_not_say_resamples_as_often_as_all_else():
    assert EvaluateConfig().num_resamples == NUM_RESAMPLES


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


@pytest.mark.parametrize("num_items", [1, 2, 3, 5])
def test_five_items_that_all_change_alike_are_not_beyond_noise(num_items):
    for gain in (1.0, 0.25, -0.25, -1.0):
        before, after = [max(0.0, -gain)] * num_items, [max(0.0, gain)] * num_items
        difference = paired_difference(before, after, 200, seed=1)
        assert difference.value == gain
        assert not difference.is_beyond_noise
        assert difference.interval.low < difference.interval.high
        assert difference.interval.low <= gain <= difference.interval.high


def test_six_items_that_all_change_alike_are():
    for gain in (1.0, 0.25):
        assert paired_difference([0.0] * 6, [gain] * 6, 200, seed=1).is_beyond_noise


def test_items_that_do_not_change_do_not_hide_few_that_do():
    values = [0.1 * n for n in range(30)]
    assert not paired_difference(values, [*values[:-5], *[9.0] * 5], 500, 1).is_beyond_noise
    right = [float(n % 2) for n in range(200)]
    assert not paired_difference(right, [1.0] * 10 + right[10:], 500, seed=1).is_beyond_noise
    assert paired_difference(right, [1.0] * 12 + right[12:], 500, seed=1).is_beyond_noise


def test_shares_are_told_apart_where_the_corrected_mcnemar_test_tells_them():
    for gained in range(30):
        for lost in range(30):
            low, high = paired_shares_interval(gained, lost, 80)
            chi = (abs(gained - lost) - 1) / max(1, gained + lost) ** 0.5
            assert (low > 0 or high < 0) == (chi > 1.959963984540054)


@given(
    st.integers(1, 200).flatmap(
        lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n))
    )
)
def test_a_difference_of_shares_lies_in_its_interval_and_turns_with_it(counts):
    gained, lost, num_items = counts
    lost = min(lost, num_items - gained)
    low, high = paired_shares_interval(gained, lost, num_items)
    assert -1 <= low <= (gained - lost) / num_items <= high <= 1
    assert high > low
    assert paired_shares_interval(lost, gained, num_items) == (-high, -low)


def test_a_difference_of_shares_is_held_about_95_times_in_100():
    rng = np.random.default_rng(4)
    for num_items in (10, 40):
        held = 0
        for _ in range(1000):
            gained, lost, _ = rng.multinomial(num_items, (0.3, 0.1, 0.6))
            low, high = paired_shares_interval(int(gained), int(lost), num_items)
            held += low <= 0.2 <= high
        assert 0.94 <= held / 1000 <= 0.995


def test_the_mean_of_few_is_held_about_95_times_in_100():
    rng = np.random.default_rng(5)
    held = 0
    for trial in range(600):
        low, high = mean_interval(rng.normal(2.0, 1.0, size=6).tolist(), 1000, seed=trial)
        held += low <= 2.0 <= high
    assert held / 600 >= 0.91


def test_the_mean_of_few_clusters_is_held_about_95_times_in_100():
    rng = np.random.default_rng(6)
    held = 0
    for trial in range(600):
        clusters = [[value] * 3 for value in rng.normal(2.0, 1.0, size=6)]
        low, high = cluster_interval(clusters, 1000, seed=trial)
        held += low <= 2.0 <= high
    assert held / 600 >= 0.91


def test_nothing_and_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="no values"):
        mean_interval([], 10, seed=1)
    with pytest.raises(ValueError, match="not paired: 2 items before, 1 after"):
        paired_difference([1, 2], [1], 10, seed=1)
    with pytest.raises(ValueError, match="3 right of 2"):
        proportion_interval(3, 2)
