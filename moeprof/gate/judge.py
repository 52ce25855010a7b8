"""One rule of a gate judged: PASS, FAIL or UNCLEAR. Pure.

A rule fails only on evidence: the whole interval is beyond the threshold and beyond the A/A noise. It passes if the whole
interval is on the good side. Otherwise it is UNCLEAR, with the reason. For clean times, interval and noise are those of their
verdict (``Verdict.effect``). For all other metrics the interval reaches from the smallest to the largest traced iteration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moeprof.gate.metrics import Sample
from moeprof.gate.rule import Expectation
from moeprof.stats import estimates
from moeprof.stats import verdict as verdicts
from moeprof.stats.estimates import Interval
from moeprof.stats.verdict import Verdict

State = Literal["PASS", "FAIL", "UNCLEAR"]
MORE_ROUNDS = "more --rounds, or a quieter machine"
MORE_ITERATIONS = "more --iterations"


@dataclass(frozen=True)
class Words:
    """The sentences of a judgement, by what it rests on."""

    bad: str
    good: str
    between: str = ""
    settle: str = ""


BASES = {
    "rounds": Words(
        "the whole confidence interval is beyond the threshold and the noise",
        "the whole confidence interval is on the good side of the threshold",
        "the confidence interval contains the threshold",
        MORE_ROUNDS,
    ),
    "iterations": Words(
        "all traced iterations are beyond the threshold",
        "all traced iterations are on the good side of the threshold",
        "the traced iterations are on both sides of the threshold",
        MORE_ITERATIONS,
    ),
    "exact": Words("exact: all measurements agree", "exact: all measurements agree"),
    "single": Words("one measurement: there is no interval", "one measurement: there is no interval"),
}


@dataclass(frozen=True)
class Judgement:
    """A rule's state, why, and what would settle it; ``found`` and ``noise`` in the terms of the rule (``Outcome.of``)."""

    state: State
    reason: str
    settle: str = ""
    found: Interval | None = None
    noise: float | None = None


def unclear(reason: str, settle: str) -> Judgement:
    """A judgement without a comparison."""
    return Judgement("UNCLEAR", reason, settle)


def judge_value(wanted: Expectation, sample: Sample) -> Judgement:
    """Judge the value itself against the threshold."""
    if not sample.rounds:
        return _judged(wanted, spanned(sample), None, _basis(sample))
    if len(sample.rounds) < verdicts.MIN_ROUNDS:
        return unclear(f"{len(sample.rounds)} rounds are too few for an interval", MORE_ROUNDS)
    return _judged(wanted, spanned(sample), estimates.noise(sample.rounds) * sample.value, "rounds")


def judge_change(wanted: Expectation, before: Sample, after: Sample, verdict: Verdict | None = None) -> Judgement:
    """Judge the change or the ratio from before to after against the threshold.

    ``verdict``: on the clean times, after against before, where the metric rests on them.
    """
    if verdict is not None:
        return _judge_times(wanted, before, after, verdict)
    old, new = spanned(before), spanned(after)
    value = wanted.measured(old.value, new.value)
    low, high = wanted.measured(old.high, new.low), wanted.measured(old.low, new.high)
    if value is None or low is None or high is None:
        return unclear(
            "unknown: the value before was 0 in at least one iteration, so there is no ratio", "a rule such as '>+0'"
        )
    return _judged(wanted, Interval(value, low, high), None, _basis(before, after))


def _judge_times(wanted: Expectation, before: Sample, after: Sample, verdict: Verdict) -> Judgement:
    """Judge a metric of clean times by the interval of the typical round's ratio, inverted where the metric falls with time."""
    speed = verdict.effect or verdict.speedup
    faster = (speed.value, speed.low, speed.high)
    moved = faster if after.power < 0 else (1 / faster[0], 1 / faster[2], 1 / faster[1])
    scale = _besides_time(before, after)
    value, low, high = (wanted.measured(before.value, before.value * ratio * scale) or 0.0 for ratio in moved)
    noise = max(verdict.noise_ratio, verdicts.LEAST_MARGIN)
    noise *= {"x": 1.0, "%": 100.0}.get(wanted.unit, before.value)
    change = Interval(value, low, high)
    if verdict.effect is None:
        return Judgement("UNCLEAR", verdict.reason, verdict.settle, change, noise)
    return _judged(wanted, change, noise, "rounds")


def _besides_time(before: Sample, after: Sample) -> float:
    """The factor by which the metric changed besides the time; not 1 where the work or its limit changed too."""
    times = [estimates.typical(sample.rounds) for sample in (before, after)]
    assert times[0] and times[1]  # a metric of clean times has some
    return after.value / before.value / (times[1] / times[0]) ** after.power


def _basis(*samples: Sample) -> str:
    """The key of BASES for samples that are not clean times."""
    if not all(s.exact for s in samples):
        return "iterations"
    return "single" if any(s.kind == "counter" and len(s.each) < 2 for s in samples) else "exact"


def spanned(sample: Sample) -> Interval:
    """A value with its interval: of 95 % confidence for clean times, else from the smallest to the largest iteration."""
    time = estimates.interval(sample.rounds)
    if time is not None:
        low, high = sorted(sample.value * (t / time.value) ** sample.power for t in (time.low, time.high))
        return Interval(sample.value, low, high)
    return Interval(sample.value, min((sample.value, *sample.each)), max((sample.value, *sample.each)))


def bar(wanted: Expectation, noise: float) -> float:
    """What the whole interval must be beyond for the rule to fail: the threshold and the noise around "nothing changed".

    The noise moves the threshold where the rule demands an improvement, or judges the value itself.
    """
    sign = 1 if wanted.operator.startswith(">") else -1
    if wanted.same is None or sign * (wanted.number - wanted.same) < 0:
        return wanted.number + sign * noise
    return sign * max(sign * wanted.number, sign * wanted.same + noise)


def _judged(wanted: Expectation, interval: Interval, noise: float | None, basis: str) -> Judgement:
    """FAIL, PASS or UNCLEAR, with the reason; ``basis`` is a key of BASES."""
    beyond = Expectation(wanted.operator, bar(wanted, noise or 0.0), wanted.unit)
    ends = (interval.low, interval.high)
    words = BASES[basis]
    if all(beyond.true_of(end) for end in ends):
        return Judgement("FAIL", words.bad, "", interval, noise)
    if not any(wanted.true_of(end) for end in ends):
        return Judgement("PASS", words.good, "", interval, noise)
    if all(wanted.true_of(end) for end in ends):
        return Judgement("UNCLEAR", "beyond the threshold, but not beyond the noise", words.settle, interval, noise)
    return Judgement("UNCLEAR", words.between, words.settle, interval, noise)
