"""Many ranks side by side: exact ledgers, arrivals, planted stragglers and clocks, matching, bus bandwidth."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import manyranks
import numpy as np
import pandas as pd
import pytest
from captures import Ran
from hypothesis import given, settings
from hypothesis import strategies as st
from manyranks import MOVING_NS, Planted, Truth, analysed, facts_of, grow, more_blocks

from moeprof.metrics.analyze import analyze
from moeprof.metrics.collective import bus_factor, kind_of_kernel, kind_of_message
from moeprof.metrics.group import (
    DEPENDENCY,
    LATE_LAUNCH,
    LOWER_CLOCK,
    MORE_ROWS,
    MORE_WORK,
    SLOWER,
    GroupAnalysis,
    Place,
)
from moeprof.metrics.rankfacts import RankFacts, facts
from moeprof.metrics.ranks import Joined, analyse_ranks
from moeprof.trace import Trace, read
from moeprof.trace.split import split
from moeprof.trace.tables import CALLS, OPS, RANGES, table

Run = Callable[..., Ran]
REAL = ("mfu_2gpu_before", "mfu_2gpu_after", "h100_2gpu_1s")
KINDS = ("kernel", "comm", "copy", "memset", "migration", "graph")


@pytest.fixture(scope="module")
def base(traces: Path) -> Trace:
    """The rank that others are made from."""
    assert traces
    return manyranks.real()


# exactness

SOME_OPS = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 80), st.integers(0, 2), st.integers(0, 2), st.sampled_from(KINDS)),
    min_size=1,
    max_size=60,
)


def of_ops(rows: list[tuple[int, int, int, int, str]], processes: bool) -> Trace:
    """A trace of operations: start, length, device, stream, kind; each device's are of its own process, or all of one."""
    starts, lengths, devices, streams, kinds = zip(*rows, strict=True)
    data = {
        "start_ns": starts, "end_ns": [a + b for a, b in zip(starts, lengths, strict=True)], "device": devices, "stream": streams,
        "kind": kinds, "name": ["ncclDevKernel_AllReduce" if k == "comm" else "gemm" for k in kinds],
        "pid": [100 + d if processes else 100 for d in devices],
    }  # fmt: skip
    return Trace(Path("made"), "nsys", None, None, table(OPS, data), table(CALLS, {}), table(RANGES, {}))


@settings(max_examples=150, deadline=None)
@given(SOME_OPS, st.booleans())
def test_ledgers_sum_and_are_those_of_analyze_on_any_trace(rows: list[Any], processes: bool) -> None:
    trace = of_ops(rows, processes)
    windows = {w.device: w for w in analyze(trace).windows}
    pieces = split(trace)
    found = [facts(Place(n, "", "one", p.device), p.trace) for n, p in enumerate(pieces)]
    for rank in (r for r in found if r is not None):
        (mine,), theirs = rank.windows, windows[rank.place.device or 0]
        assert sum(vars(mine.ledger).values()) == mine.span_ns == mine.end_ns - mine.start_ns
        assert sum(vars(mine.idle).values()) == mine.ledger.idle_ns
        assert (mine.ledger, mine.idle, mine.communication) == (theirs.ledger, theirs.idle, theirs.communication)
        side = rank.collectives
        assert (side.before.sum(axis=0) == side.starts - side.left).all() and (side.before >= 0).all()
    if len(found) > 1:
        assert_consistent(analyse_ranks("made", [r for r in found if r is not None]))


def assert_consistent(analysis: GroupAnalysis) -> None:
    """What must hold of any group, to the nanosecond."""
    for rank in analysis.ranks:
        for window in rank.windows:
            assert sum(vars(window.ledger).values()) == window.span_ns
            assert sum(vars(window.idle).values()) == window.ledger.idle_ns
            if window.waiting_ns is not None:
                assert 0 <= (window.exposed_waiting_ns or 0) <= min(window.waiting_ns, window.ledger.exposed_comm_ns)
        if rank.lateness is not None:
            assert sum(rank.lateness.because.values()) == rank.lateness.late_ns
    for collective in analysis.collectives:
        for arrival in collective.arrivals:
            assert arrival.skew_ns >= arrival.late_ns >= 0 and arrival.moving_ns >= 0


