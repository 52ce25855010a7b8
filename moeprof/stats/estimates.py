"""Medians of rounds, ratios of medians with their intervals, and A/A noise. Pure. docs/reference/verdict.md.

A round is one interleaved turn of clean timing, and the unit of all statistics. Samples inside a round share the state of the
machine at that moment. Treating them as independent would give intervals that are too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from moeprof.stats import hodges_lehmann

RESAMPLES = 4000
CONFIDENCE = 0.95  # of the intervals shown beside a value, and of the twins' ratio
SEED = 20_240_229  # fixed: the same capture gives the same interval
MOST_AUTOCORRELATION = 0.9  # of consecutive rounds; a few rounds cannot show more
MAX_SPLITS = 500
MIN_HALVED, MOST_SPLIT_WHOLLY = 4, 12  # least rounds to split in halves; most rounds to split in every way

Rounds = Sequence[Sequence[int]]
Logs = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value with its interval; the confidence is 95 % if nothing else is stated."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LogRatio:
    """Log ratios: the estimate, its interval, and the A/A noise by the baseline's twin (None without a twin)."""

    value: Logs
    low: Logs
    high: Logs
    noise: Logs | None


def medians(rounds: Rounds) -> npt.NDArray[np.float64]:
    """The median of each round."""
    return np.array([np.median(r) for r in rounds if len(r)], dtype=np.float64)


def middle(times_ns: Sequence[int]) -> int | None:
    """The median sample of one round (of two the longer); None without samples."""
    return sorted(times_ns)[len(times_ns) // 2] if times_ns else None


def typical(rounds: Rounds) -> float | None:
    """The median of the rounds' medians; None without rounds."""
    round_medians = medians(rounds)
    return float(np.median(round_medians)) if len(round_medians) else None


def interval(rounds: Rounds) -> Interval | None:
    """``typical`` with its bootstrap interval over rounds; None without rounds."""
    round_medians = medians(rounds)
    if not len(round_medians):
        return None
    draws = np.median(round_medians[_draws(len(round_medians))], axis=1)
    return _between(float(np.median(round_medians)), draws)


def speedup(baseline: Rounds, candidate: Rounds, paired: bool = True) -> Interval | None:
    """typical(baseline) / typical(candidate) with its bootstrap interval; ``paired`` sides share the resampled rounds."""
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
    """A/A noise without a twin: the 95th percentile of the distance from 1 of the ratio of two halves of the rounds.

    The rounds are split in every way, at most MAX_SPLITS. 0 with fewer than MIN_HALVED rounds.
    """
    round_medians = medians(rounds)
    if len(round_medians) < MIN_HALVED:
        return 0.0
    halves = _halves(len(round_medians))
    apart = np.median(np.take(round_medians, halves[0]), axis=1) / np.median(np.take(round_medians, halves[1]), axis=1)
    return float(np.quantile(np.abs(apart - 1), CONFIDENCE))


def _halves(count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ways to split ``count`` rounds: the first half of each way, and the second."""
    if count <= MOST_SPLIT_WHOLLY:
        chosen = list(combinations(range(count), count // 2))
        first = np.array(chosen[:: max(1, len(chosen) // MAX_SPLITS)])
    else:
        rng = np.random.default_rng(SEED)
        first = np.array([rng.permutation(count)[: count // 2] for _ in range(MAX_SPLITS)])
    return first, np.array([np.setdiff1d(np.arange(count), half) for half in first])


def logs(rounds: Rounds) -> Logs:
    """The logarithms of the rounds' medians, whose differences are the logarithms of ratios."""
    return np.log(medians(rounds))


def compare(baseline: Logs, candidate: Logs, twin: Logs | None, paired: bool, alpha: float) -> LogRatio | None:
    """Candidate against the baseline and against the baseline's twin, along the last axis (rounds); leading axes are pairs.

    The interval covers both comparisons, which differ as two processes of one program differ. Both are widened by the
    autocorrelation of rounds. None with too few rounds.
    """
    sides = [baseline] if twin is None else [baseline, twin]
    shifts = [_shift(side, candidate, paired, alpha) for side in sides]
    twins = None if twin is None else hodges_lehmann.shift(baseline - twin, 1 - CONFIDENCE)
    if shifts[0] is None or shifts[-1] is None:
        return None
    wide = _stretch(sides, candidate, paired)
    low = np.minimum(*(v - wide * (v - low) for v, low, _ in (shifts[0], shifts[-1])))
    high = np.maximum(*(v + wide * (high - v) for v, _, high in (shifts[0], shifts[-1])))
    if twins is None:
        return LogRatio(shifts[0][0], low, high, None)
    value, least, most = twins
    return LogRatio(
        shifts[0][0], low, high, np.maximum(value + wide * (most - value), -(value - wide * (value - least)))
    )


def _shift(baseline: Logs, candidate: Logs, paired: bool, alpha: float) -> hodges_lehmann.Bounds | None:
    return (
        hodges_lehmann.shift(baseline - candidate, alpha)
        if paired
        else hodges_lehmann.shift_between(baseline, candidate, alpha)
    )


def _stretch(sides: list[Logs], candidate: Logs, paired: bool) -> Logs:
    """The factor by which autocorrelated rounds widen an interval: sqrt((1 + r) / (1 - r)), r the mean correlation of a
    round's difference with the previous one. Source: the effective sample size of a series of the first order,
    Bayley and Hammersley (1946)."""
    series = [side - candidate for side in sides] if paired else [*sides, candidate]
    if paired and len(sides) > 1:
        series.append(sides[0] - sides[1])
    correlation = np.clip(
        np.mean([hodges_lehmann.rank_autocorrelation(s) for s in series], axis=0), 0, MOST_AUTOCORRELATION
    )
    return np.asarray(np.sqrt((1 + correlation) / (1 - correlation)))


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
