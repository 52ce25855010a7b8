"""Hodges-Lehmann estimates with exact Wilcoxon intervals: how far apart two sides are, for noise of any shape. Pure.

Paired: the Hodges-Lehmann estimate (the median of all averages of two differences, Walsh averages) with the interval that
inverts Wilcoxon's signed-rank test. Unpaired: the median of all differences between the sides, with the interval that
inverts the Mann-Whitney test. Both are exact for any noise without ties; no normal distribution is assumed.
Source: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods (2014), sections 3.2, 3.3 and 4.2, 4.3.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
EXACT_UP_TO = 64  # values a side; with more the normal approximation of the rank sum is as good, and faster
MIN_SERIES = 4  # values; fewer show no autocorrelation
Bounds = tuple[Floats, Floats, Floats]


def shift(differences: npt.ArrayLike, alpha: float) -> Bounds | None:
    """The typical difference and its interval at confidence 1 - ``alpha``, along the last axis.

    Returns:
        (value, low, high), each of the leading shape; None where there are too few differences for that confidence.
    """
    d = np.asarray(differences, dtype=np.float64)
    first, second = np.triu_indices(d.shape[-1])
    return _bounds((d[..., first] + d[..., second]) / 2, _signed_rank_cut(d.shape[-1], alpha))


def shift_between(before: npt.ArrayLike, after: npt.ArrayLike, alpha: float) -> Bounds | None:
    """As ``shift``, for two sides that were not measured in pairs: ``before`` minus ``after``."""
    a, b = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    apart = (a[..., :, None] - b[..., None, :]).reshape(*a.shape[:-1], -1)
    return _bounds(apart, _rank_sum_cut(*sorted((a.shape[-1], b.shape[-1])), alpha))


def fewest(alpha: float, paired: bool = True) -> int:
    """The least number of pairs, or of values on each side, that can give an interval of confidence 1 - ``alpha``: 8 pairs
    for 0.01, 10 for 0.002; 5 and 7 on each side."""
    return next(n for n in range(1, EXACT_UP_TO) if 2 / (2**n if paired else math.comb(2 * n, n)) <= alpha)


def _bounds(values: Floats, cut: int) -> Bounds | None:
    """The median and the ``cut``-th value from either end."""
    if cut < 1:
        return None
    ordered = np.sort(values, axis=-1)
    return np.median(ordered, axis=-1), ordered[..., cut - 1], ordered[..., -cut]


@lru_cache(maxsize=256)
def _signed_rank_cut(count: int, alpha: float) -> int:
    """The largest k with 2 P(T < k) <= alpha, T the sum of the ranks of the positive among ``count`` differences."""
    chance = np.zeros(count * (count + 1) // 2 + 1)
    chance[0] = 1.0
    for rank in range(1, count + 1):  # each rank is positive or not, with one half each
        chance[rank:] = chance[rank:] + chance[:-rank]
        chance /= 2
    return _cut(chance, alpha)


@lru_cache(maxsize=256)
def _rank_sum_cut(few: int, many: int, alpha: float) -> int:
    """The largest k with 2 P(U < k) <= alpha, U of Mann and Whitney for sides of ``few`` and ``many`` values."""
    if many > EXACT_UP_TO:
        deviation = (few * many * (few + many + 1) / 12) ** 0.5
        return int(few * many / 2 + NormalDist().inv_cdf(alpha / 2) * deviation)
    ways = np.zeros((few + 1, few * many + few * (few + 1) // 2 + 1))
    ways[0, 0] = 1.0
    for rank in range(1, few + many + 1):  # each rank goes to the smaller side or not; ways[k, s]: k of them, of sum s
        ways[1:, rank:] += ways[:-1, :-rank].copy()
    return _cut(ways[few, few * (few + 1) // 2 :] / ways[few].sum(), alpha)


def _cut(chance: Floats, alpha: float) -> int:
    return int(np.searchsorted(np.cumsum(chance), alpha / 2, side="right"))


def rank_autocorrelation(series: npt.ArrayLike) -> Floats:
    """The correlation of each value's rank with the previous value's, along the last axis; 0 below MIN_SERIES values."""
    values = np.asarray(series, dtype=np.float64)
    if values.shape[-1] < MIN_SERIES:
        return np.zeros(values.shape[:-1])
    rows, columns = values[..., :, None], values[..., None, :]
    placed = (
        (rows > columns).sum(axis=-1) + (rows == columns).sum(axis=-1) / 2 - values.shape[-1] / 2
    )  # ties share a rank
    spread = (placed**2).sum(axis=-1)
    return np.asarray((placed[..., 1:] * placed[..., :-1]).sum(axis=-1) / np.where(spread == 0, 1, spread))
