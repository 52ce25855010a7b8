"""The rules of a gate: their grammar, how one is judged, and the numbers that only gates ask for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.sample_captures import around, made, variant
from hypothesis import given
from hypothesis import strategies as st
from paths import ROOT

from moeprof.errors import UsageError
from moeprof.gate import gate, metrics
from moeprof.gate import rule as expectations
from moeprof.gate.judge import Judgement, bar, judge_change, judge_value
from moeprof.gate.metrics import Sample
from moeprof.gate.rule import Expectation
from moeprof.loaded import capture
from moeprof.stats import estimates
from moeprof.stats import verdict as verdicts


@pytest.mark.parametrize(
    ("text", "metric", "fails"),
    [
        ("step_time>3%", "step_time", Expectation(">", 3.0, "%")), ("copy_overlap<0.9", "copy_overlap", Expectation("<", 0.9, "")),
        ("launches>+0", "launches", Expectation(">", 0.0, "+")), ("idle >= -2", "idle", Expectation(">=", -2.0, "+")),
        (" step_time <0.5x ", "step_time", Expectation("<", 0.5, "x")), ("kernel:f<int>>>-5%", "kernel:f<int>>", Expectation(">", -5.0, "%")),
        ("kernel:a<=b<=1.5", "kernel:a<=b", Expectation("<=", 1.5, "")), ("fact:dropped tokens>0", "fact:dropped tokens", Expectation(">", 0.0, "")),
    ],
)  # fmt: skip
def test_the_grammar(text: str, metric: str, fails: Expectation) -> None:
    (found,) = gate.rules([text])
    assert (found.metric, found.fails, found.text) == (metric, fails, text.strip())


@pytest.mark.parametrize(
    "text", ["step_time", "step_time>", ">3%", "step_time>3 %%", "step_time=3", "speed>3", "kernel:(>3", "kernel:>3", "step_time>>3", "step_time>nan", "", "x>1e400"]
)  # fmt: skip
def test_a_bad_rule_is_named_with_the_grammar_or_the_metrics(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        gate.rules([text])
    assert repr(text) in caught.value.message and caught.value.hint
    assert caught.value.hint == expectations.GRAMMAR or "metrics:" in caught.value.hint or "re" in caught.value.hint


# ---- judgement


def judged(wanted: Expectation, before: Sample, after: Sample, paired: bool = False) -> Judgement:
    """As a gate judges: with the verdict on the clean times, where there are any."""
    verdict = verdicts.of_rounds(before.rounds, after.rounds, paired) if after.rounds else None
    return judge_change(wanted, before, after, verdict)


def clean(mean: float, spread: float = 0.0005, seed: int = 0, rounds: int = 8, power: int = 1) -> Sample:
    times = [tuple(int(t) for t in r) for r in around(mean * 1e6, spread, rounds, seed)]
    time = estimates.typical(times)
    assert time is not None
    return Sample(time / 1e6 if power == 1 else 1e7 / time, "clean", rounds=times, power=power)


@pytest.mark.parametrize(
    ("rule", "factor", "state"),
    [
        (">3%", 1.10, "FAIL"), (">3%", 1.0, "PASS"), (">3%", 0.5, "PASS"), (">3%", 1.03, "UNCLEAR"), (">1.03x", 1.10, "FAIL"), (">1.03x", 1.0, "PASS"),
        (">+1", 1.10, "FAIL"), (">+1", 1.0, "PASS"), ("<+0", 0.9, "FAIL"), (">-10%", 1.0, "FAIL"), (">-10%", 0.8, "PASS"), (">-10%", 0.9, "UNCLEAR"),
        ("<0.5x", 0.4, "FAIL"), ("<0.5x", 0.6, "PASS"), (">12", 1.0, "FAIL"), (">12", 0.5, "PASS"), ("<12", 0.5, "FAIL"), (">=0.1%", 1.002, "UNCLEAR"),
    ],
)  # fmt: skip
def test_rules_on_clean_times(rule: str, factor: float, state: str) -> None:
    """20 ms and ``factor`` of it; a throughput moves the other way, its rules are judged on the same times."""
    wanted = expectations.expectation(rule)
    for power in (1, -1) if wanted.unit in ("x", "%") else (1,):
        before, after = clean(20, seed=1, power=power), clean(20 * factor**power, seed=2, power=power)
        found = judged(wanted, before, after) if wanted.unit else judge_value(wanted, after)
        assert found.state == state, (power, found)


@pytest.mark.parametrize(("power", "unit"), [(1, "%"), (-1, "%"), (1, "x"), (1, "+")])
def test_the_interval_is_that_of_the_verdict(power: int, unit: Any) -> None:
    """Turned for a time, as it is for a throughput; an uneven interval tells them apart."""
    uneven = [[1e6 * f] * 3 for f in (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.3, 1.3)]
    before, after = (Sample(0.0, "clean", rounds=[tuple(map(int, r)) for r in rounds], power=power) for rounds in (around(1e6), uneven))  # fmt: skip
    before, after = (replace(s, value=(estimates.typical(s.rounds) or 0) ** power) for s in (before, after))
    verdict = verdicts.of_rounds(before.rounds, after.rounds, paired=False)
    found = judged(Expectation(">", 3.0, unit), before, after).found
    assert verdict is not None and verdict.effect is not None and found is not None
    speed = verdict.effect
    low, high = (1 / speed.high, 1 / speed.low) if power == 1 else (speed.low, speed.high)
    told = {"x": lambda r: r, "%": lambda r: 100 * (r - 1), "+": lambda r: before.value * (r - 1)}[unit]
    assert (found.low, found.high) == pytest.approx((told(low), told(high)))


def test_times_beyond_the_threshold_but_not_beyond_the_noise_are_unclear() -> None:
    """Slow rounds and fast ones: the halves of A against A differ by 5 %, yet the interval is beyond 1 %."""
    a = [[20e6 * (1.05 if i in (0, 1, 2) else 1.0)] * 3 for i in range(9)]
    before = Sample(20.0, "clean", rounds=[tuple(map(int, r)) for r in a])
    after = Sample(20.8, "clean", rounds=[tuple(int(t * 1.04) for t in r) for r in a])
    found = judged(expectations.expectation(">1%"), before, after, paired=True)
    assert found.noise is not None and found.noise > 4 and found.found is not None and found.found.low > 1
    assert found.state == "UNCLEAR" and "noise" in found.reason


@pytest.mark.parametrize("spread", [0.0005, 0.004, 0.02])
def test_a_rule_without_tolerance_fails_where_the_verdict_is_slower_and_only_there(spread: float) -> None:
    """The gate has no statistics of its own: of two variants of a capture ``>0%`` is the verdict."""
    wanted, seen = expectations.expectation(">0%"), set()
    for seed, factor in enumerate((0.99, 0.996, 1.0, 1.003, 1.006, 1.01, 1.02) * 3):
        before, after = clean(20, spread, seed=seed), clean(20 * factor, spread, seed=seed + 100)
        verdict = verdicts.of_rounds(before.rounds, after.rounds)
        assert verdict is not None
        state = judge_change(wanted, before, after, verdict).state
        assert (state == "FAIL") == (verdict.word == "SLOWER"), (factor, verdict)
        seen.add(state)
    assert "UNCLEAR" in seen or spread < 0.001


def test_few_rounds_are_unclear_however_far_apart() -> None:
    wide = judged(expectations.expectation(">3%"), clean(20, rounds=3), clean(40, rounds=8))
    assert wide.state == "UNCLEAR" and "too few" in wide.reason and wide.settle
    assert judge_value(expectations.expectation(">3"), clean(20, rounds=3)).state == "UNCLEAR"


@pytest.mark.parametrize(
    ("rule", "before", "after", "state", "low", "high"),
    [
        (">+0", (5, 5, 5), (6, 6, 6), "FAIL", 1, 1), (">+0", (5, 5, 5), (5, 5, 5), "PASS", 0, 0), (">+0", (5, 5, 5), (5, 6, 5), "UNCLEAR", 0, 1),
        (">+0", (5, 5, 6), (7, 8, 7), "FAIL", 1, 3), (">+0", (5, 6, 5), (4, 5, 5), "PASS", -2, 0), (">50%", (4, 4), (8, 10), "FAIL", 100, 150),
        (">+0", (0, 0), (0, 0), "PASS", 0, 0), (">7", (), (6, 8), "UNCLEAR", 6, 8), ("<7", (), (6, 6), "FAIL", 6, 6),
    ],
)  # fmt: skip
def test_counts_are_exact_or_span_the_iterations(rule: str, before: tuple[float, ...], after: tuple[float, ...], state: str, low: float, high: float) -> None:  # fmt: skip
    wanted = expectations.expectation(rule)
    old, new = (Sample(v[0] if v else 0.0, "count", tuple(map(float, v))) for v in (before, after))
    found = judged(wanted, old, new) if wanted.unit else judge_value(wanted, new)
    assert found.found is not None and (found.state, found.found.low, found.found.high) == (state, low, high)
    assert ("exact" in found.reason) == (len(set(after)) == 1 and len(set(before)) <= 1)


def test_what_was_zero_has_no_ratio() -> None:
    nothing, some = Sample(0.0, "count", (0.0, 0.0)), Sample(2.0, "count", (2.0, 2.0))
    assert judged(expectations.expectation(">3%"), nothing, some).state == "UNCLEAR"
    assert judged(expectations.expectation(">3%"), Sample(1.0, "count", (0.0, 1.0)), some).state == "UNCLEAR"
    assert judged(expectations.expectation(">+1"), nothing, some).state == "FAIL"


numbers = st.floats(-50, 50).map(lambda x: round(x, 3))


@given(
    st.sampled_from(["<", "<=", ">", ">="]),
    numbers,
    st.sampled_from(["x", "%", "+", ""]),
    st.floats(0, 20),
    st.floats(0, 20),
)
def test_the_bar_never_lies_on_the_good_side_and_rises_with_the_noise(operator: str, number: float, unit: Any, less: float, more: float) -> None:  # fmt: skip
    wanted = Expectation(operator, number, unit)
    sign = 1 if operator[0] == ">" else -1
    less, more = sorted((less, more))
    assert bar(wanted, 0.0) == number
    assert (
        sign * number <= sign * bar(wanted, less) + 1e-9 and sign * bar(wanted, less) <= sign * bar(wanted, more) + 1e-9
    )
    if wanted.same is not None:
        assert sign * bar(wanted, less) >= min(sign * number + less, sign * wanted.same + less) - 1e-9


def test_a_gate_of_two_like_captures_seldom_fails() -> None:
    """300 pairs without a true difference, 1 % noise a round: at most 1 % fail 'step_time>1%'; a true 5 % fails nearly always."""
    rng = np.random.default_rng(7)
    wanted = expectations.expectation(">1%")

    def sample(mean: float) -> Sample:
        rounds = [
            tuple(mean * (1 + 0.01 * rng.standard_normal()) * (1 + 0.002 * rng.standard_normal(3))) for _ in range(8)
        ]
        return Sample(float(estimates.typical(rounds) or 0), "clean", rounds=rounds)

    same = [judged(wanted, sample(1e6), sample(1e6)).state for _ in range(300)]
    slower = [judged(wanted, sample(1e6), sample(1.05e6)).state for _ in range(40)]
    assert same.count("FAIL") <= 3 and slower.count("FAIL") >= 34, (same.count("FAIL"), slower.count("FAIL"))


# ---- measures that only gates ask for


def test_measures_of_the_sample_rest_on_all_its_iterations() -> None:
    found = capture.load(ROOT / "reports" / "samples" / "kv_transfer")
    sample = lambda metric, name="graph": metrics.sample(found, name, metric)  # noqa: E731
    assert (
        sample("launches", "baseline").each == (96.0,) * 8
        and sample("launches").value == 1
        and sample("launches").exact
    )
    assert sample("copies").value == 32 and sample("syncs").value == 0 and sample("exposed_comm").value == 0
    window = found.variants[0].iterations.windows[0]
    nothing = replace(
        window, launch=replace(window.launch, calls=())
    )  # a trace without host calls says nothing of them
    assert [metrics.NAMES[n].of_window(nothing) for n in ("launches", "calls", "syncs")] == [None] * 3
    idle = sample("idle")
    assert len(idle.each) == 8 and min(idle.each) <= idle.value <= max(idle.each) and not idle.exact
    kernel = sample("kernel:nvjet")
    assert kernel.value == pytest.approx(np.mean(kernel.each)) and len(kernel.each) == 8
    assert sample("dram_bytes") is None and sample("fact:dropped") is None  # three of 96 kernels were counted
    assert len(sample("step_time").rounds) == 8 and sample("of_limit").power == -1


def test_facts_of_a_step_are_metrics(tmp_path: Path) -> None:
    change = variant("graph", lambda v: replace(v, facts={"dropped": 3, "load": (1.0, 2.0), "how": "fast"}))
    found = capture.load(made(tmp_path / "now", change, light=True))
    assert metrics.value(found, "graph", "fact:dropped") == 3
    assert metrics.value(found, "graph", "fact:load") is None and metrics.value(found, "graph", "fact:how") is None