@pytest.mark.parametrize("name", REAL)
def test_ranks_of_real_traces_say_what_analyze_says(command: Run, traces: Path, name: str) -> None:
    path = traces / "nsys" / f"{name}.sqlite"
    found = json.loads(command("ranks", path, "--json").out)
    windows = {w["device"]: w for w in json.loads(command("analyze", path, "--json").out)["windows"]}
    assert [r["place"]["rank"] for r in found["ranks"]] == [0, 1] and found["schema_version"] == 1
    for rank in found["ranks"]:
        (mine,), theirs = rank["windows"], windows[rank["place"]["device"]]
        for key in ("start_ns", "end_ns", "span_ns", "ledger", "idle", "communication"):
            assert mine[key] == theirs[key], key
        assert sum(mine["ledger"].values()) == mine["span_ns"]


def test_windows_of_a_range_are_those_of_analyze(command: Run, traces: Path) -> None:
    path = traces / "nsys" / "mfu_2gpu_before.sqlite"
    found = json.loads(command("ranks", path, "--range", "ncclGroupEnd", "--json").out)
    windows = json.loads(command("analyze", path, "--range", "ncclGroupEnd", "--json").out)["windows"]
    for rank in found["ranks"]:
        theirs = [w for w in windows if w["device"] == rank["place"]["device"]]
        assert [w["ledger"] for w in rank["windows"]] == [w["ledger"] for w in theirs] and len(theirs) > 30
        assert [w["instance"] for w in rank["windows"]] == list(range(len(theirs)))
    ran = command("ranks", path, "--range", "nowhere")
    assert ran.code == 2 and "no range 'nowhere'" in ran.err


# arrivals


def test_arrivals_of_a_real_trace_against_a_loop(traces: Path) -> None:
    trace = read(traces / "nsys" / "mfu_2gpu_before.sqlite")
    comm = [trace.ops[(trace.ops["device"] == d) & (trace.ops["kind"] == "comm")] for d in (0, 1)]
    waited, skews, moved = [0, 0], [], []
    for a, b in zip(comm[0].itertuples(), comm[1].itertuples(), strict=True):
        last = max(a.start_ns, b.start_ns)
        for side, row in enumerate((a, b)):
            waited[side] += min(max(last - row.start_ns, 0), row.end_ns - row.start_ns)
        skews.append(last - min(a.start_ns, b.start_ns))
        moved.append(max(a.end_ns, b.end_ns) - last)
    analysis = analyse_ranks("made", [r for r in map(of_piece, split(trace)) if r is not None])
    assert_consistent(analysis)
    (found,) = analysis.collectives
    assert ([r.windows[0].waiting_ns for r in analysis.ranks], found.matched, found.refused) == (waited, 33, "")
    assert [a.skew_ns for a in found.arrivals] == skews and [a.moving_ns for a in found.arrivals] == moved
    assert sum(waited) == found.waiting_ns and found.bus_gb_per_s is None
    assert any("does not tell message sizes" in n.text for n in analysis.notes)
    assert sum(r.lateness.late_ns for r in analysis.ranks if r.lateness) == sum(skews)


def of_piece(piece: Any) -> RankFacts | None:
    return facts(Place(piece.device, "", "one", piece.device, piece.pid), piece.trace)


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


def test_measured_offsets_are_used(base: Trace) -> None:
    clocks = (0, 700_000, -900_000)
    made, truth = grow(base, Planted(clocks, late={1: ("compute", 150_000)}))
    found = facts_of(made, one_clock=False)
    told = [replace(r, place=replace(r.place, host=f"host{i}", clock_offset_ns=-c, zero_utc_ns=10**18)) for i, (r, c) in enumerate(zip(found, clocks, strict=True))]  # fmt: skip
    analysis = analyse_ranks("made", told)
    assert analysis.clocks.method == "given"
    compared(analysis, truth, 0)


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


# matching


def without(made: tuple[Place, Trace], dropped: list[int]) -> tuple[Place, Trace]:
    place, trace = made
    rows = trace.ops.index[trace.ops["kind"] == "comm"][dropped]
    return place, replace(trace, ops=trace.ops.drop(rows).reset_index(drop=True))


