"""Rank intervals: against a count of every case, by algebra, and how often they hold the truth."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.stats import hodges_lehmann

VALUES = st.lists(st.floats(-1e3, 1e3, allow_nan=False), min_size=8, max_size=14, unique=True)


def largest_cut(sums: list[int], alpha: float) -> int:
    """By the definition: the largest k with 2 P(sum < k) <= alpha, every case counted."""
    cut = 0
    while 2 * sum(s < cut + 1 for s in sums) / len(sums) <= alpha:
        cut += 1
    return cut


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.002])
@pytest.mark.parametrize("count", [5, 8, 10, 12])
def test_the_signed_rank_interval_is_that_of_a_count_of_all_signs(count: int, alpha: float) -> None:
    sums = [sum(rank + 1 for rank in range(count) if signs >> rank & 1) for signs in range(2**count)]
    cut = largest_cut(sums, alpha)
    d = np.linspace(-1, 3, count) ** 3
    walsh = sorted((d[i] + d[j]) / 2 for i in range(count) for j in range(i, count))
    found = hodges_lehmann.shift(d, alpha)
    if cut == 0:
        assert found is None
    else:
        assert found is not None and (found[1], found[2]) == (walsh[cut - 1], walsh[-cut])
        assert found[0] == np.median(walsh)


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("sides", [(5, 6), (8, 4), (7, 7)])
def test_the_rank_sum_interval_is_that_of_a_count_of_all_orders(sides: tuple[int, int], alpha: float) -> None:
    few, many = sorted(sides)
    sums = [sum(c) - few * (few - 1) // 2 for c in combinations(range(few + many), few)]
    cut = largest_cut(sums, alpha)
    rng = np.random.default_rng(1)
    a, b = rng.random(sides[0]), rng.random(sides[1])
    apart = sorted(x - y for x in a for y in b)
    found = hodges_lehmann.shift_between(a, b, alpha)
    assert found is not None and (found[1], found[2]) == (apart[cut - 1], apart[-cut])


def test_beyond_the_exact_count_the_approximation_goes_on_where_it_ended() -> None:
    exact, rough = (
        hodges_lehmann._rank_sum_cut(n, n, 0.002) for n in (hodges_lehmann.EXACT_UP_TO, hodges_lehmann.EXACT_UP_TO + 1)
    )
    assert exact < rough < 1.06 * exact


def test_the_fewest_rounds_that_can_decide() -> None:
    for alpha, least, side in ((0.01, 8, 5), (0.002, 10, 7)):
        assert hodges_lehmann.fewest(alpha) == least and hodges_lehmann.fewest(alpha, paired=False) == side
        few, many = np.arange(side), np.arange(side) + 0.5
        assert (
            hodges_lehmann.shift_between(few, many, alpha) is not None
            and hodges_lehmann.shift_between(few[1:], many[1:], alpha) is None
        )
        assert (
            hodges_lehmann.shift(np.arange(least), alpha) is not None
            and hodges_lehmann.shift(np.arange(least - 1), alpha) is None
        )


@settings(max_examples=50)
@given(VALUES, st.floats(-100, 100), st.floats(0.1, 10))
def test_moving_and_scaling_and_turning_round_move_the_interval_alike(d: list[float], by: float, times: float) -> None:
    plain, moved, turned = (hodges_lehmann.shift(x, 0.05) for x in (d, np.array(d) * times + by, -np.array(d)))
    assert plain is not None and moved is not None and turned is not None
    assert np.allclose(np.array(plain) * times + by, moved, atol=1e-6)
    assert np.allclose(np.array(turned), [-plain[0], -plain[2], -plain[1]])
    assert plain[1] <= plain[0] <= plain[2]


def test_many_pairs_at_once_are_each_as_one() -> None:
    d = np.random.default_rng(2).normal(size=(5, 12))
    together = hodges_lehmann.shift(d, 0.01)
    assert together is not None
    for row, *found in zip(d, *together, strict=True):
        alone = hodges_lehmann.shift(row, 0.01)
        assert alone is not None and found == [float(x) for x in alone]
    assert np.allclose(hodges_lehmann.rank_autocorrelation(d), [hodges_lehmann.rank_autocorrelation(row) for row in d])


def test_neighbours_alike_are_told_from_strangers_and_ties_say_nothing() -> None:
    rng = np.random.default_rng(3)
    slow = np.cumsum(rng.normal(size=(200, 40)), axis=1)
    assert (
        hodges_lehmann.rank_autocorrelation(slow).mean() > 0.6
        and abs(hodges_lehmann.rank_autocorrelation(rng.normal(size=(200, 40))).mean()) < 0.05
    )
    assert (
        hodges_lehmann.rank_autocorrelation(np.ones(20)) == 0 and hodges_lehmann.rank_autocorrelation([1.0, 2.0]) == 0
    )
    assert hodges_lehmann.rank_autocorrelation([1.0, -1.0] * 10) < -0.8
