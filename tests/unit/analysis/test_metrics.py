"""The ledger, the idle split, overlap and launches: against brute force, golden numbers of real traces, and by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.trace_tables import trace, traces
from hypothesis import given
from recorded import recordings

from moeprof.analysis.analyze import analyze, iterations
from moeprof.analysis.device import PRECEDENCE, main_device, views
from moeprof.analysis.model import Window
from moeprof.analysis.projection import projected
from moeprof.errors import UsageError
from moeprof.trace import Trace, read
from moeprof.trace.classify import BLOCKING, communication_class
from moeprof.trace.classify import communication as own_classes

# from an independent event sweep over public traces, ms: span, idle, K, N, C, exposed C, exposed N, joined, kernels, Q count
GOLDEN = {
    ("h100_2gpu_1s", 0): (969.448, 6.557, 22.385, 0, 940.490, 940.490, 0, 816, 1721, 814),
    ("h100_2gpu_1s", 1): (969.259, 6.448, 22.444, 0, 940.352, 940.352, 0, 816, 1721, 815),
    ("mfu_2gpu_before", 0): (299.849, 26.031, 253.691, 17.173, 2.844, 2.844, 17.173, 1981, 1993, 1970),
    ("mfu_2gpu_before", 1): (298.662, 31.386, 256.096, 8.229, 2.848, 2.848, 8.229, 2005, 2017, 1937),
    ("mfu_2gpu_after", 0): (299.251, 59.142, 227.484, 9.989, 2.539, 2.539, 9.989, 1788, 1793, 1779),
    ("mfu_2gpu_after", 1): (299.269, 45.269, 227.609, 23.753, 2.548, 2.548, 23.753, 1789, 1794, 1503),
    ("cloverleaf_a100_2024.5", 0): (342.408, 38.612, 294.405, 0, 9.391, 9.391, 0, 1312, 1312, 1307),
}
QUEUE_MEDIAN_US = {("h100_2gpu_1s", 0): 421289.79, ("mfu_2gpu_before", 0): 291.85, ("cloverleaf_a100_2024.5", 0): 1.82}


@pytest.mark.parametrize("name", sorted({name for name, _ in GOLDEN}))
def test_golden_numbers_of_real_traces(traces: Path, name: str) -> None:
    found = analyze(read(traces / "nsys" / f"{name}.sqlite"))
    assert [w.device for w in found.windows] == sorted(device for known, device in GOLDEN if known == name)
    for w in found.windows:
        ms = (
            w.span_ns,
            w.ledger.idle_ns,
            w.compute_busy_ns,
            w.comm_busy_ns,
            w.copy_busy_ns,
            w.ledger.exposed_copy_ns,
            w.ledger.exposed_comm_ns,
        )
        counts = (w.launch.joined, w.launch.kernels, w.launch.queue_count)
        assert (*(round(v / 1e6, 3) for v in ms), *counts) == GOLDEN[name, w.device]
        if (name, w.device) in QUEUE_MEDIAN_US:
            assert w.launch.queue_ns_median is not None
            assert round(w.launch.queue_ns_median / 1e3, 2) == QUEUE_MEDIAN_US[name, w.device]


def test_a_join_by_correlation_alone_would_be_wrong(traces: Path) -> None:
    """Two processes share correlation ids: the join must be by process too."""
    found = read(traces / "nsys" / "mfu_2gpu_before.sqlite")
    kernels = found.ops[found.ops["kind"].isin(["kernel", "comm"])]
    pairs = found.calls.iloc[kernels["call"][kernels["call"] >= 0]]
    assert (pairs["pid"].to_numpy() == kernels["pid"][kernels["call"] >= 0].to_numpy()).all()
    assert int((kernels["call"] >= 0).sum()) == 3986


def test_a_replay_traced_whole_is_busy_and_said_to_be(traces: Path) -> None:
    whole = analyze(read(traces / "h200" / "streams_graph_whole.sqlite"))
    node = analyze(read(traces / "h200" / "streams_graph_node.sqlite"))
    assert [n.id for n in whole.notes] == ["graph-level"] and whole.notes[0].evidence["replays"] == 5
    assert whole.windows[0].graph_busy_ns > 0 == node.windows[0].graph_busy_ns, (
        "the replays are busy time of their own class"
    )
    assert whole.windows[0].launch.graph_launches == node.windows[0].launch.graph_launches == 5
    assert (
        abs(whole.windows[0].compute_busy_ns - node.windows[0].compute_busy_ns) < 0.02 * node.windows[0].compute_busy_ns
    )
    assert node.windows[0].launch.kernels_in_graphs == 15


def brute(found: Trace, w: Window) -> dict[str, object]:
    """The window's owners and idle causes, nanosecond by nanosecond."""
    ops, calls = list(found.ops.itertuples()), found.calls
    owner = {}
    for t in range(w.start_ns, w.end_ns):
        running = {o.kind for o in ops if o.start_ns <= t < o.end_ns}
        owner[t] = next((i for i, kinds in enumerate(PRECEDENCE) if running & set(kinds)), None)
    busy = [t for t in owner if owner[t] is not None]
    idle = dict.fromkeys(("launch", "sync", "host", "dependency", "edge"), 0)
    for t in (t for t in owner if owner[t] is None):
        if not busy or t < busy[0] or t > busy[-1]:
            idle["edge"] += 1
            continue
        next_busy = min(b for b in busy if b > t)
        ender = next(o for o in ops if o.start_ns >= next_busy)
        idle[_cause(ender, calls, t)] += 1
    return {"owners": [sum(o == i for o in owner.values()) for i in range(5)], "idle": idle}


