"""The verdict: its thresholds, the verdict on rounds, and the verdict on two variants' records. docs/reference/verdict.md.

``verdict`` takes records of a manifest and selects their undisturbed rounds; ``of_rounds`` takes the rounds alone.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from moeprof.stats import estimates, hodges_lehmann
from moeprof.stats.estimates import Interval, LogRatio, Logs, Rounds
from moeprof.storage.manifest import Manifest, Round, VariantRecord

FALSE_ALARMS = 0.01  # of pairs without a difference, at most this share is called FASTER or SLOWER, all looks together
LOOKS = (12, 18, 26, 38, 54)  # rounds after which a capture decides whether it needs more; the last one ends it
LEAST_MARGIN = 0.01  # two processes of one program differ by up to this (docs/results); only more is a claim
MOST_MARGIN = 0.03  # with more noise SAME cannot be claimed: the verdict is UNCLEAR
MIN_ROUNDS = hodges_lehmann.fewest(FALSE_ALARMS)  # of a pair; fewer give no interval of that confidence
MOST_ROUNDS = 500  # no message recommends more

Word = Literal["FASTER", "SLOWER", "SAME", "UNCLEAR"]


@dataclass(frozen=True)
class Verdict:
    """Candidate against baseline; ratios above 1 are faster.

    Args:
        speedup: the ratio of medians.
        noise_ratio: A/A noise, as a distance of the ratio from 1.
        effect: the speed-up of a typical round; its interval, of ``confidence``, decides the word. None with too few rounds.
        noise_from: "twins": the baseline ran twice in the same rounds; "halves": each side's rounds, split.
        rounds: the number that both sides have.
        more_rounds: how many more would decide, if the estimate stays; None if no number up to MOST_ROUNDS would.
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


def word_of(low: Logs, high: Logs, noise_ratio: Logs) -> npt.NDArray[np.str_]:
    """The word for an interval of log ratios (above 0: faster) and its A/A noise; arrays of one shape."""
    different = np.log1p(np.maximum(noise_ratio, LEAST_MARGIN))
    same = np.log1p(np.clip(noise_ratio, LEAST_MARGIN, MOST_MARGIN))
    tests = [low > different, high < -different, (low >= -same) & (high <= same)]
    return np.select(tests, ["FASTER", "SLOWER", "SAME"], "UNCLEAR")


def of_rounds(
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
    ratio = estimates.speedup(baseline, candidate, paired)
    if ratio is None:
        return None
    count, alpha = min(len(baseline), len(candidate)), FALSE_ALARMS / looks
    a, b = estimates.logs(baseline), estimates.logs(candidate)
    if paired:
        a, b = a[: min(len(a), len(b))], b[: min(len(a), len(b))]
    repeated = estimates.logs(twin) if twin is not None and len(twin) == len(a) else None
    compared = estimates.compare(a, b, repeated, paired, alpha)
    halves = max(estimates.noise(baseline), estimates.noise(candidate))
    margin = halves if compared is None or compared.noise is None else float(np.expm1(compared.noise))
    base = Verdict("UNCLEAR", ratio, margin, "", "", None, 1 - alpha, "halves", count)
    if compared is None:
        need = hodges_lehmann.fewest(alpha, paired)
        return replace(
            base, reason=f"{count} rounds are too few: {need} is the least", settle=f"--rounds {need} or more",
            more_rounds=max(need - count, 1),
        )  # fmt: skip
    return _worded(replace(base, noise_from="halves" if compared.noise is None else "twins"), compared)


def _worded(verdict: Verdict, compared: LogRatio) -> Verdict:
    """The verdict with its word and reason, and what would settle an unclear one."""
    word = str(word_of(compared.low, compared.high, np.asarray(verdict.noise_ratio)))
    value, low, high = (float(x) for x in (compared.value, compared.low, compared.high))
    verdict = replace(verdict, word=cast(Word, word), effect=Interval(*(math.exp(x) for x in (value, low, high))))
    different = max(verdict.noise_ratio, LEAST_MARGIN)
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
    noise = f"the noise ({_percent(different)})"
    if max(high, -low) > math.log1p(different):
        why = f"the interval reaches into {noise}"
    else:
        why = f"the interval lies within {noise}, which is too large to call both the same"
    return replace(verdict, reason=why, settle=_settle(more, verdict.rounds), more_rounds=more)


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f} %"


