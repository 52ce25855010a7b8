"""Traces made in memory from a few rows, and hypothesis strategies for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from moeprof.trace.classify import call_kind
from moeprof.trace.tables import CALLS, OPS, RANGES, Trace, table

KINDS = ("kernel", "comm", "copy", "migration", "memset", "graph")


def trace(
    ops: list[dict[str, Any]], calls: list[dict[str, Any]] | None = None, ranges: list[dict[str, Any]] | None = None
) -> Trace:
    """A trace of these rows; what a row leaves out takes the table's blank (device 0, stream 7, process 1, thread 1)."""
    return Trace(
        Path("made"), "nsys", None, None,
        _table(OPS, ops, {"device": 0, "stream": 7, "context": 1, "pid": 1, "kind": "kernel", "name": "k"}),
        _table(CALLS, calls or [], {"pid": 1, "tid": 1, "name": "cudaLaunchKernel"}, kind=True),
        _table(RANGES, ranges or [], {"pid": 1, "tid": 1, "end_tid": 1, "style": "pushpop", "domain": "moeprof", "name": "iteration"}),
    )  # fmt: skip


def _table(columns: dict[str, str], rows: list[dict[str, Any]], usual: dict[str, Any], kind: bool = False) -> Any:
    full = [usual | row for row in rows]
    if kind:
        full = [row | {"kind": call_kind(row["name"])} for row in full]
    blank = {name: "" if dtype == "category" else -1 for name, dtype in columns.items()}
    return table(columns, {name: [row.get(name, blank[name]) for row in full] for name in columns})


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Up to 12 operations of any kind on one device within 60 ns, some joined to calls of two threads, and loose calls."""
    names = (
        "cudaLaunchKernel",
        "cudaMemcpyAsync",
        "cudaDeviceSynchronize",
        "cudaGraphLaunch",
        "cudaMemcpy",
        "cudaEventRecord",
    )
    calls = draw(
        st.lists(
            st.tuples(st.integers(0, 50), st.integers(0, 9), st.sampled_from(names), st.integers(1, 2)).map(
                lambda c: {"start_ns": c[0], "end_ns": c[0] + c[1], "name": c[2], "tid": c[3]}
            ),
            max_size=6,
        )
    )
    calls.sort(key=lambda c: (c["start_ns"], c["end_ns"]))
    rows = st.tuples(
        st.integers(0, 50), st.integers(0, 12), st.sampled_from(KINDS), st.integers(-1, len(calls) - 1), st.sampled_from((7, 13)),
        st.sampled_from(("H2D", "D2H")), st.sampled_from(("pinned", "pageable")), st.integers(-1, 1),
    )  # fmt: skip
    ops = draw(st.lists(rows, min_size=1, max_size=12))
    return trace(
        [
            {
                "start_ns": s, "end_ns": s + d, "kind": kind, "call": call, "stream": stream, "bytes": 10 * d,
                "direction": direction if kind == "copy" else "", "src_memory": memory, "dst_memory": "device", "graph_node": node,
            }
            for s, d, kind, call, stream, direction, memory, node in ops
        ],
        calls,
    )  # fmt: skip
