"""Intervals and verdicts: by hand, by simulation, and the middle that is allowed to be unclear."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.stats import estimates
from moeprof.stats import verdict as verdicts

QUIET = [[1000, 1001, 999]] * 8


def rounds(rng: np.random.Generator, center: float, noise: float, count: int = 8) -> list[list[int]]:
    """Rounds of nine samples; each round has an offset of its own, as clocks drift."""
    return [
        [int(center * (1 + noise * rng.normal()) * (1 + noise / 3 * rng.normal())) for _ in range(9)]
        for _ in range(count)
    ]


def scaled(factor: float) -> list[list[int]]:
    return [[int(t * factor) for t in r] for r in QUIET]


@pytest.mark.parametrize(
    ("factor", "word"),
    [(0.5, "FASTER"), (0.98, "FASTER"), (1.0, "SAME"), (1.02, "SLOWER"), (3.0, "SLOWER")],
)
def test_a_quiet_machine_decides(factor: float, word: str) -> None:
    found = verdicts.of_rounds(QUIET, scaled(factor))
    assert found is not None and found.word == word
    assert found.speedup.value == pytest.approx(1 / factor, rel=2e-3)
    assert found.speedup.low <= found.speedup.value <= found.speedup.high


def test_a_noisy_machine_is_unclear_and_says_what_would_settle_it() -> None:
    rng = np.random.default_rng(1)
    noisy = [[int(1000 * (1 + 0.2 * rng.normal()))] * 3 for _ in range(8)]
    found = verdicts.of_rounds(noisy, [[int(t * 0.97) for t in r] for r in noisy], paired=False)
    assert found is not None and found.word == "UNCLEAR" and "rounds" in found.settle
    assert found.noise_ratio > 0.05


def test_a_large_difference_on_a_noisy_machine_is_never_called_the_same() -> None:
    """Seen on a GPU with a host-bound baseline: 0.73 with 37 % noise lies within the noise, and is no sameness."""
    bimodal = [[1700] * 3, [2600] * 3] * 4
    found = verdicts.of_rounds(bimodal, [[int(t * 1.25) for t in r] for r in bimodal])
    assert found is not None and found.noise_ratio > 0.2 and found.word == "UNCLEAR"


def test_few_rounds_are_never_decided() -> None:
    found = verdicts.of_rounds(QUIET[:3], scaled(0.5)[:3])
    assert found is not None and found.word == "UNCLEAR" and "too few" in found.reason


def test_absent_stays_absent() -> None:
    assert estimates.interval([]) is None and estimates.typical([]) is None and estimates.spread([[]]) is None
    assert verdicts.of_rounds([], QUIET) is None and estimates.speedup(QUIET, []) is None


def test_a_against_a_is_rarely_called_different() -> None:
    """300 pairs without a true difference on a machine with 1 % noise a round: at most 1 % may be FASTER or SLOWER."""
    rng = np.random.default_rng(7)
    words = [v.word for _ in range(300) if (v := verdicts.of_rounds(rounds(rng, 1e6, 0.01), rounds(rng, 1e6, 0.01)))]
    assert sum(word in ("FASTER", "SLOWER") for word in words) <= 3


def test_the_same_input_gives_the_same_interval() -> None:
    rng = np.random.default_rng(3)
    a, b = rounds(rng, 1e6, 0.01), rounds(rng, 9e5, 0.01)
    assert verdicts.of_rounds(a, b) == verdicts.of_rounds(a, b)


@given(st.lists(st.lists(st.integers(1, 10**9), min_size=1, max_size=5), min_size=1, max_size=6), st.integers(2, 5))
def test_scaling_both_sides_changes_no_ratio(samples: list[list[int]], factor: int) -> None:
    one, other = (
        estimates.speedup(samples, samples[::-1]),
        estimates.speedup([[t * factor for t in r] for r in samples], [[t * factor for t in r] for r in samples[::-1]]),
    )
    assert one is not None and other is not None
    assert one.value == pytest.approx(other.value) and one.low == pytest.approx(other.low)
