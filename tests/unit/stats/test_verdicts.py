"""The verdict on simulated machines: how often it is wrong, what it finds, what it says; and on records with marks and twins."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from builders.sample_captures import made
from paths import ROOT

from moeprof.stats import estimates, verdict
from moeprof.storage import manifest
from moeprof.storage.manifest import Round, VariantRecord

RUNS = 600  # of each machine; docs/results has 2,000


def _script() -> ModuleType:
    path = ROOT / "scripts" / "simulate_verdicts.py"
    spec = importlib.util.spec_from_file_location("simulate_verdicts", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


simulated = _script()
PROMISED = [world for world in simulated.WORLDS if world not in simulated.BEYOND]


@pytest.mark.parametrize("level", [0.01, 0.001])
@pytest.mark.parametrize("world", PROMISED)
def test_at_most_one_in_a_hundred_pairs_without_a_difference_is_called_different(world: str, level: float) -> None:
    found = simulated.shares(world, RUNS, 0.0, level)
    assert found["FASTER"] + found["SLOWER"] <= 0.01


@pytest.mark.parametrize("rounds", [30, 54])
@pytest.mark.parametrize("world", ["independent", "drift of 5 %", "step of 5 %", "shared, alike 0.9"])
def test_three_percent_is_found_on_a_machine_with_one_percent_noise(world: str, rounds: int) -> None:
    """30 rounds: what the default budget holds (docs/reference/verdict.md); 54: what a capture ends with."""
    assert simulated.shares(world, RUNS, 0.03, 0.01, rounds)["FASTER"] >= 0.95


def test_slower_is_found_as_faster_is() -> None:
    assert simulated.shares("drift of 5 %", RUNS, -0.03, 0.01)["SLOWER"] >= 0.95


def test_the_same_is_called_the_same_and_three_percent_never() -> None:
    assert simulated.shares("drift of 5 %", RUNS, 0.0, 0.001)["SAME"] >= 0.99
    assert simulated.shares("independent", RUNS, 0.0, 0.01)["SAME"] >= 0.7
    assert simulated.shares("independent", RUNS, 0.03, 0.01)["SAME"] == 0


def test_a_quiet_machine_needs_the_first_look_alone() -> None:
    assert simulated.shares("independent", RUNS, 0.03, 0.001)["rounds"] == verdict.LOOKS[0]


def test_all_looks_together_miss_the_truth_in_one_of_a_hundred() -> None:
    """The chance of an interval that does not hold the truth at any look: uncorrected, five looks make it some 3 %."""
    rng = np.random.default_rng(5)
    baseline, candidate = rng.normal(0, 0.01, (2, 3000, verdict.LOOKS[-1]))
    missed = np.zeros(3000, dtype=bool)
    for count in verdict.LOOKS:
        found = estimates.compare(
            baseline[:, :count], candidate[:, :count], None, True, verdict.FALSE_ALARMS / len(verdict.LOOKS)
        )
        assert found is not None
        missed |= (found.low > 0) | (found.high < 0)
    assert missed.mean() <= 0.01


def phases(times: list[float], bad: dict[int, str] | None = None) -> tuple[Round, ...]:
    """Rounds of three samples around each time; ``bad`` are those that something disturbed."""
    return tuple(
        Round(i, 0, (int(t - 1), int(t), int(t + 1)), disturbed=(bad[i],) if bad and i in bad else (), used=i not in (bad or {}))
        for i, t in enumerate(times)
    )  # fmt: skip


def record(name: str, rounds: tuple[Round, ...], twin: tuple[Round, ...] = ()) -> VariantRecord:
    return VariantRecord(name, "", "ok", rounds=rounds, twin=twin)


QUIET = [1e6 * (1 + 0.0002 * (-1) ** i) for i in range(16)]


def test_disturbed_rounds_do_not_count_and_rounds_are_matched_by_their_numbers() -> None:
    """The baseline lacks round 3 and the disturbed ones are far off: matched by place, pairs would be of different rounds."""
    drifting = [1e6 * (1 + 0.02 * i) for i in range(16)]
    slow = [t * 3 if i in (5, 9) else t * 0.99 for i, t in enumerate(drifting)]
    bad = {5: "thermal (software)", 9: "thermal (software)"}
    base = phases(drifting, bad)
    found = verdict.verdict(
        record("base", base[:3] + base[4:], phases(drifting, bad)), record("other", phases(slow, bad))
    )
    assert found is not None and found.effect is not None and found.rounds == 13
    assert found.word == "FASTER" and found.effect.high - found.effect.low < 1e-4
    assert found.noise_from == "twins" and found.noise_ratio < 1e-4


def test_the_twin_stands_for_what_two_processes_of_one_program_differ_by() -> None:
    base, shifted = phases(QUIET), phases([t * 0.98 for t in QUIET])
    without = verdict.verdict(record("base", base), record("other", shifted))
    assert without is not None and without.word == "FASTER" and without.noise_from == "halves"
    unsure = verdict.verdict(record("base", base, phases([t * 1.03 for t in QUIET])), record("other", shifted))
    assert unsure is not None and unsure.word == "UNCLEAR" and unsure.noise_ratio > 0.015
    beside = verdict.verdict(record("base", base, phases([t * 0.98 for t in QUIET])), record("other", shifted))
    assert beside is not None and beside.word == "SAME", "as fast as the twin is not faster"


def test_a_twin_that_lacks_a_round_is_no_twin() -> None:
    found = verdict.verdict(record("base", phases(QUIET), phases(QUIET)[:-1]), record("other", phases(QUIET)))
    assert found is not None and found.noise_from == "halves" and found.word == "SAME"


def test_less_than_half_a_percent_is_never_claimed() -> None:
    close = record("other", phases([t * 0.996 for t in QUIET]))
    found = verdict.verdict(record("base", phases(QUIET), phases(QUIET)), close)
    assert found is not None and found.word == "SAME" and found.speedup.low > 1.003
    assert "1.0 %" in found.reason


def test_unclear_says_how_many_rounds_would_settle_it_and_they_do() -> None:
    rng = np.random.default_rng(8)

    def noisy(count: int, factor: float) -> tuple[Round, ...]:
        return phases(list(1e6 * factor * np.exp(rng.normal(0, 0.012, count))))

    base, other = record("base", noisy(12, 1.0), noisy(12, 1.0)), record("other", noisy(12, 1 / 1.02))
    found = verdict.verdict(base, other)
    assert found is not None and found.word == "UNCLEAR" and found.more_rounds is not None
    assert f"--rounds {12 + found.more_rounds}" in found.settle and "reaches into the noise" in found.reason
    count = 2 * (12 + found.more_rounds)
    later = verdict.verdict(
        record("base", noisy(count, 1.0), noisy(count, 1.0)), record("other", noisy(count, 1 / 1.02))
    )
    assert later is not None and later.word == "FASTER"


def test_unclear_names_what_disturbed_and_too_few_rounds_the_least_number() -> None:
    marked = dict.fromkeys(range(2, 16), "another process on the GPU")
    found = verdict.verdict(record("base", phases(QUIET, marked)), record("other", phases(QUIET)), looks=5)
    assert found is not None and found.word == "UNCLEAR" and found.effect is None
    assert "2 rounds are too few: 10 is the least" in found.reason
    assert (
        "--rounds 10" in found.settle and "end what disturbed rounds: another process on the GPU (14)" in found.settle
    )
    assert verdict.left_out(record("base", phases(QUIET, marked))) == 14


def test_more_looks_ask_for_more_confidence() -> None:
    one, five = (
        verdict.verdict(record("a", phases(QUIET)), record("b", phases(QUIET)), looks)
        for looks in (1, len(verdict.LOOKS))
    )
    assert one is not None and five is not None
    assert one.confidence == pytest.approx(0.99) and five.confidence == pytest.approx(0.998)


def test_two_captures_are_compared_without_pairs() -> None:
    drifting = [1e6 * (1 + 0.004 * i) for i in range(16)]
    found = verdict.verdict(record("a", phases(drifting)), record("a", phases(drifting[::-1])), paired=False)
    assert found is not None and found.word == "UNCLEAR", "a drift of 6 % inside each is no precision"
    quiet = verdict.verdict(
        record("a", phases(QUIET)), record("a", phases([t * 0.9 for t in QUIET[:10]])), paired=False
    )
    assert quiet is not None and quiet.word == "FASTER"
    assert verdict.verdict(replace(record("a", ()), rounds=()), record("a", phases(QUIET)), paired=False) is None


def test_two_captures_share_the_false_alarms_of_the_one_that_looked_more_often(tmp_path: Path) -> None:
    looked, not_looked = (
        manifest.read(made(tmp_path / str(looks), lambda m, looks=looks: replace(m, looks=looks), light=True))
        for looks in (5, 1)
    )
    for pair in ((looked, not_looked), (not_looked, looked)):
        found = verdict.across(*pair, "graph")
        assert found is not None and found.confidence == pytest.approx(1 - verdict.FALSE_ALARMS / 5)
    assert verdict.across(looked, not_looked, "nothing") is None
