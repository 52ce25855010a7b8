"""Where a series changes its level: E-divisive with a permutation test. Pure numpy.

D. S. Matteson and N. A. James, "A Nonparametric Approach for Multiple Change Point Analysis of Multivariate Data", JASA 109 (2014),
https://arxiv.org/abs/1306.4933; used for benchmarks in continuous integration by D. Daly et al., "The Use of Change Point Detection
to Identify Software Performance Regressions in a Continuous Integration System", ICPE 2020, https://arxiv.org/abs/2003.00584.

A segment is split where Q = mn/(m+n) (2 E|X-Y| - E|X-X'| - E|Y-Y'|) is largest, X the m values before and Y the n values after; of
all segments the best split is taken and tested: in how many permutations of the values inside the segments is the best Q as large?
Splitting ends at the first split that is not significant. A series that only jitters is split with the probability LEVEL at most,
whatever the distribution of its values, as long as they are exchangeable; a drift or a period is none of these and may be split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVEL = 0.05
PERMUTATIONS = 999
LEAST_SEGMENT = 2  # values on each side of a change: one value alone may be an outlier
LEAST_VALUES = 8  # with fewer no split can be significant: the halves of seven are one of 35 choices, and their mirror
LEAST_CHANGE = 0.01  # of the level: a smaller change may be significant, and is not worth reporting
TIE = 1e-9  # relative: splits whose Q differs by less are equally good, whatever the unit of the values rounds to
SEED = 20_140_101  # fixed: the same history gives the same change points
AT_ONCE = 2_000_000  # matrix elements


@dataclass(frozen=True)
class ChangePoint:
    """The level changes before the value ``index``. ``before`` and ``after``: the medians of the segments beside it. ``p``: the
    share of permutations with an equally good split."""

    index: int
    before: float
    after: float
    p: float


def change_points(values: Sequence[float], level: float = LEVEL) -> tuple[ChangePoint, ...]:
    """The change points of a series of positive values, in order; none for fewer than LEAST_VALUES values."""
    series = np.asarray(values, dtype=np.float64)
    if len(series) < LEAST_VALUES:
        return ()
    rng = np.random.default_rng(SEED)
    cuts, significance = [0, len(series)], {}
    while True:
        best, at = _best(series[None, :], cuts)
        if at[0] < 0:
            break
        p = _significance(series, cuts, float(best[0]), rng)
        if p > level:
            break
        significance[int(at[0])] = p
        cuts = sorted([*cuts, int(at[0])])
    return _reported(series, cuts, significance)


def _significance(series: Floats, cuts: list[int], best: float, rng: np.random.Generator) -> float:
    """The share of permutations inside the segments whose best split is as good; the series itself counts as one."""
    as_good, left = 1, PERMUTATIONS
    chunk = max(1, AT_ONCE // len(series) ** 2)
    while left:
        count = min(chunk, left)
        mixed = np.tile(series, (count, 1))
        for low, high in pairwise(cuts):
            mixed[:, low:high] = rng.permuted(mixed[:, low:high], axis=1)
        as_good += int((_best(mixed, cuts)[0] >= best * (1 - TIE)).sum())
        left -= count
    return as_good / (PERMUTATIONS + 1)


def _best(rows: Floats, cuts: list[int]) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The best Q of each row over all segments, and the first place where it splits; -1 if no segment can be split."""
    best = np.zeros(len(rows))
    at = np.full(len(rows), -1, dtype=np.int64)
    for low, high in pairwise(cuts):
        if high - low < 2 * LEAST_SEGMENT:
            continue
        gain = divergence(rows[:, low:high])
        top = gain.max(axis=1)
        place = (gain >= (top * (1 - TIE))[:, None]).argmax(axis=1)  # the first of equally good ones
        better = top > best * (1 + TIE)
        best = np.where(better, top, best)
        at = np.where(better, low + LEAST_SEGMENT + place, at)
    return best, at


def divergence(rows: Floats) -> Floats:
    """Q of every split of every row: rows x (length - 2 LEAST_SEGMENT + 1), the first split after LEAST_SEGMENT values."""
    length = rows.shape[1]
    distance = np.abs(rows[:, :, None] - rows[:, None, :])
    sums = distance.cumsum(axis=1).cumsum(
        axis=2
    )  # sums[:, i, j]: of the distances between the first i+1 and the first j+1
    m = np.arange(LEAST_SEGMENT, length - LEAST_SEGMENT + 1)
    n = length - m
    left, across, total = sums[:, m - 1, m - 1], sums[:, m - 1, length - 1], sums[:, -1:, -1]
    between, right = across - left, total - 2 * across + left
    energy = 2 * between / (m * n) - left / (m * (m - 1)) - right / (n * (n - 1))
    return np.asarray(m * n / length * energy)


def _reported(values: Floats, cuts: list[int], p: dict[int, float]) -> tuple[ChangePoint, ...]:
    """The change points of at least LEAST_CHANGE; the segments beside a smaller one are joined."""
    while True:
        levels = [float(np.median(values[low:high])) for low, high in pairwise(cuts)]
        small = [
            (abs(after / before - 1), cut)
            for cut, before, after in zip(cuts[1:-1], levels, levels[1:], strict=False)
            if abs(after / before - 1) < LEAST_CHANGE
        ]
        if not small:
            break
        cuts = [cut for cut in cuts if cut != min(small)[1]]
    return tuple(
        ChangePoint(cut, before, after, p[cut])
        for cut, before, after in zip(cuts[1:-1], levels, levels[1:], strict=False)
    )