def _cause(ender: object, calls: object, t: int) -> str:
    if not len(calls):  # type: ignore[arg-type]
        return "host"
    if ender.call < 0:  # type: ignore[attr-defined]
        return "dependency"
    call = calls.iloc[ender.call]  # type: ignore[attr-defined]
    if t >= call["end_ns"]:
        return "dependency"
    if t >= call["start_ns"]:
        return "launch"
    blocked = calls[calls["kind"].isin(BLOCKING) & (calls["tid"] == call["tid"])]  # type: ignore[attr-defined]
    return "sync" if ((blocked["start_ns"] <= t) & (t < blocked["end_ns"])).any() else "host"


@given(traces())
def test_identities_and_brute_force(found: Trace) -> None:
    assert len(analyze(found).windows) == found.ops["device"].nunique()
    for w in analyze(found).windows:
        ledger = [
            w.ledger.compute_ns,
            w.ledger.exposed_comm_ns,
            w.ledger.exposed_copy_ns,
            w.ledger.exposed_migration_ns,
            w.ledger.exposed_memset_ns,
        ]
        assert sum(ledger) + w.ledger.idle_ns == w.span_ns
        assert sum(vars(w.idle).values()) == w.ledger.idle_ns
        expected = brute(found, w)
        assert ledger == expected["owners"]
        assert {k.removesuffix("_ns"): v for k, v in vars(w.idle).items()} == expected["idle"]


def test_iterations_tile_the_measured_region_and_number_themselves() -> None:
    ops, calls, ranges = [], [], []
    for i in range(3):
        zero = 100 * i
        calls += [
            {"start_ns": zero + 1, "end_ns": zero + 2},
            {"start_ns": zero + 3, "end_ns": zero + 4, "name": "cudaMemcpyAsync"},
        ]
        ops += [
            {"start_ns": zero + 10, "end_ns": zero + 40, "call": 2 * i},
            {
                "start_ns": zero + 50,
                "end_ns": zero + 90,
                "kind": "copy",
                "direction": "D2H",
                "call": 2 * i + 1,
                "bytes": 40,
            },
        ]
        ranges.append({"start_ns": zero, "end_ns": zero + 5, "payload": 7 - i})
    found = iterations(trace(ops, calls, ranges))
    assert found is not None
    assert [(w.start_ns, w.end_ns, w.instance) for w in found.windows] == [(10, 110, 7), (110, 210, 6), (210, 290, 5)]
    assert [w.idle.edge_ns for w in found.windows] == [20, 20, 0]
    assert [len(w.launch.calls) for w in found.windows] == [2, 2, 2]
    assert found.windows[0].copies[0].throughput_gb_per_s == 1.0