def test_matching_is_by_order_and_not_by_time(base: Trace) -> None:
    made, _ = grow(base, Planted((0, 40_000_000)))  # by time nearly every collective would meet a later one
    joined = Joined.of(facts_of(made))
    (match,) = joined.matched
    assert (match.rows == np.arange(7)).all()
    (found,) = analysed(made).collectives
    assert not any(a.together for a in found.arrivals)
    assert any(n.id == "rank-doubt" for n in analysed(made).notes)


def test_counts_that_differ_are_matched_where_iterations_agree(base: Trace) -> None:
    made, _ = grow(base, Planted((0,) * 4))
    made[2] = without(made[2], [0])
    analysis = analysed(made)
    (found,) = analysis.collectives
    assert (found.least, found.most, found.matched) == (6, 7, 4)
    assert found.refused == "counts differ: rank 2 has 6, the others 7" and found.coverage_ratio == 16 / 27
    assert found.arrivals[0].together and any(n.id == "rank-refused" for n in analysis.notes)


def test_counts_that_differ_without_iterations_are_refused(base: Trace) -> None:
    made, _ = grow(base, Planted((0,) * 3))
    bare = [(place, replace(trace, ranges=table(RANGES, {}))) for place, trace in made]
    bare[1] = without(bare[1], [3])
    (found,) = analysed(bare).collectives
    assert (found.matched, found.arrivals, found.waiting_ns) == (0, (), None) and "rank 1 has 6" in found.refused


def told(made: tuple[Place, Trace], columns: dict[str, Any]) -> tuple[Place, Trace]:
    """The rank with messages beside its collectives."""
    place, trace = made
    comm = trace.ops[trace.ops["kind"] == "comm"]
    own = {name: comm[name].to_numpy() for name in ("start_ns", "end_ns", "device", "stream")}
    listed = {k: v if isinstance(v, list) else [v] * len(comm) for k, v in columns.items()}
    return place, replace(trace, messages=pd.DataFrame(own | listed)[list(MESSAGE)].astype({"collective": "category"}))


MESSAGE = {
    "start_ns": 0, "end_ns": 0, "device": 0, "stream": 0, "collective": "ncclAllReduce", "group": "a", "group_size": -1, "bytes": 8 << 20,
    "per_rank": 0, "peers": -1, "sequence": -1,
}  # fmt: skip


def messaged(made: list[tuple[Place, Trace]], change: Callable[[int], dict[str, Any]]) -> list[tuple[Place, Trace]]:
    own = {k: v for k, v in MESSAGE.items() if k not in ("start_ns", "end_ns", "device", "stream")}
    return [told(rank, own | change(number)) for number, rank in enumerate(made)]


def test_sizes_that_differ_refuse_the_match(base: Trace) -> None:
    made, _ = grow(base, Planted((0, 0)))
    odd = [8 << 20] * 7
    odd[4] = 4 << 20
    (found,) = analysed(messaged(made, lambda rank: {"bytes": odd if rank else 8 << 20})).collectives
    assert found.refused == f"sizes differ: number 5 is of {4 << 20} to {8 << 20} bytes" and found.matched == 0


