"""Ratios of medians with bootstrap intervals over rounds, the machine's own noise, and the verdict. Pure.

A round is one interleaved turn of clean timing. Rounds are the unit that is resampled: samples inside a round share the
machine's state of that moment, so that resampling single samples would give intervals that are too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

RESAMPLES = 4000
CONFIDENCE = 0.95
SEED = 20_240_229  # fixed: the same capture gives the same interval
MIN_ROUNDS = 4  # fewer rounds resample to so few different medians that the interval means nothing
LEAST_MARGIN = 0.01  # two variants within 1 % of each other are the same, however quiet the machine
MOST_MARGIN = 0.03  # on a noisier machine sameness cannot be claimed: the answer is UNCLEAR
MAX_SPLITS = 500

Rounds = Sequence[Sequence[int]]
Word = Literal["FASTER", "SLOWER", "SAME", "UNCLEAR"]


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """Candidate against baseline. ``speedup`` > 1: the candidate takes less time. ``noise_ratio``: A against A."""

    word: Word
    speedup: Interval
    noise_ratio: float
    reason: str
    settle: str = ""


def medians(rounds: Rounds) -> npt.NDArray[np.float64]:
    """The median of each round."""
    return np.array([np.median(r) for r in rounds if len(r)], dtype=np.float64)


def typical(rounds: Rounds) -> float | None:
    """The median of the rounds' medians; None without rounds."""
    found = medians(rounds)
    return float(np.median(found)) if len(found) else None


def interval(rounds: Rounds) -> Interval | None:
    """``typical`` with its interval, rounds resampled; None without rounds."""
    found = medians(rounds)
    if not len(found):
        return None
    draws = np.median(found[_draws(len(found))], axis=1)
    return _between(float(np.median(found)), draws)


def speedup(baseline: Rounds, candidate: Rounds, paired: bool = True) -> Interval | None:
    """typical(baseline) / typical(candidate); the same rounds are resampled on both sides where they were interleaved."""
    a, b = medians(baseline), medians(candidate)
    if not len(a) or not len(b):
        return None
    if paired:
        count = min(len(a), len(b))
        index = _draws(count)
        draws = np.median(a[:count][index], axis=1) / np.median(b[:count][index], axis=1)
    else:
        draws = np.median(a[_draws(len(a))], axis=1) / np.median(b[_draws(len(b), SEED + 1)], axis=1)
    return _between(float(np.median(a) / np.median(b)), draws)


def noise(rounds: Rounds) -> float:
    """A against A: the rounds of one variant are split in two halves in every way (a bounded number of ways); the 95th
    percentile of how far the ratio of the halves' medians is from 1. 0 where there are too few rounds to split."""
    found = medians(rounds)
    if len(found) < MIN_ROUNDS:
        return 0.0
    everything = set(range(len(found)))
    halves = list(combinations(range(len(found)), len(found) // 2))
    step = max(1, len(halves) // MAX_SPLITS)
    apart = [abs(np.median(found[list(h)]) / np.median(found[list(everything - set(h))]) - 1) for h in halves[::step]]
    return float(np.quantile(apart, CONFIDENCE))


def verdict(baseline: Rounds, candidate: Rounds, paired: bool = True) -> Verdict | None:
    """FASTER or SLOWER where the whole interval lies beyond the noise, SAME where all of it lies within the
    noise (taken as 1 % at least and 3 % at most), UNCLEAR otherwise and where there are fewer than four rounds. None
    without times."""
    found = speedup(baseline, candidate, paired)
    if found is None:
        return None
    margin = max(noise(baseline), noise(candidate))
    same = min(max(margin, LEAST_MARGIN), MOST_MARGIN)
    rounds = min(len(baseline), len(candidate))
    if rounds < MIN_ROUNDS:
        return Verdict(
            "UNCLEAR", found, margin, f"{rounds} rounds are too few for an interval", f"--rounds {2 * MIN_ROUNDS}"
        )
    if found.low > 1 + margin:
        return Verdict("FASTER", found, margin, "the whole interval lies above 1 and the noise of this machine")
    if found.high < 1 - margin:
        return Verdict("SLOWER", found, margin, "the whole interval lies below 1 and the noise of this machine")
    if 1 - same <= found.low and found.high <= 1 + same:
        return Verdict("SAME", found, margin, f"the whole interval lies within {same:.1%} of 1")
    return Verdict(
        "UNCLEAR",
        found,
        margin,
        "the interval reaches into the noise of this machine",
        "more --rounds, or a quieter machine",
    )


def spread(rounds: Rounds) -> float | None:
    """Interquartile range over the median of all samples; None without samples."""
    samples = np.array([t for r in rounds for t in r], dtype=np.float64)
    if not len(samples):
        return None
    low, middle, high = np.quantile(samples, [0.25, 0.5, 0.75])
    return float((high - low) / middle)


def _draws(count: int, seed: int = SEED) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))


def _between(value: float, draws: npt.NDArray[np.float64]) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    return Interval(value, float(np.quantile(draws, tail)), float(np.quantile(draws, 1 - tail)))
