"""Many ranks side by side: exact ledgers, windows and arrivals, on made traces and on real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.rank_traces import assert_consistent
from builders.sample_captures import Ran
from hypothesis import given
from hypothesis import strategies as st

from moeprof.analysis.analyze import analyze
from moeprof.ranks.analyze import analyse_ranks
from moeprof.ranks.model import Place
from moeprof.ranks.summary import RankFacts, facts
from moeprof.trace import Trace, read
from moeprof.trace.split import split
from moeprof.trace.tables import CALLS, OPS, RANGES, table

Run = Callable[..., Ran]
REAL = ("mfu_2gpu_before", "mfu_2gpu_after", "h100_2gpu_1s")
KINDS = ("kernel", "comm", "copy", "memset", "migration", "graph")


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


@given(SOME_OPS, st.booleans())
def test_ledgers_sum_and_are_those_of_analyze_on_any_trace(rows: list[Any], processes: bool) -> None:
    trace = of_ops(rows, processes)
    windows = {w.device: w for w in analyze(trace).windows}
    pieces = split(trace)
    found = [facts(Place(n, "", "one", p.device), p.trace) for n, p in enumerate(pieces)]
    assert sum(r is not None for r in found) >= len(
        {device for _, length, device, _, kind in rows if length and kind == "kernel"}
    )
    for rank in (r for r in found if r is not None):
        (mine,), theirs = rank.windows, windows[rank.place.device or 0]
        assert sum(vars(mine.ledger).values()) == mine.span_ns == mine.end_ns - mine.start_ns
        assert sum(vars(mine.idle).values()) == mine.ledger.idle_ns
        assert (mine.ledger, mine.idle, mine.communication) == (theirs.ledger, theirs.idle, theirs.communication)
        side = rank.collectives
        assert (side.before.sum(axis=0) == side.starts - side.left).all() and (side.before >= 0).all()
    if len(found) > 1:
        assert_consistent(analyse_ranks("made", [r for r in found if r is not None]))


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
    assert any("does not contain message sizes" in n.text for n in analysis.notes)
    assert sum(r.lateness.late_ns for r in analysis.ranks if r.lateness) == sum(skews)


def of_piece(piece: Any) -> RankFacts | None:
    return facts(Place(piece.device, "", "one", piece.device, piece.pid), piece.trace)
