"""Clean times of callables, no profiler attached: interleaved rounds and the verdict on their ratio.

The old callable is timed twice per round: its second run is its twin, and the machine's noise is what lies between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moeprof.loaded.pytest_run import Check, Outcome
from moeprof.stats import estimates
from moeprof.stats import verdict as verdicts
from moeprof.stats.estimates import Interval
from moeprof.stats.round_order import TWIN, order
from moeprof.stats.verdict import Verdict
from moeprof.testing.errors import ProbeError
from moeprof.worker.built_variant import Session
from moeprof.workload.model import Proof, Step, Variant, Workload

Run = Callable[[], object]
Rounds = list[list[int]]
ROUNDS, SECONDS = 12, 0.05


@dataclass(frozen=True)
class Pair:
    """Times in ns of both callables, round by round, and the verdict on their ratio, old over new, with the noise of old's twin."""

    new: Rounds
    old: Rounds
    verdict: Verdict


def session(name: str, run: Run, device: str) -> Session:
    """A callable as the worker times a variant: CUDA events on a GPU, a clock on a CPU."""

    def step() -> None:
        run()

    variant = Variant(name, "", lambda params, where: Step(step, lambda: None, lambda: None, 0, 0))
    nothing = Workload("test", "", (variant,), name, name, {}, lambda params, where, built: Proof(True, "", None, 0.0))
    return Session(nothing, variant, device, {})


def clean_rounds(run: Run, device: str, seconds: float, rounds: int = ROUNDS) -> Interval:
    """The time of one call in ns, with its interval over rounds."""
    timed = session("run", run, device)
    timed.warm_up()
    time_ns = estimates.interval([timed.round(seconds) for _ in range(rounds)])
    assert time_ns is not None  # every round has samples
    return time_ns


def timed_pair(new: Run, old: Run, device: str, rounds: int, seconds: float) -> Pair:
    """Both callables and the old one's twin in turn, in orders as those of a capture.

    Raises:
        ProbeError: too few rounds for an interval.
    """
    if rounds < verdicts.MIN_ROUNDS:
        raise ProbeError(f"{rounds} rounds are too few for an interval", f"give at least {verdicts.MIN_ROUNDS}")
    sessions = {"new": session("new", new, device), "old": session("old", old, device)}
    sessions[TWIN.format("old")] = sessions["old"]
    times: dict[str, Rounds] = {name: [] for name in sessions}
    for name in ("new", "old"):
        sessions[name].warm_up()
    for number in range(rounds):
        for name in order(sessions, "pair", number):
            times[name].append(sessions[name].round(seconds))
    verdict = verdicts.of_rounds(times["old"], times["new"], twin=times[TWIN.format("old")])
    assert verdict is not None  # both have times
    return Pair(times["new"], times["old"], verdict)


def faster(pair: Pair, by: float) -> Check:
    """Passed where the whole interval of old over new lies at ``by`` or above and beyond the machine's noise."""
    ratio = _effect(pair)
    if pair.verdict.word == "FASTER" and ratio.low >= by:
        outcome: Outcome = "passed"
    else:
        outcome = "failed" if pair.verdict.word in ("SLOWER", "SAME") or ratio.high < by else "unclear"
    return _check("speed-up", ratio, f"at least {by:g} x", outcome, pair)


def not_slower(pair: Pair, than: float) -> Check:
    """Passed where the whole interval of new over old lies at ``than`` or below."""
    speedup = _effect(pair)
    ratio = Interval(1 / speedup.value, 1 / speedup.high, 1 / speedup.low)
    outcome: Outcome = "passed" if ratio.high <= than else "failed" if ratio.low > than else "unclear"
    return _check("time ratio", ratio, f"at most {than:g} x", outcome, pair)


def _effect(pair: Pair) -> Interval:
    """A typical round's speed-up, whose interval decides."""
    assert pair.verdict.effect is not None  # there are rounds enough
    return pair.verdict.effect


def _check(name: str, ratio: Interval, limit: str, outcome: Outcome, pair: Pair) -> Check:
    new, old = estimates.typical(pair.new) or 0.0, estimates.typical(pair.old) or 0.0
    detail = (
        f"{name}: {ratio.value:.3f} x ({100 * pair.verdict.confidence:g} % interval {ratio.low:.3f} to {ratio.high:.3f}); asserted: {limit}\n"
        f"  new {new / 1e6:.4g} ms, old {old / 1e6:.4g} ms, {len(pair.new)} interleaved rounds without the profiler; "
        f"noise on this machine, the baseline timed against itself: {100 * pair.verdict.noise_ratio:.1f} %"
    )
    if outcome == "unclear":
        detail = f"UNCLEAR: {detail}\n  {_why(pair)}; more rounds= or seconds=, or a quieter machine, would settle it"
    return Check(name, ratio.value, "x", limit, outcome, "" if outcome == "passed" else detail)


def _why(pair: Pair) -> str:
    return pair.verdict.reason if pair.verdict.word == "UNCLEAR" else "the interval holds the limit"
