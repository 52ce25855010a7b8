"""What kernels cost beyond their length, and which family owns the compute of a device."""

from __future__ import annotations

import numpy as np
import pytest
from builders.trace_tables import trace, traces
from hypothesis import given
from recorded import recordings

from moeprof.analysis.analyze import analyze, kernels
from moeprof.analysis.copy_sizes import copy_sizes
from moeprof.analysis.device import views
from moeprof.analysis.kernel_costs import costed, families, owners
from moeprof.analysis.memory import MOST_POINTS, memory_use
from moeprof.trace import Trace
from moeprof.trace.tables import MEMORY, table


def test_exposed_is_what_no_other_kernel_hides() -> None:
    ops = [
        {"start_ns": 0, "end_ns": 100, "name": "gemm"}, {"start_ns": 50, "end_ns": 120, "name": "norm", "stream": 8},
        {"start_ns": 60, "end_ns": 70, "name": "gemm", "stream": 9}, {"start_ns": 200, "end_ns": 230, "name": "gemm"},
        {"start_ns": 210, "end_ns": 240, "name": "H2D", "kind": "copy", "direction": "H2D"},
    ]  # fmt: skip
    (view,) = views(trace(ops))
    found = {k.name: k for k in costed(view, kernels(view))}
    assert found["gemm"].exposed_ns == 50 + 30, "a copy and a kernel of the same name hide nothing"
    assert found["norm"].exposed_ns == 20
    assert (found["gemm"].family, found["norm"].family) == ("gemm", "elementwise")


def test_idle_before_goes_to_the_kernel_that_ends_the_gap() -> None:
    ops = [
        {"start_ns": 0, "end_ns": 10, "name": "a"}, {"start_ns": 30, "end_ns": 40, "name": "b"},
        {"start_ns": 45, "end_ns": 50, "name": "memset", "kind": "memset"}, {"start_ns": 51, "end_ns": 60, "name": "b"},
    ]  # fmt: skip
    (view,) = views(trace(ops))
    assert {k.name: k.idle_before_ns for k in costed(view, kernels(view))} == {"a": 0, "b": 21}


@given(traces())
def test_costs_against_a_walk_over_every_nanosecond(made: Trace) -> None:
    analysis = analyze(made)
    for view in views(made):
        costs = {k.name: k for k in costed(view, kernels(view))}
        ops = list(view.ops.itertuples())
        exposed = dict.fromkeys(costs, 0)
        for t in range(0, 70):
            running = {
                op.name if op.kind != "graph" else f"graph {i}"
                for i, op in enumerate(ops)
                if op.start_ns <= t < op.end_ns and op.kind in ("kernel", "comm", "graph")
            }
            if len(running) == 1 and (name := running.pop()) in exposed:
                exposed[name] += 1
        graphs = any(op.kind == "graph" for op in ops)
        if not graphs:
            assert {n: k.exposed_ns for n, k in costs.items()} == exposed
        of_family = families(tuple(costs.values()), {view.index: owners(view)}, {view.index: view.busy})
        window = next(w for w in analysis.windows if w.device == view.index)
        compute = sum(union.total_ns for name, union in owners(view).items() if name != "communication")
        assert compute == window.ledger.compute_ns
        assert sum(u.total_ns for n, u in owners(view).items() if n == "communication") == window.ledger.exposed_comm_ns
        assert all(f.judged_ns == f.owned_ns for f in of_family), "all of the busy time is judged here"
        assert sum(f.total_ns for f in of_family) == sum(k.total_ns for k in costs.values())


@pytest.mark.parametrize("name", ["tiny-copies-faulty", "late-issue-faulty", "pageable-copy-faulty"])
def test_copies_by_size_sum_to_copies_by_direction(name: str) -> None:
    shown = recordings.trace(name)
    for view, window in zip(views(shown), analyze(shown).windows, strict=True):
        sizes = copy_sizes(view)
        for copies in window.copies:
            of_kind = [s for s in sizes if (s.direction, s.memory) == (copies.direction, copies.memory)]
            assert sum(s.count for s in of_kind) == copies.count
            assert sum(s.exposed_ns for s in of_kind) == copies.exposed_ns
            assert sum(s.bytes for s in of_kind) == copies.bytes
            for s in of_kind:
                assert s.from_bytes * s.count <= s.bytes and (s.to_bytes is None or s.bytes <= s.to_bytes * s.count)
        assert sum(s.count for s in sizes) == sum(c.count for c in window.copies)


def test_a_size_at_a_bound_is_in_the_class_above() -> None:
    ops = [
        {"start_ns": i * 100, "end_ns": i * 100 + 50, "kind": "copy", "direction": "H2D", "name": "H2D", "bytes": size}
        for i, size in enumerate((4095, 4096, 1 << 30))
    ]
    (view,) = views(trace(ops))
    assert [(s.from_bytes, s.to_bytes, s.count) for s in copy_sizes(view)] == [
        (0, 4096, 1),
        (4096, 65536, 1),
        (256 << 20, None, 1),
    ]


def remembered(changes: list[int], totals: list[int] | None = None) -> Trace:
    made = trace([{"start_ns": 0, "end_ns": 5}])
    columns = {"time_ns": list(range(len(changes))), "device": [0] * len(changes), "bytes": changes}
    if totals is not None:
        columns |= {"allocated_bytes": totals, "reserved_bytes": [2 * max(totals)] * len(totals)}
    return Trace(made.path, "nsys", None, None, made.ops, made.calls, made.ranges, memory=table(MEMORY, columns))


def test_memory_adds_up_what_nsys_records() -> None:
    (use,) = memory_use(remembered([100, 50, -100, 25]))
    assert (use.source, use.first_bytes, use.peak_bytes, use.peak_at_ns, use.last_bytes) == ("cuda", 0, 150, 1, 75)
    (freed,) = memory_use(remembered([-300, 50]))
    assert (freed.first_bytes, freed.peak_bytes, freed.last_bytes) == (300, 300, 50), "freed from before the recording"


def test_memory_takes_the_totals_of_pytorch() -> None:
    (use,) = memory_use(remembered([10, -10], [110, 100]))
    assert (use.source, use.first_bytes, use.peak_bytes, use.peak_reserved_bytes) == ("pytorch", 100, 110, 220)
    assert memory_use(trace([])) == ()


def test_thinned_memory_keeps_its_peak_and_its_ends() -> None:
    changes = np.where(np.arange(5_000) % 2, -90, 100)
    changes[3_333] += 7_000
    (use,) = memory_use(remembered([int(c) for c in changes]))
    values = [p.allocated_bytes for p in use.points]
    assert len(use.points) <= MOST_POINTS and max(values) == use.peak_bytes
    assert (use.points[0].time_ns, use.points[-1].time_ns) == (0, 4_999)
