"""Ratios of medians, their intervals, the machine's own noise, and the verdict. Pure. The rule: docs/reference/verdict.md.

A round is one interleaved turn of clean timing. Rounds are what is counted: samples inside a round share the machine's
state of that moment, so that taking single samples for independent would give intervals that are too narrow.
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
CONFIDENCE = 0.95  # of the intervals that are shown beside a value, and of the twins' ratio
SEED = 20_240_229  # fixed: the same capture gives the same interval
FALSE_ALARMS = (
    0.01  # of pairs without a difference may be called FASTER or SLOWER, over all looks at the rounds together
)
LOOKS = (12, 18, 26, 38, 54)  # rounds after which a capture that may go on looks whether it must; the last one ends it
LEAST_MARGIN = 0.01  # two processes of one program differ by up to that (docs/results): within it they are the same, beyond it a claim begins
MOST_MARGIN = 0.03  # on a noisier machine sameness cannot be claimed: the answer is UNCLEAR
MOST_ALIKE = 0.9  # correlation of consecutive rounds, beyond which a few rounds cannot tell it
MAX_SPLITS = 500
MIN_HALVED, MOST_SPLIT_WHOLLY = 4, 12  # rounds that can be split in halves, and in every way
MIN_ROUNDS = hodges_lehmann.fewest(FALSE_ALARMS)  # of a pair: fewer give no interval of that confidence
MOST_ROUNDS = 500  # more than these are no advice

Rounds = Sequence[Sequence[int]]
Logs = npt.NDArray[np.float64]
Word = Literal["FASTER", "SLOWER", "SAME", "UNCLEAR"]


@dataclass(frozen=True)
class Interval:
    """A value with its interval, of 95 % confidence unless it is said otherwise."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """Candidate against baseline. ``speedup`` > 1: the candidate takes less time.

    ``speedup`` is the ratio of medians. ``effect`` decides: the speed-up of a typical round, whose interval has
    ``confidence``. ``noise_ratio`` is A against A, from "twins" (the baseline run twice in the same rounds) or from the
    "halves" of each side's rounds. ``more_rounds`` would settle it at the width that was seen; None: not any number.
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
    """Log ratios: the estimate, its interval, and how far the baseline's twin may be from it (None without a twin)."""

    value: Logs
    low: Logs
    high: Logs
    noise: Logs | None


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
    """A against A where there is no twin: one variant's rounds are split in two halves in every way (a bounded number of
    ways); the 95th percentile of how far the halves' ratio is from 1. 0 where there are too few rounds to split."""
    found = medians(rounds)
    if len(found) < MIN_HALVED:
        return 0.0
    halves = _halves(len(found))
    apart = np.median(np.take(found, halves[0]), axis=1) / np.median(np.take(found, halves[1]), axis=1)
    return float(np.quantile(np.abs(apart - 1), CONFIDENCE))


