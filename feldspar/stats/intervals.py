"""95 % intervals: of a mean, of a proportion, of a paired difference. Same input, same bytes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from feldspar.records import Interval

NUM_RESAMPLES = 1000
"""Of a bootstrap, where the recipe does not say (`evaluate.num_resamples`)."""
MAX_DRAWN_AT_ONCE = 4_000_000
"""Values of the bootstrap held in memory together."""
Z_95 = 1.959963984540054
"""The normal quantile that leaves 2.5 % on either side."""

FEWEST_TO_TELL = 6
"""Changed pairs below which no difference stands out from noise: five that all change one way come
out so in one of sixteen draws of signs, 6 %."""


class Difference(NamedTuple):
    """Mean of `after - before` over the same items, with its 95 % interval."""

    value: float
    interval: Interval
    num_pairs: int

    @property
    def is_beyond_noise(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.interval.low > 0 or self.interval.high < 0


def mean_interval(values: Sequence[float], num_resamples: int, seed: int) -> Interval:
    """Expanded percentile bootstrap of the mean over items (Efron 1979; Hesterberg 2015, 4.3).

    The quantiles are further out the fewer the values: the plain ones of 6 hold the truth 86 times
    in 100. One value has no spread, and an interval of no width. Raises ValueError when there is
    nothing to take the mean of.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("the mean of no values has no interval")
    assert np.isfinite(array).all(), "a score that is not finite has no interval"
    tail = _tail(array.size)
    low, high = np.quantile(_resampled_means(array, num_resamples, seed), (tail, 1 - tail))
    return Interval(low=float(low), high=float(high))


def cluster_interval(
    clusters: Sequence[Sequence[float]], num_resamples: int, seed: int
) -> Interval:
    """Expanded percentile bootstrap of the mean of all values, whole clusters drawn together.

    What is measured several times on one question varies less than on as many questions. Clusters
    that are all alike have no spread, and an interval of no width.
    """
    if not clusters or not all(clusters):
        raise ValueError("a cluster without values has no mean")
    sums = np.array([sum(values) for values in clusters], dtype=np.float64)
    sizes = np.array([len(values) for values in clusters], dtype=np.float64)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(clusters), size=(num_resamples, len(clusters)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tail = _tail(len(clusters))
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(low=float(low), high=float(high))


def proportion_interval(num_right: int, num_items: int) -> Interval:
    """Wilson's score interval (1927). Unlike the bootstrap it is honest at 0 and 1 of few items."""
    if not 0 <= num_right <= num_items or num_items == 0:
        raise ValueError(f"no proportion: {num_right} right of {num_items}")
    share = num_right / num_items
    shrink = 1 + Z_95**2 / num_items
    centre = (share + Z_95**2 / (2 * num_items)) / shrink
    spread = math.sqrt(share * (1 - share) / num_items + Z_95**2 / (4 * num_items**2))
    half = Z_95 * spread / shrink
    # At the ends the formula is exactly 0 or 1; rounding must not push it past the proportion.
    return Interval(
        low=min(share, max(0.0, centre - half)), high=max(share, min(1.0, centre + half))
    )


def paired_difference(
    before: Sequence[float], after: Sequence[float], num_resamples: int, seed: int
) -> Difference:
    """Mean of `after - before`, item by item; pairs are resampled together.

    Of items that are right or wrong, the interval is the score test's instead; and where fewer than
    FEWEST_TO_TELL pairs have changed it always reaches zero. See docs/decisions/003. Raises
    ValueError when the two are not of one length.
    """
    if len(before) != len(after):
        raise ValueError(f"not paired: {len(before)} items before, {len(after)} after")
    change = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    value = float(change.mean())
    if {*before, *after} <= {0.0, 1.0}:
        gained, lost = int((change > 0).sum()), int((change < 0).sum())
        interval = paired_shares_interval(gained, lost, len(before))
    else:
        low, high = mean_interval(change.tolist(), num_resamples, seed)
        if np.count_nonzero(change) < FEWEST_TO_TELL:
            half = abs(value)
            low, high = min(low, value - half), max(high, value + half)
        interval = Interval(low=low, high=high)
    return Difference(value=value, interval=interval, num_pairs=len(before))


def paired_shares_interval(gained: int, lost: int, num_items: int) -> Interval:
    """Of the difference of two shares over the same items, of which `gained` changed to right and
    `lost` to wrong: the score interval (Tango 1998) with McNemar's continuity correction.

    It never has no width, and leaves out zero where the corrected McNemar test does.
    """
    if min(gained, lost) < 0 or gained + lost > num_items or num_items == 0:
        raise ValueError(f"no pairs: {gained} gained and {lost} lost of {num_items}")
    return Interval(
        low=-_highest_difference(lost, gained, num_items),
        high=_highest_difference(gained, lost, num_items),
    )


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of independent values; 0 of fewer than two."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.std(ddof=1) / math.sqrt(array.size)) if array.size > 1 else 0.0


def _highest_difference(gained: int, lost: int, num_items: int) -> float:
    """The greatest difference of shares that the corrected score test does not reject."""
    low, high = (gained - lost) / num_items, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _score(middle, gained, lost, num_items) > Z_95:
            high = middle
        else:
            low = middle
    return low


def _score(difference: float, gained: int, lost: int, num_items: int) -> float:
    """How many standard errors, of the shares likeliest under `difference`, it lies too high."""
    a = 2 * num_items
    b = (a - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    lost_share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = num_items * (2 * lost_share + difference * (1 - difference))
    distance = num_items * difference - (gained - lost) - 1
    if distance <= 0:
        return 0.0
    return distance / math.sqrt(variance) if variance > 0 else math.inf


def _tail(num_values: int) -> float:
    """What is left out on either side: 2.5 % by Student's t and the unbiased variance."""
    if num_values < 2:
        return 0.025
    z, free = Z_95, num_values - 1
    # Of Student's quantile (Fisher and Cornish 1960): right to 0.003 from 5 degrees of freedom on.
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return 0.5 * math.erfc(t * math.sqrt(num_values / free) / math.sqrt(2))


def _resampled_means(
    values: npt.NDArray[np.float64], num_resamples: int, seed: int
) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    block = max(1, MAX_DRAWN_AT_ONCE // values.size)
    for start in range(0, num_resamples, block):
        num_rows = min(block, num_resamples - start)
        drawn = rng.integers(values.size, size=(num_rows, values.size))
        means[start : start + num_rows] = values[drawn].mean(axis=1)
    return means
