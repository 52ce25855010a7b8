"""Copies: what they move and how fast, how much of them is exposed, and why; against brute force, real traces, and by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.trace_tables import trace, traces
from hypothesis import given
from recorded import recordings

from moeprof.analysis.analyze import analyze
from moeprof.trace import Trace, read


def test_copies_of_a_real_trace(traces: Path) -> None:
    found = analyze(read(traces / "nsys" / "h100_2gpu_1s.sqlite"))
    pinned = [c for w in found.windows for c in w.copies if (c.direction, c.memory) == ("H2D", "pinned")]
    assert sum(c.count for c in pinned) == 446
    assert round(sum(c.bytes for c in pinned) / 1e9, 2) == 50.95
    assert [round(c.throughput_gb_per_s or 0, 2) for c in pinned] == [27.66, 27.67]
    assert all(c.why_exposed == {"same_stream": c.exposed_ns} for c in pinned)


@given(traces())
def test_copies_sum_and_their_causes_too(found: Trace) -> None:
    for w in analyze(found).windows:
        ops = list(found.ops.itertuples())
        working = {t for o in ops if o.kind in ("kernel", "graph", "comm") for t in range(o.start_ns, o.end_ns)}
        assert {c.direction for c in w.copies} >= {
            o.direction for o in ops if o.kind == "copy" and o.end_ns > o.start_ns
        }
        for c in w.copies:
            alike = [o for o in ops if o.kind == "copy" and o.direction == c.direction]
            # the host side of D2H is the destination, the same for all here
            kept = [o for o in alike if c.direction == "D2H" or o.src_memory == c.memory]
            mine = {t for o in kept for t in range(o.start_ns, o.end_ns)}
            assert c.busy_ns == len(mine)
            assert c.overlapped_ns == len(mine & working)
            assert c.busy_ns == c.overlapped_ns + c.exposed_ns
            assert sum(c.why_exposed.values()) == c.exposed_ns


@pytest.mark.parametrize(
    ("copy", "cause"),
    [
        ({"src_memory": "pageable"}, "pageable"),
        ({"stream": 7}, "same_stream"),
        ({"start_ns": 320, "end_ns": 350}, "nothing_to_overlap"),
        ({"call": 2}, "issued_late"),
        ({"call": 1}, "dependency"),
    ],
)
def test_why_a_copy_is_exposed(copy: dict[str, object], cause: str) -> None:
    calls = [
        {"start_ns": 0, "end_ns": 1},
        {"start_ns": 2, "end_ns": 3, "name": "cudaMemcpyAsync"},
        {"start_ns": 105, "end_ns": 108, "name": "cudaMemcpyAsync"},
    ]
    usual = {
        "start_ns": 120,
        "end_ns": 180,
        "kind": "copy",
        "direction": "D2H",
        "stream": 13,
        "src_memory": "device",
        "dst_memory": "pinned",
        "call": 1,
    }
    ops = [{"start_ns": 10, "end_ns": 100, "call": 0}, {"start_ns": 200, "end_ns": 300, "call": 0}, usual | copy]
    (found,) = analyze(trace(ops, calls)).windows[0].copies
    assert list(found.why_exposed) == [cause]


def test_a_copy_behind_a_copy_waited_for_the_engine() -> None:
    calls = [{"start_ns": 0, "end_ns": 1}, {"start_ns": 2, "end_ns": 3, "name": "cudaMemcpyAsync"}]
    usual = {"kind": "copy", "direction": "D2H", "stream": 13, "call": 1}
    ops = [
        {"start_ns": 10, "end_ns": 100, "call": 0},
        {"start_ns": 50, "end_ns": 120} | usual,
        {"start_ns": 121, "end_ns": 150} | usual,
        {"start_ns": 200, "end_ns": 300, "call": 0},
    ]
    (found,) = analyze(trace(ops, calls)).windows[0].copies
    assert found.why_exposed == {"engine_busy": 29, "dependency": 20}


def test_peer_copies_are_communication() -> None:
    (window,) = analyze(recordings.trace("peer")).windows
    (peer,) = window.communication
    (copies,) = window.copies
    assert (peer.name, peer.count, peer.busy_ns) == ("peer copy", copies.count, copies.busy_ns)
    assert peer.hidden_ns == copies.overlapped_ns and peer.hidden_ns + peer.exposed_ns == peer.busy_ns
    assert window.ledger.exposed_comm_ns == 0, "copies are C in the ledger, whatever they carry"


CALLS = [{"start_ns": 0, "end_ns": 1}, {"start_ns": 2, "end_ns": 3, "name": "cudaMemcpyAsync"}]
COPY = {"kind": "copy", "direction": "D2H", "stream": 13, "src_memory": "device", "dst_memory": "pinned", "call": 1}
COMPUTE = [{"start_ns": 10, "end_ns": 1000, "call": 0}, {"start_ns": 1200, "end_ns": 2200, "call": 0}]


@pytest.mark.parametrize(
    ("compute", "signal_ns", "cause"),
    [
        (COMPUTE, 4, "dependency"),  # a signal after the copy: 4 of 104 ns in its stream, 4 of 1,994 of all kernels
        (COMPUTE, 8, "same_stream"),  # 8 of 108
        ([*COMPUTE[:1], {"start_ns": 1200, "end_ns": 1202, "call": 0, "stream": 13}], 2, "dependency"),
        ([], 4, "same_stream"),  # small, and all the kernels that there are
    ],
)
def test_signals_between_copies_do_not_make_a_stream_one_that_computes(
    compute: list[dict[str, object]], signal_ns: int, cause: str
) -> None:
    copy = COPY | {"start_ns": 1050, "end_ns": 1150}
    signal = {"start_ns": 1160, "end_ns": 1160 + signal_ns, "call": 0, "stream": 13}
    last = {"start_ns": 2300, "end_ns": 2301, "call": 0, "stream": 7 if compute else 13}
    (found,) = analyze(trace([*compute, copy, signal, last], CALLS)).windows[0].copies
    assert list(found.why_exposed) == [cause]