def test_communicators_are_kept_apart(base: Trace) -> None:
    made, truth = grow(base, Planted((0,) * 4, jitter=0.01))
    pairs = analysed(messaged(made, lambda rank: {"group": "ab"[rank // 2]})).collectives
    assert [(c.group, c.ranks, c.matched) for c in pairs] == [("a", (0, 1), 7), ("b", (2, 3), 7)]
    skew = np.abs(truth.arrivals[2] - truth.arrivals[3])
    assert [a.skew_ns for a in pairs[1].arrivals] == skew.tolist()


def test_sequence_numbers_match_what_order_cannot(base: Trace) -> None:
    made, truth = grow(base, Planted((0, 0), jitter=0.01))
    first = without(made[0], [0, 3])
    made = [
        told(first, {**_plain(), "sequence": [1, 2, 4, 5, 6]}),
        told(made[1], {**_plain(), "sequence": list(range(7))}),
    ]
    (found,) = analysed(made).collectives
    skew = np.abs(truth.arrivals[0] - truth.arrivals[1])[[1, 2, 4, 5, 6]]
    assert (found.matched, found.refused) == (5, "") and [a.skew_ns for a in found.arrivals] == skew.tolist()


def _plain() -> dict[str, Any]:
    return {k: v for k, v in MESSAGE.items() if k not in ("start_ns", "end_ns", "device", "stream")}


def test_an_absent_rank_is_said(base: Trace) -> None:
    made, _ = grow(base, Planted((0, 0)))
    analysis = analysed(messaged(made, lambda rank: {"group_size": 8}))
    assert any("2 of 8 ranks are here" in n.text for n in analysis.notes)


# bus bandwidth


@pytest.mark.parametrize(
    ("kind", "ranks", "factor"),
    [("AllReduce", 2, 1.0), ("AllReduce", 8, 1.75), ("AllGather", 4, 0.75), ("ReduceScatter", 8, 0.875), ("AllToAll", 8, 0.875), ("Broadcast", 8, 1.0),
     ("Reduce", 3, 1.0), ("SendRecv", 2, 1.0), ("Barrier", 4, None), ("AllReduce", 1, None)],
)  # fmt: skip
def test_bus_factors_are_those_of_nccl_tests(kind: str, ranks: int, factor: float | None) -> None:
    assert bus_factor(kind, ranks) == factor


@pytest.mark.parametrize(
    ("message", "whole_bytes", "factor"),
    [({}, 8 << 20, 1.5), ({"collective": "ncclAllGather", "per_rank": 1}, 32 << 20, 0.75), ({"collective": "ncclReduceScatter", "per_rank": 1}, 32 << 20, 0.75),
     ({"collective": "ncclSendRecv", "peers": 4}, 8 << 20, 0.75), ({"collective": "ncclSendRecv", "peers": 1}, 8 << 20, 1.0)],
)  # fmt: skip
def test_bus_bandwidth_is_over_the_moving_time(
    base: Trace, message: dict[str, Any], whole_bytes: int, factor: float
) -> None:
    made, truth = grow(base, Planted((0,) * 4, late={1: ("compute", 150_000)}))
    (found,) = analysed(messaged(made, lambda rank: message), link_ceiling_gb_per_s=100.0).collectives
    moving = truth.ends.max(axis=0) - truth.arrivals.max(axis=0)
    rates = factor * whole_bytes / moving
    assert [a.bus_gb_per_s for a in found.arrivals] == pytest.approx(rates.tolist())
    assert found.bus_gb_per_s == pytest.approx(np.median(rates)) and found.of_ceiling == pytest.approx(
        np.median(rates) / 100
    )
    assert (
        found.bytes == 7 * whole_bytes
        and moving.max() <= MOVING_NS + 1_000
        and found.exchange == (factor == 0.75 and message.get("peers") == 4)
    )


def test_an_uneven_exchange_counts_its_busiest_rank(base: Trace) -> None:
    made, _ = grow(base, Planted((0,) * 4))
    (found,) = analysed(
        messaged(made, lambda rank: {"collective": "ncclSendRecv", "peers": 4, "bytes": (1 + rank) << 20})
    ).collectives
    assert {a.bytes for a in found.arrivals} == {4 << 20} and found.refused == ""


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "AllReduce"), ("ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclWorkElem)", "SendRecv"),
     ("ncclDevKernel_AllGather_RING_LL(x)", "AllGather"), ("void deep_ep::internode::dispatch<int>(int)", "DeepEP: dispatch")],
)  # fmt: skip
def test_kinds_of_kernels(name: str, kind: str) -> None:
    assert kind_of_kernel(name) == kind


@pytest.mark.parametrize(("called", "kind"), [("_allgather_base", "AllGather"), ("ncclReduceScatter", "ReduceScatter"), ("all_to_allv", "AllToAll"), ("ncclSendRecv", "SendRecv"), ("other", "other")])  # fmt: skip
def test_kinds_of_calls(called: str, kind: str) -> None:
    assert kind_of_message(called) == kind