def _more(distance: float, half: float, noise_ratio: float, count: int) -> int | None:
    """How many more rounds would decide, if the estimate stays and widths shrink with the square root of the rounds.

    None if MOST_ROUNDS would not decide either. ``distance`` and ``half``: the estimate and half the interval, logarithms.
    """
    for rounds in range(count + 1, MOST_ROUNDS + 1):
        shrunk = math.sqrt(count / rounds)
        low, high = np.array(distance - half * shrunk), np.array(distance + half * shrunk)
        if str(word_of(low, high, np.array(noise_ratio * shrunk))) != "UNCLEAR":
            return rounds - count
    return None


def _settle(more: int | None, count: int) -> str:
    if more is None:
        return "a quieter machine: with this noise more rounds are unlikely to decide"
    return f"about {more} more rounds (--rounds {count + more}), or a quieter machine"


def times(rounds: tuple[Round, ...]) -> list[tuple[int, ...]]:
    """The clean times in ns of the undisturbed rounds, round by round."""
    return [r.times_ns for r in rounds if r.used]


def verdict(
    baseline: VariantRecord,
    candidate: VariantRecord,
    looks: int = 1,
    paired: bool = True,
    timed_beside: tuple[VariantRecord, ...] = (),
) -> Verdict | None:
    """``candidate`` against ``baseline``, on undisturbed rounds only; None if one of them has no times.

    Args:
        looks: how often the rounds may have been examined to decide whether to go on.
        paired: both were timed in the same rounds, which are matched by their numbers.
        timed_beside: timed in the same rounds; an UNCLEAR verdict names what disturbed their turns too.
    """
    sides: list[Rounds] = [times(baseline.rounds), times(candidate.rounds)]
    twin: Rounds | None = times(baseline.twin) or None
    if paired:
        sides, twin = _matched(baseline, candidate)
    judged = of_rounds(sides[0], sides[1], paired, twin, looks)
    if judged is None or judged.word != "UNCLEAR":
        return judged
    named = disturbers(baseline, candidate, *(o for o in timed_beside if o.name not in (baseline.name, candidate.name)))
    if not named:
        return judged
    return replace(judged, settle=f"{judged.settle}; end what disturbed rounds: {named}")


def across(before: Manifest, after: Manifest, name: str) -> Verdict | None:
    """Variant ``name`` of two captures, not timed in the same rounds. None if one has no such variant, or no times."""
    old, new = before.variant(name), after.variant(name)
    if old is None or new is None:
        return None
    return verdict(old, new, max(before.looks, after.looks), paired=False)


def _matched(baseline: VariantRecord, candidate: VariantRecord) -> tuple[list[Rounds], Rounds | None]:
    """Both sides' rounds and the twin's, by number; only rounds that all have."""
    before, after = ({r.index: r.times_ns for r in side.used if r.times_ns} for side in (baseline, candidate))
    repeated = {r.index: r.times_ns for r in baseline.twin if r.used and r.times_ns}
    common = sorted(before.keys() & after.keys())
    twin = [repeated[i] for i in common] if repeated and all(i in repeated for i in common) else None
    return [[before[i] for i in common], [after[i] for i in common]], twin


def disturbers(*records: VariantRecord) -> str:
    """What disturbed rounds, with the number of turns, the most frequent first; empty if nothing did."""
    rounds = [r for record in records for r in (*record.rounds, *record.twin)]
    counts = Counter(reason for r in rounds for reason in r.disturbed if not r.used)
    return ", ".join(f"{reason} ({count})" for reason, count in counts.most_common())


def left_out(*records: VariantRecord) -> int:
    """How many rounds were disturbed and do not count."""
    return len({r.index for record in records for r in (*record.rounds, *record.twin) if not r.used})
