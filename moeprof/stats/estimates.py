"""Ratios of medians with their intervals, A/A noise, and the verdict on two variants' rounds. Pure. docs/reference/verdict.md.

A round is one interleaved turn of clean timing, and the unit of all statistics. Samples inside a round share the state of the
machine at that moment. Treating them as independent would give intervals that are too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from moeprof.stats import hodges_lehmann

RESAMPLES = 4000
CONFIDENCE = 0.95  # of the intervals shown beside a value, and of the twins' ratio
SEED = 20_240_229  # fixed: the same capture gives the same interval
FALSE_ALARMS = (
    0.01  # at most this share of pairs without a difference is called FASTER or SLOWER, over all looks together
)
LOOKS = (12, 18, 26, 38, 54)  # rounds after which a capture decides whether it needs more; the last one ends it
LEAST_MARGIN = 0.01  # two processes of one program differ by up to this (docs/results); only more is a claim
MOST_MARGIN = 0.03  # with more noise SAME cannot be claimed: the verdict is UNCLEAR
MOST_AUTOCORRELATION = 0.9  # of consecutive rounds; a few rounds cannot show more
MAX_SPLITS = 500
MIN_HALVED, MOST_SPLIT_WHOLLY = 4, 12  # least rounds to split in halves; most rounds to split in every way
MIN_ROUNDS = hodges_lehmann.fewest(FALSE_ALARMS)  # of a pair; fewer give no interval of that confidence
MOST_ROUNDS = 500  # no message recommends more

Rounds = Sequence[Sequence[int]]
Logs = npt.NDArray[np.float64]
Word = Literal["FASTER", "SLOWER", "SAME", "UNCLEAR"]


@dataclass(frozen=True)
class Interval:
    """A value with its interval; the confidence is 95 % if nothing else is stated."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """Candidate against baseline; ratios above 1 are faster.

    Args:
        speedup: the ratio of medians.
        noise_ratio: A/A noise, as a distance of the ratio from 1.
        effect: the speed-up of a typical round; its interval, of ``confidence``, decides the word. None with too few rounds.
        noise_from: "twins": the baseline ran twice in the same rounds; "halves": each side's rounds, split.
        rounds: how many both sides have.
        more_rounds: how many more would settle it if the interval keeps its width; None where no number would.
    """

    word: Word
    speedup: Interval
    noise_ratio: float
    reason: str
    settle: str = ""
    effect: Interval | None = None
    confidence: float = 1 - FALSE_ALARMS
    noise_from: Literal["twins", "halves"] = "halves"
    rounds: int = 0
    more_rounds: int | None = None


@dataclass(frozen=True)
class Compared:
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


def compare(baseline: Logs, candidate: Logs, twin: Logs | None, paired: bool, alpha: float) -> Compared | None:
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
        return Compared(shifts[0][0], low, high, None)
    value, least, most = twins
    return Compared(
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


def word_of(low: Logs, high: Logs, noise_ratio: Logs) -> npt.NDArray[np.str_]:
    """The word for an interval of log ratios (above 0: faster) and its A/A noise; arrays of one shape."""
    beyond = np.log1p(np.maximum(noise_ratio, LEAST_MARGIN))
    same = np.log1p(np.clip(noise_ratio, LEAST_MARGIN, MOST_MARGIN))
    tests = [low > beyond, high < -beyond, (low >= -same) & (high <= same)]
    return np.select(tests, ["FASTER", "SLOWER", "SAME"], "UNCLEAR")


def verdict(
    baseline: Rounds, candidate: Rounds, paired: bool = True, twin: Rounds | None = None, looks: int = 1
) -> Verdict | None:
    """The verdict on the candidate; None without times.

    FASTER or SLOWER if the whole confidence interval of a typical round's speed-up lies outside the A/A noise (at least 1 %).
    SAME if it lies inside (taken as at least 1 %, at most 3 %). Otherwise, and with too few rounds, UNCLEAR.

    Args:
        paired: both were timed in the same rounds.
        twin: the baseline's second run in the same rounds.
        looks: how often the rounds may have been examined to decide whether to go on; they share the chance of a false alarm.
    """
    ratio = speedup(baseline, candidate, paired)
    if ratio is None:
        return None
    count, alpha = min(len(baseline), len(candidate)), FALSE_ALARMS / looks
    a, b = logs(baseline), logs(candidate)
    if paired:
        a, b = a[: min(len(a), len(b))], b[: min(len(a), len(b))]
    other = logs(twin) if twin is not None and len(twin) == len(a) else None
    compared = compare(a, b, other, paired, alpha)
    halves = max(noise(baseline), noise(candidate))
    margin = halves if compared is None or compared.noise is None else float(np.expm1(compared.noise))
    base = Verdict("UNCLEAR", ratio, margin, "", "", None, 1 - alpha, "halves", count)
    if compared is None:
        need = hodges_lehmann.fewest(alpha, paired)
        return replace(
            base, reason=f"{count} rounds are too few: {need} is the least", settle=f"--rounds {need} or more",
            more_rounds=max(need - count, 1),
        )  # fmt: skip
    return _worded(replace(base, noise_from="halves" if compared.noise is None else "twins"), compared)


def _worded(verdict: Verdict, compared: Compared) -> Verdict:
    """The verdict with its word and reason, and what would settle an unclear one."""
    word = str(word_of(compared.low, compared.high, np.asarray(verdict.noise_ratio)))
    value, low, high = (float(x) for x in (compared.value, compared.low, compared.high))
    verdict = replace(verdict, word=cast(Word, word), effect=Interval(*(math.exp(x) for x in (value, low, high))))
    beyond = max(verdict.noise_ratio, LEAST_MARGIN)
    same = min(max(verdict.noise_ratio, LEAST_MARGIN), MOST_MARGIN)
    name = (
        f"the noise ({_percent(verdict.noise_ratio)})"
        if verdict.noise_ratio >= LEAST_MARGIN
        else f"{_percent(LEAST_MARGIN)}"
    )
    if word == "SAME":
        return replace(verdict, reason=f"the whole interval lies within {_percent(same)} of 1")
    if word != "UNCLEAR":
        side = "above" if word == "FASTER" else "below"
        return replace(verdict, reason=f"the whole interval lies {side} 1 by more than {name}")
    more = _more(abs(value), (high - low) / 2, verdict.noise_ratio, verdict.rounds)
    noise = f"the noise ({_percent(beyond)})"
    if max(high, -low) > math.log1p(beyond):
        why = f"the interval reaches into {noise}"
    else:
        why = f"the interval lies within {noise}, which is too large to call both the same"
    return replace(verdict, reason=why, settle=_settle(more, verdict.rounds), more_rounds=more)


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f} %"


def _more(apart: float, half: float, noise_ratio: float, count: int) -> int | None:
    """How many more rounds would decide if the estimate stays and widths shrink with the root of the rounds.

    None where up to MOST_ROUNDS would not. ``apart`` and ``half``: the estimate and half the interval, logarithms.
    """
    for rounds in range(count + 1, MOST_ROUNDS + 1):
        shrunk = math.sqrt(count / rounds)
        low, high = np.array(apart - half * shrunk), np.array(apart + half * shrunk)
        if str(word_of(low, high, np.array(noise_ratio * shrunk))) != "UNCLEAR":
            return rounds - count
    return None


def _settle(more: int | None, count: int) -> str:
    if more is None:
        return "a quieter machine: with this noise more rounds are unlikely to decide"
    return f"about {more} more rounds (--rounds {count + more}), or a quieter machine"


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