def test_a_trace_without_our_ranges_has_no_iterations() -> None:
    assert iterations(trace([{"start_ns": 0, "end_ns": 5}])) is None


def test_the_main_device_has_most_operations_and_is_the_first_of_equals() -> None:
    ops = [{"start_ns": 10 * n, "end_ns": 10 * n + 5, "device": device} for n, device in enumerate((3, 1, 1, 3, 2))]
    devices = views(trace(ops))
    assert [view.index for view in devices] == [1, 2, 3]
    assert main_device(devices) is devices[0] and main_device(devices[1:]) is devices[2] and main_device(()) is None


def test_launch_latency_is_told_from_queueing() -> None:
    """The first kernel finds its stream empty: latency. The second was launched while the first ran: queueing."""
    calls = [{"start_ns": 0, "end_ns": 4}, {"start_ns": 5, "end_ns": 8}]
    ops = [{"start_ns": 10, "end_ns": 50, "call": 0}, {"start_ns": 50, "end_ns": 60, "call": 1}]
    launch = analyze(trace(ops, calls)).windows[0].launch
    assert (launch.queue_count, launch.queue_ns_median) == (2, (6 + 42) / 2)
    assert (launch.latency_count, launch.latency_ns_median) == (1, 6)
    assert launch.api_ns_median == 3.5


def test_a_range_or_device_that_is_not_there_is_named() -> None:
    found = trace([{"start_ns": 0, "end_ns": 5}], [], [{"start_ns": 0, "end_ns": 9, "name": "outer"}])
    with pytest.raises(UsageError) as caught:
        analyze(found, "inner")
    assert "outer" in caught.value.hint
    with pytest.raises(UsageError, match="no work on device 3"):
        analyze(found, device=3)


def test_absent_is_none_never_zero_or_nan() -> None:
    launch = analyze(trace([{"start_ns": 0, "end_ns": 5}])).windows[0].launch
    assert launch.api_ns_median is None and launch.queue_ns_median is None
    without = {"start_ns": 0, "end_ns": 5, "kind": "copy", "direction": "H2H", "bytes": -1}
    (copies,) = analyze(trace([without])).windows[0].copies
    assert copies.throughput_gb_per_s is None


def test_start_end_ranges_hold_the_calls_of_all_threads() -> None:
    found = projected(recordings.trace("startend"))
    whole, again = (found[found["name"] == name] for name in ("whole", "again"))
    assert list(whole["gpu_ops"]) == [7] * 5 and list(again["gpu_ops"]) == [2] * 5, (
        "3 of the main thread and 4 of the other"
    )
    assert (whole["end_tid"] != whole["tid"]).all()
    assert int((whole["last_ns"] - whole["first_ns"]).sum()) == 9_451_387
    assert int((again["end_ns"] - again["start_ns"]).sum()) == 1_125_881, "what nsys stats nvtx_startend_sum says"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<(unsigned long)4096>)", "NCCL"),
        ("void deep_ep::intranode::dispatch<8>(int)", "DeepEP"),
        ("nvshmemi_transfer_rma_nbi", "NVSHMEM"),
        ("void vllm::cross_device_reduce_1stage<float, 2>(T1)", "custom all-reduce"),
        ("multimem_all_reduce_kernel", "symmetric memory"),
        ("void at::native::reduce_kernel<512>(int)", None),
        ("nvjet_sm90_tst_256x128", None),
    ],
)
def test_classes_of_communication(name: str, expected: str | None) -> None:
    assert communication_class(name) == expected


def test_a_user_adds_a_class(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[communication]\n"my exchange" = "nvjet"\n')
    whole = read(recordings.path("far-ahead-mended"), own_classes(file))
    (window,) = analyze(whole).windows
    assert [c.name for c in window.communication] == ["my exchange"] and window.ledger.compute_ns == 0
    assert window.ledger.exposed_comm_ns == window.communication[0].exposed_ns > 0
    file.write_text("[communication]\nx = '('\n")
    with pytest.raises(UsageError, match=r"own\.toml"):
        own_classes(file)
