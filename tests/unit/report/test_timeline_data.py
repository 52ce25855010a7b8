"""The data of timelines: what is written comes back, the sums are the ledger's, what is reduced is said."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timelines
from builders.trace_tables import trace, traces
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import recordings

from moeprof import resources
from moeprof.analysis.device import views
from moeprof.analysis.kernel_families import family_of
from moeprof.analysis.ledger import idle, ledger
from moeprof.analysis.model import Finding
from moeprof.loaded.trace import analysis_of
from moeprof.report.figures.timeline_classes import IDLE, WORK
from moeprof.report.figures.timeline_codec import bin_edges, sparse, text, varints, zigzag
from moeprof.report.figures.timeline_data import Timeline, timeline_data
from moeprof.report.figures.timeline_lanes import LEAST_CALL_NS, extent
from moeprof.trace import Trace, read
from moeprof.units import short_kernel

SAMPLES = resources.folder("reports") / "samples"
OWNERS = {"compute_ns": ("attention", "gemm", "copy-like", "elementwise", "compute", "graph"), "exposed_comm_ns": ("comm",), "exposed_copy_ns": ("h2d", "d2h", "d2d", "p2p", "copy"), "exposed_migration_ns": ("migration",), "exposed_memset_ns": ("memset",)}  # fmt: skip


@given(st.lists(st.integers(0, 2**63 - 1)))
def test_varints_come_back(values: list[int]) -> None:
    assert list(timelines.numbers(text(varints(np.array(values, dtype=np.uint64))))) == values


@given(st.lists(st.integers(-(2**62), 2**62)))
def test_signed_numbers_come_back(values: list[int]) -> None:
    assert [timelines.signed(n) for n in timelines.numbers(text(varints(zigzag(np.array(values)))))] == values


@given(st.lists(st.sampled_from((0, 0, 0, 1, 300, 10**15))))
def test_sparse_columns_come_back(values: list[int]) -> None:
    assert timelines.bins(text(sparse(np.array(values, dtype=np.int64))), len(values)) == values


@settings(max_examples=60, deadline=None)
@given(traces())
def test_the_payload_is_the_trace(made: Trace) -> None:
    payload = timeline_data(made).payload
    lanes = timelines.lanes(payload)
    the_payload_holds_exactly_the_operations(made, lanes)
    links_lead_to_the_launch_call(made, lanes)
    idle_pieces_and_overview_are_the_ledger(made, payload, lanes)
    every_bin_is_what_brute_force_counts(made, payload)


def the_payload_holds_exactly_the_operations(made: Trace, lanes: list[Any]) -> None:
    written = Counter(
        (e["start"], e["end"], e["name"], e["bytes"])
        for lane in lanes
        if lane["kind"] == "work"
        for e in lane["events"]
    )
    ops = made.ops
    there = Counter(
        (int(r.start_ns), int(r.end_ns), short_kernel(str(r.name), 80), int(r.bytes))
        for r in ops.itertuples(index=False)
    )
    assert written == there


def links_lead_to_the_launch_call(made: Trace, lanes: list[Any]) -> None:
    calls = {e["number"]: e for lane in lanes if lane["kind"] == "calls" for e in lane["events"]}
    start, end = extent(made)
    visible = [r for r in made.calls.itertuples(index=False) if r.start_ns < end and r.end_ns > start]
    written = Counter(
        (e["start"], e["end"], calls[e["call"]]["start"], calls[e["call"]]["end"], calls[e["call"]]["name"])
        for lane in lanes
        if lane["kind"] == "work"
        for e in lane["events"]
        if e["call"] is not None
    )
    there: Counter[Any] = Counter()
    for r in made.ops.itertuples(index=False):
        if r.call >= 0:
            c = made.calls.iloc[r.call]
            if int(c["start_ns"]) < end and int(c["end_ns"]) > start:
                there[(int(r.start_ns), int(r.end_ns), int(c["start_ns"]), int(c["end_ns"]), str(c["name"]))] += 1
    assert written == there
    joined = set(made.ops["call"])
    kept = [r for i, r in enumerate(made.calls.itertuples(index=False)) if r in visible and (i in joined or r.kind not in ("event", "other") or r.end_ns - r.start_ns >= LEAST_CALL_NS)]  # fmt: skip
    assert len(calls) == len(kept)


def idle_pieces_and_overview_are_the_ledger(made: Trace, payload: dict[str, Any], lanes: list[Any]) -> None:
    start, end = extent(made)
    view = views(made)[0]
    whole, causes = ledger(view, start, end), idle(view, start, end)
    sums = {name: sum(values) for name, values in timelines.overview(payload)[0].items()}
    for field, classes in OWNERS.items():
        assert sum(sums.get(name, 0) for name in classes) == getattr(whole, field), field
    pieces = next(lane["events"] for lane in lanes if lane["kind"] == "idle")
    for cause in IDLE:
        of_lane = sum(e["end"] - e["start"] for e in pieces if e["class"] == cause)
        assert of_lane == getattr(causes, f"{cause}_ns") == sums.get(cause, 0), cause
    assert sum(sums.values()) == end - start


def every_bin_is_what_brute_force_counts(made: Trace, payload: dict[str, Any]) -> None:
    start, end = extent(made)
    count = payload["overview"]["bins"]
    edges = bin_edges(end - start, count)
    owned = timelines.overview(payload)[0]
    busy = np.zeros(end - start, dtype=bool)
    for row in made.ops.itertuples(index=False):
        busy[row.start_ns - start : row.end_ns - start] = True
    for i in range(count):
        work = sum(values[i] for name, values in owned.items() if name in WORK)
        assert work == busy[edges[i] : edges[i + 1]].sum()
        assert sum(values[i] for values in owned.values()) == edges[i + 1] - edges[i]


NAMES = (
    "aten::mul, seq = 45, op_id = 990346",
    "block 007",
    "layer.3.mlp",
    "x",
    "step 12",
    "3",
    "12 of 13",
    "a\0b 5",
    "v1.5 at 99999999999999999999",
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30), st.sampled_from(NAMES), st.integers(1, 2), st.sampled_from(("pushpop", "startend"))), max_size=12))  # fmt: skip
def test_ranges_come_back_with_the_numbers_in_their_names(rows: list[tuple[int, int, str, int, str]]) -> None:
    ranges = [{"start_ns": s, "end_ns": s + d, "name": n, "tid": t, "style": how} for s, d, n, t, how in rows]
    made = trace([{"start_ns": 0, "end_ns": 95}], ranges=ranges)
    lanes = [lane for lane in timelines.lanes(timeline_data(made).payload) if lane["kind"] == "ranges"]
    written = Counter((e["start"], e["end"], e["name"]) for lane in lanes for e in lane["events"])
    assert written == Counter((s, s + d, n.replace("\0", "\ufffd")) for s, d, n, _, _ in rows if s + d > 0)


def real(name: str) -> tuple[Trace, Timeline]:
    found = recordings.trace(name)
    return found, timeline_data(found, findings=analysis_of(found).findings)


@pytest.mark.parametrize(
    "name",
    [
        "graph-opportunity-faulty",
        "sync-between-faulty",
        "host-bound-faulty",
        "migration-stall-faulty",
        "readback-mended-whole",
    ],
)
def test_recorded_traces_keep_the_ledger(name: str) -> None:
    found, data = real(name)
    start, end = extent(found)
    owned = timelines.overview(data.payload)
    for view in views(found):
        sums = {k: sum(v) for k, v in owned[view.index].items()}
        whole, causes = ledger(view, start, end), idle(view, start, end)
        assert {f: sum(sums.get(c, 0) for c in classes) for f, classes in OWNERS.items()} == {
            f: getattr(whole, f) for f in OWNERS
        }
        assert {c: sums.get(c, 0) for c in IDLE} == {c: getattr(causes, f"{c}_ns") for c in IDLE}
    assert bool(data.flags) == name.endswith("faulty") and all(start <= f.start_ns < end for f in data.flags)


def test_the_same_trace_gives_the_same_bytes() -> None:
    path = SAMPLES / "expert_parallel" / "overlap" / "trace.sqlite"
    first, second = (json.dumps(timeline_data(read(path)).payload) for _ in range(2))
    assert first == second


def test_branches_of_a_graph_are_lanes_by_class() -> None:
    data = timeline_data(read(SAMPLES / "expert_parallel" / "graph" / "trace.sqlite"))
    labels = [lane["label"] for lane in data.payload["lanes"] if lane["kind"] == "work" and lane["group"] == 0]
    assert labels == [
        "CUDA graph · compute",
        "CUDA graph · communication",
        "CUDA graph · copies D2D",
        "CUDA graph · memsets",
    ]
    assert len(data.payload["passes"]) == 8


def test_many_streams_are_folded() -> None:
    made = trace([{"start_ns": 10 * i, "end_ns": 10 * i + 9 - i % 3, "stream": i} for i in range(20)])
    labels = [lane["label"] for lane in timeline_data(made).payload["lanes"] if lane["kind"] == "work"]
    assert len(labels) == 9 and labels[-1] == "12 more streams · compute"


def test_a_stream_whose_process_is_not_known_is_the_same_stream() -> None:
    made = trace([{"start_ns": 0, "end_ns": 5, "pid": -1, "context": -1}, {"start_ns": 6, "end_ns": 9}])
    assert [lane["label"] for lane in timeline_data(made).payload["lanes"] if lane["kind"] == "work"] == [
        "stream 7 · compute"
    ]


def busy_loop(passes: int, kernels: int) -> Trace:
    calls, ops = [], []
    for p in range(passes):
        for k in range(kernels):
            at = p * 200_000_000 + k * 1_000_000 + (p == 3) * k * 100_000
            calls.append({"start_ns": at, "end_ns": at + 5_000, "correlation": len(calls)})
            ops.append(
                {
                    "start_ns": at + 10_000,
                    "end_ns": at + 600_000,
                    "call": len(calls) - 1,
                    "name": "start_gemm" if not k else "gemm",
                }
            )
    return trace(ops, calls)


def test_above_the_budget_the_overview_is_exact_and_the_rest_is_said() -> None:
    made = busy_loop(12, 100)
    at = 5 * 200_000_000 + 40_010_000
    finding = Finding(
        "host-bound", "claim", 1, "device 0, all", {"example": {"start_ns": at, "duration_ns": 590_000}}, "try"
    )
    full = timeline_data(made, findings=[finding])
    data = timeline_data(made, findings=[finding], budget=1_600)
    assert full.note == "" and full.payload["detail"] is None and full.events == 12 * 100 * 2 + 12 * 100 * 3 - 2
    assert data.events <= 1_600
    assert data.payload["overview"] == full.payload["overview"]
    assert f"{full.events:,} events, {data.events:,} of them drawn one by one" in data.note
    for part in ("the median pass", "the slowest pass", "20 ms around finding 1", "shows the share of busy time"):
        assert part in data.note, data.note
    slowest = max(data.payload["passes"], key=lambda p: p[1] - p[0])
    for low, high in (slowest[:2], (at - 10_000_000, at + 10_000_000)):
        assert any(a <= low and high <= b for a, b in data.payload["detail"]), (low, high, data.payload["detail"])
    work = next(lane for lane in timelines.lanes(data.payload) if lane["kind"] == "work")
    whole = next(lane for lane in timelines.lanes(full.payload) if lane["kind"] == "work")
    for low, high in data.payload["detail"]:
        inside = [(e["start"], e["end"]) for e in whole["events"] if e["start"] < high and e["end"] > low]
        assert inside == [(e["start"], e["end"]) for e in work["events"] if e["start"] < high and e["end"] > low]
    assert all(e["call"] is not None for e in work["events"]), "the launch call of each kept kernel is kept"
    shares = [timelines.bins(column, work["bins"]["count"]) for column in work["bins"]["classes"].values()]
    assert sum(map(sum, shares)) == 12 * 100 * 590_000, "the busy time of the lane, reduced or not"


def test_a_budget_that_nothing_fits_still_gives_the_overview() -> None:
    data = timeline_data(busy_loop(4, 500), budget=1)  # so dense that no part of a step fits
    assert data.events == 0 and "Everywhere each lane shows the share of busy time" in data.note
    assert sum(map(sum, timelines.overview(data.payload)[0].values())) == data.payload["span_ns"]


def test_short_calls_that_nothing_hangs_on_are_left_out_and_counted() -> None:
    calls = [
        {"start_ns": 0, "end_ns": 10, "name": "cudaLaunchKernel"},
        {"start_ns": 20, "end_ns": 30, "name": "cudaEventQuery"},
        {"start_ns": 40, "end_ns": 40 + LEAST_CALL_NS, "name": "cudaEventQuery"},
    ]
    data = timeline_data(trace([{"start_ns": 50, "end_ns": 90_000, "call": 0}], calls))
    kept = [e["name"] for lane in timelines.lanes(data.payload) if lane["kind"] == "calls" for e in lane["events"]]
    assert kept == ["cudaLaunchKernel", "cudaEventQuery"] and data.note.startswith("1 short host calls (below 10 µs")


@pytest.mark.parametrize(
    "made",
    [
        trace([]),
        trace([], [{"start_ns": 5, "end_ns": 9}]),
        trace([{"start_ns": 7, "end_ns": 7}]),
        trace([], ranges=[{"start_ns": 3, "end_ns": 4}]),
    ],
)
def test_traces_without_work_have_a_timeline(made: Trace) -> None:
    payload = timeline_data(made).payload
    assert payload["span_ns"] >= 1 and payload["home"] == [0, payload["span_ns"]]
    timelines.lanes(payload)


def test_families_of_kernels() -> None:
    names = {
        "void flash_fwd_kernel<Flash_fwd_kernel_traits<128> >(Flash_fwd_params)": "attention",
        "nvjet_tst_192x192_64x4_2x1_v_bz_coopB_bias_TNN": "gemm",
        "void cutlass::device_kernel<enable_sm90<cutlass::gemm::kernel::GemmUniversal<int> > >(T1::Params)": "gemm",
        "void at::native::vectorized_elementwise_kernel<(int)4, T1>(int)": "elementwise",
        "void at::native::vectorized_gather_kernel<(int)16, long>(char *, char *, T2 *, int, long)": "copy-like",
        "void at::native::elementwise_kernel<(int)128, (int)4, void at::native::gpu_kernel_impl_nocast<at::native::direct_copy_kernel_cuda("
        "at::TensorIteratorBase &)::[lambda() (instance 3)]>": "copy-like",
        "void at::native::<unnamed>::CatArrayBatchedCopy<int, unsigned int, (int)3>(T1 *)": "copy-like",
        "triton_poi_fused_clamp_index_view_10": "copy-like",
        "triton_poi_fused__unsafe_view_add_arange_index_copy_transpose_view_4": "elementwise",
        "void at::native::_scatter_gather_elementwise_kernel<128, 8, at::native::ReduceAdd>(int)": "elementwise",
        "my_own_step": "compute",
    }
    assert {name: family_of(name) for name in names} == names


def test_the_golden_trace(traces: Path) -> None:
    found = read(traces / "nsys" / "mfu_2gpu_after.sqlite")
    data = timeline_data(found, findings=analysis_of(found).findings)
    owned = {k: sum(v) for k, v in timelines.overview(data.payload)[0].items()}
    edge = owned["edge"]
    assert sum(owned[c] for c in IDLE if c in owned) - edge == pytest.approx(59.142e6, abs=500)
    assert owned["comm"] == pytest.approx(9.989e6, abs=500)
    assert len(json.dumps(data.payload, separators=(",", ":"))) < 12 * data.events
