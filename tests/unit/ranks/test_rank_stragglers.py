"""Late ranks and clocks that differ, planted into a real rank's trace: who is named with what time and cause, and what is withheld."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import rank_traces
from builders.rank_traces import Planted, Truth, analysed, assert_consistent, facts_of, grow, more_blocks

from moeprof.ranks.analyze import analyse_ranks
from moeprof.ranks.model import DEPENDENCY, LATE_LAUNCH, LOWER_CLOCK, MORE_ROWS, MORE_WORK, SLOWER, GroupAnalysis
from moeprof.ranks.summary import RankFacts
from moeprof.trace import Trace

base = rank_traces.base


def compared(analysis: GroupAnalysis, truth: Truth, within_ns: int) -> None:
    """Skew and last rank of every collective as planted, where the skew is beyond doubt."""
    (found,) = analysis.collectives
    skew = truth.arrivals.max(axis=0) - truth.arrivals.min(axis=0)
    assert np.abs(np.array([a.skew_ns for a in found.arrivals]) - skew).max() <= within_ns
    moving = truth.ends.max(axis=0) - truth.arrivals.max(axis=0)
    assert np.abs(np.array([a.moving_ns for a in found.arrivals]) - moving).max() <= within_ns
    told = [(a.last_rank, int(r)) for a, r in zip(found.arrivals, truth.arrivals.argmax(axis=0), strict=True)]
    assert all(rank == really for rank, really in told if rank is not None) and any(r is not None for r, _ in told)


# planted stragglers


@pytest.mark.parametrize("jitter", [0.02, 0.2])
def test_jitter_alone_makes_no_straggler(base: Trace, jitter: float) -> None:
    made, truth = grow(base, Planted((0,) * 8, jitter=jitter))
    analysis = analysed(made)
    compared(analysis, truth, 0)
    behind = truth.arrivals - np.sort(truth.arrivals, axis=0)[3]
    late = [r.lateness.late_ns for r in analysis.ranks if r.lateness is not None]
    assert late == np.maximum(behind, 0).sum(axis=1).tolist()
    assert analysis.stragglers == () and (jitter < 0.1 or max(late) > 0.01 * analysis.ranks[0].total("span_ns"))


@pytest.mark.parametrize("straggler", [0, 2, 3])
def test_a_rank_whose_kernels_are_delayed_is_named_with_the_time(base: Trace, straggler: int) -> None:
    made, truth = grow(base, Planted((0,) * 4, late={straggler: ("compute", 150_000)}))
    analysis = analysed(made)
    compared(analysis, truth, 0)
    (found,) = analysis.stragglers
    assert (found.rank, found.cause, found.last, found.of) == (straggler, SLOWER, 7, 7)
    assert found.of_it_ns == 7 * 150_000 and abs(found.late_ns - found.of_it_ns) < 7 * 1_000
    assert {(c.rank, c.why, c.cause) for c in analysis.critical} == {(straggler, "waited for", "compute")}
    waiting = [r.total("waiting_ns") for r in analysis.ranks]
    assert waiting[straggler] < 7_000 < 7 * 149_000 < min(w for r, w in enumerate(waiting) if r != straggler)


def test_a_late_host_is_told_from_long_compute(base: Trace) -> None:
    made, truth = grow(base, Planted((0,) * 4, jitter=0.002, late={1: ("host", 150_000)}))
    analysis = analysed(made)
    compared(analysis, truth, 0)
    (found,) = analysis.stragglers
    assert (found.rank, found.cause) == (1, LATE_LAUNCH) and found.late_ns == pytest.approx(7 * 150_000, rel=0.1)
    lateness = analysis.ranks[1].lateness
    assert lateness is not None and abs(lateness.because["compute"]) < 0.1 * found.late_ns
    starved = lateness.because["host"] + lateness.because["dependency"]  # in some stretches the host was never behind
    assert starved == pytest.approx(7 * 150_000, rel=0.1)
    assert found.cause != DEPENDENCY and found.compute_ratio == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("known", "cause"), [("nothing", SLOWER), ("blocks", MORE_WORK), ("rows", MORE_ROWS), ("clock", LOWER_CLOCK)]
)
def test_stretched_compute_is_named_with_factor_and_reason(base: Trace, known: str, cause: str) -> None:
    made, truth = grow(base, Planted((0,) * 4, jitter=0.001, stretched={2: 1.2}))
    if known == "blocks":
        made[2] = (made[2][0], more_blocks(made[2][1], 1.2))
    more: dict[str, Any] = {
        "rows": {"series": {"rows of experts": [100, 100, 120, 100]}},
        "clock": {"clocks_mhz": {0: 1980, 1: 1980, 2: 1650, 3: 1980}},
    }.get(known, {})
    analysis = analysed(made, **more)
    compared(analysis, truth, 0)
    (found,) = analysis.stragglers
    assert (found.rank, found.cause) == (2, cause)
    assert found.compute_ratio == pytest.approx(1.2, abs=0.005)
    kernels = base.ops[base.ops["kind"] == "kernel"]
    assert found.of_it_ns == pytest.approx(0.2 * (kernels["end_ns"] - kernels["start_ns"]).sum(), rel=0.05)
    assert found.work_ratio == pytest.approx(1.2 if known == "blocks" else 1.0, abs=0.01)
    assert found.load_ratio == (pytest.approx(1.2) if known == "rows" else None)
    assert found.clock_ratio == (pytest.approx(1650 / 1980) if known == "clock" else None)


def test_the_second_latest_rank_is_named_too(base: Trace) -> None:
    late = {5: ("compute", 300_000), 1: ("compute", 150_000)}
    analysis = analysed(grow(base, Planted((0,) * 8, jitter=0.001, late=late))[0])
    assert [(s.rank, s.last) for s in analysis.stragglers] == [(5, 7), (1, 0)]
    assert analysis.stragglers[1].late_ns == pytest.approx(7 * 150_000, rel=0.1)


def test_load_that_does_not_explain_the_time_is_not_blamed(base: Trace) -> None:
    made, _ = grow(base, Planted((0,) * 4, jitter=0.001, stretched={2: 1.2}))
    analysis = analysed(made, series={"expert rows": [300, 100, 101, 100]})
    (found,), (load,) = analysis.stragglers, analysis.load
    assert found.cause == SLOWER and load.load == (300, 100, 101, 100)
    assert (
        load.load_max_over_mean == pytest.approx(300 / 150.25) and load.correlation is not None and load.correlation < 0
    )
    assert load.compute_max_over_mean == pytest.approx(1.2 / 1.05, abs=0.01)


# clocks


def test_shifted_clocks_are_found_again(base: Trace) -> None:
    clocks = (0, 5_000_000, -3_000_000_000, 123_456_789)
    made, truth = grow(base, Planted(clocks, jitter=0.005, stretched={3: 1.1}))
    analysis = analysed(made, one_clock=False)
    assert analysis.clocks.method == "ends" and (analysis.clocks.residual_ns or 0) < 1_000
    assert [(r.aligned_by_ns or 0) + c for r, c in zip(analysis.ranks, clocks, strict=True)] == pytest.approx(
        [0] * 4, abs=1_000
    )
    compared(analysis, truth, 2_000)
    assert [(s.rank, s.cause) for s in analysis.stragglers] == [(3, SLOWER)]
    assert_consistent(analysis)


def test_one_clock_is_not_moved(base: Trace) -> None:
    analysis = analysed(grow(base, Planted((0, 0, 0)))[0])
    assert (analysis.clocks.method, [r.aligned_by_ns for r in analysis.ranks]) == ("one trace", [0, 0, 0])


def placed(
    found: list[RankFacts], clocks: tuple[int, ...], doubts: tuple[int, ...], off: tuple[int, ...] = (0, 0, 0)
) -> list[RankFacts]:
    """Each rank on a host of its own, whose offset was measured wrong by ``off`` and is said to be known to within ``doubts``."""
    return [
        replace(
            rank,
            place=replace(
                rank.place,
                host=f"host{i}",
                clock_offset_ns=-clocks[i] + off[i],
                zero_utc_ns=10**18,
                clock_uncertainty_ns=doubts[i],
            ),
        )
        for i, rank in enumerate(found)
    ]


def test_measured_offsets_are_used(base: Trace) -> None:
    clocks = (0, 700_000, -900_000)
    made, truth = grow(base, Planted(clocks, late={1: ("compute", 150_000)}))
    found = facts_of(made, one_clock=False)
    analysis = analyse_ranks("made", placed(found, clocks, (0, 0, 0)))
    assert analysis.clocks.method == "given"
    compared(analysis, truth, 0)


def test_a_skew_within_the_doubt_of_measured_clocks_is_nobody_s(base: Trace) -> None:
    clocks = (0, 700_000, -900_000)
    made, _ = grow(base, Planted(clocks, late={1: ("compute", 150_000)}))
    found = facts_of(made, one_clock=False)
    sure, unsure = (
        analyse_ranks("made", placed(found, clocks, (0, *d))) for d in ((20_000, 30_000), (20_000, 9_000_000))
    )
    assert sure.clocks.uncertainty_ns == 50_000 and unsure.clocks.uncertainty_ns == 9_020_000
    assert "to within 50.0 us" in sure.clocks.text and sure.clocks.method == "given"
    assert any(n.id == "rank-clock-within" for n in sure.notes)
    last = [[a.last_rank for c in each.collectives for a in c.arrivals] for each in (sure, unsure)]
    assert 1 in last[0] and set(last[1]) == {None}, "below the doubt nobody is called last"
    skews = [[a.skew_ns for c in each.collectives for a in c.arrivals] for each in (sure, unsure)]
    assert skews[0] == skews[1], "and the skew itself stays as it was measured"


def test_clocks_that_the_ends_of_collectives_belie_are_doubted_and_not_corrected(base: Trace) -> None:
    clocks = (0, 700_000, -900_000)
    made, _ = grow(base, Planted(clocks, late={1: ("compute", 150_000)}))
    found = facts_of(made, one_clock=False)
    off = analyse_ranks("made", placed(found, clocks, (0, 20_000, 20_000), off=(0, 400_000, 0)))
    assert off.clocks.method == "given" and (off.clocks.residual_ns or 0) > 300_000
    assert [r.aligned_by_ns for r in off.ranks] == [0, -300_000, 900_000]
    (said,) = [n for n in off.notes if n.id == "rank-clock-off"]
    assert said.severity == "warning" and said.evidence["uncertainty_us"] == 40.0


def test_without_a_common_collective_waiting_is_withheld(base: Trace) -> None:
    made, _ = grow(base, Planted((0, 10**9)))
    alone = replace(made[1][1], ops=made[1][1].ops[made[1][1].ops["kind"] != "comm"].reset_index(drop=True))
    analysis = analysed([made[0], (made[1][0], alone)], one_clock=False)
    assert analysis.clocks.method == "none" and all(r.aligned_by_ns is None for r in analysis.ranks)
    assert all(r.windows[0].waiting_ns is None and r.lateness is None for r in analysis.ranks)
    assert {c.why for c in analysis.critical} == {"longest"}
    assert any(n.id == "rank-no-clock" for n in analysis.notes)
    assert [c.refused for c in analysis.collectives] == ["only rank 0 has it"]