def _halves(count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ways to split ``count`` rounds: the one half of each way, and the other."""
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
    """Baseline against candidate, and against its own twin, along the last axis (rounds); leading axes are many pairs.

    The interval covers that against the baseline and that against its twin, which differ by what differs between two
    processes of one program; both are stretched by what consecutive rounds have in common. None with too few rounds.
    """
    sides = [baseline] if twin is None else [baseline, twin]
    found = [_shift(side, candidate, paired, alpha) for side in sides]
    own = None if twin is None else hodges_lehmann.shift(baseline - twin, 1 - CONFIDENCE)
    if found[0] is None or found[-1] is None:
        return None
    wide = _stretch(sides, candidate, paired)
    low = np.minimum(*(v - wide * (v - low) for v, low, _ in (found[0], found[-1])))
    high = np.maximum(*(v + wide * (high - v) for v, _, high in (found[0], found[-1])))
    if own is None:
        return Compared(found[0][0], low, high, None)
    value, least, most = own
    return Compared(
        found[0][0], low, high, np.maximum(value + wide * (most - value), -(value - wide * (value - least)))
    )


def _shift(baseline: Logs, candidate: Logs, paired: bool, alpha: float) -> hodges_lehmann.Bounds | None:
    return (
        hodges_lehmann.shift(baseline - candidate, alpha)
        if paired
        else hodges_lehmann.shift_between(baseline, candidate, alpha)
    )


def _stretch(sides: list[Logs], candidate: Logs, paired: bool) -> Logs:
    """How much wider an interval is where consecutive rounds are alike: sqrt((1 + r) / (1 - r)), r the mean correlation
    of a round's difference with the one before it. Source: the effective sample size of a series of the first order,
    Bayley and Hammersley (1946)."""
    series = [side - candidate for side in sides] if paired else [*sides, candidate]
    if paired and len(sides) > 1:
        series.append(sides[0] - sides[1])
    alike = np.clip(np.mean([hodges_lehmann.alike(s) for s in series], axis=0), 0, MOST_ALIKE)
    return np.asarray(np.sqrt((1 + alike) / (1 - alike)))


def word_of(low: Logs, high: Logs, noise_ratio: Logs) -> npt.NDArray[np.str_]:
    """The verdict on an interval of log ratios (above 0: faster) against A against A; arrays of one shape."""
    beyond = np.log1p(np.maximum(noise_ratio, LEAST_MARGIN))
    same = np.log1p(np.clip(noise_ratio, LEAST_MARGIN, MOST_MARGIN))
    tests = [low > beyond, high < -beyond, (low >= -same) & (high <= same)]
    return np.select(tests, ["FASTER", "SLOWER", "SAME"], "UNCLEAR")


def verdict(
    baseline: Rounds, candidate: Rounds, paired: bool = True, twin: Rounds | None = None, looks: int = 1
) -> Verdict | None:
    """FASTER or SLOWER where the whole interval of a typical round's speed-up lies beyond A against A (1 % at least),
    SAME where all of it lies within A against A (taken as 1 % at least and 3 % at most), UNCLEAR otherwise and where there
    are too few rounds for an interval. ``twin`` holds the baseline's second run in the same rounds; ``looks`` is how many
    times the rounds may have been looked at to decide whether to go on: the chance of a false alarm is shared by them all.
    None without times."""
    found = speedup(baseline, candidate, paired)
    if found is None:
        return None
    count, alpha = min(len(baseline), len(candidate)), FALSE_ALARMS / looks
    a, b = logs(baseline), logs(candidate)
    if paired:
        a, b = a[: min(len(a), len(b))], b[: min(len(a), len(b))]
    other = logs(twin) if twin is not None and len(twin) == len(a) else None
    compared = compare(a, b, other, paired, alpha)
    halves = max(noise(baseline), noise(candidate))
    margin = halves if compared is None or compared.noise is None else float(np.expm1(compared.noise))
    base = Verdict("UNCLEAR", found, margin, "", "", None, 1 - alpha, "halves", count)
    if compared is None:
        need = hodges_lehmann.fewest(alpha, paired)
        return replace(
            base, reason=f"{count} rounds are too few: {need} is the least", settle=f"--rounds {need} or more",
            more_rounds=max(need - count, 1),
        )  # fmt: skip
    return _worded(replace(base, noise_from="halves" if compared.noise is None else "twins"), compared)


def _worded(found: Verdict, compared: Compared) -> Verdict:
    """The verdict with its word, its reason and, where it is unclear, what would settle it."""
    word = str(word_of(compared.low, compared.high, np.asarray(found.noise_ratio)))
    value, low, high = (float(x) for x in (compared.value, compared.low, compared.high))
    found = replace(found, word=cast(Word, word), effect=Interval(*(math.exp(x) for x in (value, low, high))))
    beyond = max(found.noise_ratio, LEAST_MARGIN)
    same = min(max(found.noise_ratio, LEAST_MARGIN), MOST_MARGIN)
    name = (
        f"A against A ({_percent(found.noise_ratio)})"
        if found.noise_ratio >= LEAST_MARGIN
        else f"{_percent(LEAST_MARGIN)}"
    )
    if word == "SAME":
        return replace(found, reason=f"the whole interval lies within {_percent(same)} of 1")
    if word != "UNCLEAR":
        side = "above" if word == "FASTER" else "below"
        return replace(found, reason=f"the whole interval lies {side} 1 by more than {name}")
    more = _more(abs(value), (high - low) / 2, found.noise_ratio, found.rounds)
    reach = "the interval reaches into" if max(high, -low) > math.log1p(beyond) else "the interval is no wider than"
    why = f"{reach} A against A ({_percent(max(found.noise_ratio, LEAST_MARGIN))})"
    return replace(found, reason=why, settle=_settle(more, found.rounds), more_rounds=more)


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f} %"


def _more(apart: float, half: float, noise_ratio: float, count: int) -> int | None:
    """How many rounds more would decide if the estimate stayed and widths shrank with the root of the rounds; None: none
    up to MOST_ROUNDS. ``apart`` and ``half`` are the estimate and half the interval, logarithms."""
    for rounds in range(count + 1, MOST_ROUNDS + 1):
        shrunk = math.sqrt(count / rounds)
        low, high = np.array(apart - half * shrunk), np.array(apart + half * shrunk)
        if str(word_of(low, high, np.array(noise_ratio * shrunk))) != "UNCLEAR":
            return rounds - count
    return None


def _settle(more: int | None, count: int) -> str:
    if more is None:
        return "a quieter machine: at this noise more rounds will hardly settle it"
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
