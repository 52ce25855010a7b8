"""Findings that share a cause are one; what is judged; communication; loading; and the bound of every gain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analysed_traces import analysis as analysis_of_file
from builders.trace_tables import trace as made
from paths import ROOT, TRACES
from recorded import recordings

from moeprof.analysis.device import views
from moeprof.analysis.model import Finding
from moeprof.findings import find
from moeprof.findings.rules import common
from moeprof.findings.rules.common import OWNERS
from moeprof.findings.what_if import Scene, scenes_of
from moeprof.trace import Trace, read

SAMPLES = sorted((ROOT / "reports" / "samples").glob("*/*/trace.sqlite"))
US, MS = 1_000, 1_000_000


def every_trace() -> list[Path]:
    return [*SAMPLES, *(sorted(p for p in TRACES.glob("*/*") if p.name.endswith((".sqlite", ".json", ".json.gz"))))]


def named(path: Path) -> str:
    return "/".join(path.parts[-3:])


# -- one finding for one cause


def test_the_eight_byte_copy_is_one_finding_with_its_consequences(traces: Path) -> None:
    (finding,) = analysis_of_file(traces / "nsys" / "mfu_2gpu_after.sqlite").findings
    assert finding.id == "sync-api" and finding.device == 0 and finding.passes == 15
    assert "cudaStreamSynchronize x 15, 14 of them for an H2D copy of 8 bytes from pageable memory" in finding.claim
    same_device = [f for f in finding.consequences if f.device == 0]
    assert [f.id for f in same_device] == ["host-bound", "graph-opportunity", "launch-bound"]
    assert all(f.left_ns is not None and f.left_ns < 0.1 * f.gain_ns for f in same_device)
    waiting = next(f for f in finding.consequences if f.device == 1)
    assert waiting.id == "exposed-communication" and waiting.evidence["waits_for_device"] == 0
    (there,) = finding.on_other_devices
    assert there.id == "sync-api" and there.device == 1
    assert [f.id for f in there.consequences] == ["host-bound", "graph-opportunity", "launch-bound"]
    assert len(finding.all) == 9, "eight findings of before, and the communication that waits"


def test_the_worst_place_is_a_stretch_of_about_a_pass(traces: Path) -> None:
    (finding,) = analysis_of_file(traces / "nsys" / "mfu_2gpu_after.sqlite").findings
    worst = finding.evidence["example"]["worst"]
    (part, _) = analysis_of_file(traces / "nsys" / "mfu_2gpu_after.sqlite").judged
    assert 0 < worst["idle_ns"] <= worst["to_ns"] - worst["from_ns"] <= 1.1 * part.span_ns / part.passes
    assert worst["idle_ns"] > 1.5 * part.ledger.idle_ns / part.passes, "worse than a typical pass"


def test_a_cause_with_little_gain_does_not_take_over_a_large_finding(cases: Path) -> None:
    found = analysis_of_file(cases / "blocking_copy_loop.sqlite").findings
    assert [(f.id, f.consequences) for f in found] == [("host-bound", ()), ("sync-api", ())]


def test_graph_opportunity_and_launch_bound_are_two_names_for_the_same_launches() -> None:
    sample = ROOT / "reports" / "samples" / "decode_attention" / "naive" / "trace.sqlite"
    first = analysis_of_file(sample).findings[0]
    assert first.id == "graph-opportunity" and [f.id for f in first.consequences] == ["launch-bound"]


# -- what is judged


@pytest.mark.parametrize(
    ("case", "label", "idle_ms", "ids"),
    [
        ("load_before_loop.sqlite", "the part that repeats", 8.970, ["host-bound"]),
        ("long_kernel_then_copies.sqlite", "the whole trace", 0.744, []),
        ("blocking_copy_loop.sqlite", "period x 25", 481.92, ["host-bound", "sync-api"]),
        ("async_copy_loop.sqlite", "period x 25", 482.018, ["host-bound"]),
        ("three_steps.json", "ProfilerStep x 3", 29.54, ["host-bound"]),
        ("alloc_small.sqlite", "the part that repeats", 23.96, ["allocator-in-loop", "sync-api"]),
    ],
)
def test_known_cases(cases: Path, case: str, label: str, idle_ms: float, ids: list[str]) -> None:
    analysis = analysis_of_file(cases / case)
    (part,) = analysis.judged
    assert part.label == label and part.ledger.idle_ns / MS == pytest.approx(idle_ms, abs=0.005)
    assert [f.id for f in analysis.findings] == ids
    assert all(f.gain_ns <= part.ledger.idle_ns for f in analysis.findings)


def test_the_gains_of_the_cases_are_those_worked_out_by_hand(cases: Path) -> None:
    for case in ("blocking_copy_loop", "async_copy_loop"):
        assert analysis_of_file(cases / f"{case}.sqlite").findings[0].gain_ns / MS == pytest.approx(480.0, abs=0.01)
    small = {f.id: f.gain_ns / MS for f in analysis_of_file(cases / "alloc_small.sqlite").findings}
    assert small["allocator-in-loop"] <= 3.0 and small["sync-api"] <= 2.4 + 1.2
    assert "freed" not in analysis_of_file(cases / "alloc_small.sqlite").findings[0].claim
    (scene,) = scenes_of(loop := read(cases / "blocking_copy_loop.sqlite"), views(loop))
    from moeprof.findings.rules.copies import pageable_copy

    assert pageable_copy(scene) is None, "13.7 of 518.9 ms are below the threshold"


def test_a_call_that_nsys_recorded_twice_is_one_call(traces: Path) -> None:
    found = {f.id: f for f in analysis_of_file(traces / "nsys" / "saxpy_mpi_2022.2.sqlite").findings}
    assert "dropped-records" not in found, "every launch has its kernel, under one of its two records"
    assert "cudaMemcpy x 15" in found["sync-api"].claim


def test_the_judged_part_sums_and_fits_into_the_trace() -> None:
    for path in every_trace():
        for part in analysis_of_file(path).judged:
            owners = sum(vars(part.ledger).values())
            assert owners == part.span_ns <= part.of_span_ns, named(path)
            assert sum(vars(part.idle).values()) == part.ledger.idle_ns, named(path)
            assert 0 < part.operations <= part.of_operations, named(path)


def test_a_slow_first_pass_is_a_warm_up_and_not_judged() -> None:
    whole = recordings.trace("first-iteration-faulty")
    (scene,) = scenes_of(whole, views(whole))
    assert scene.focus.label == "step x 9, without the slow first one" and len(scene.focus.spans) == 9
    assert scene.focus.warm_up is not None and scene.focus.warm_up[1] <= scene.focus.start_ns
    (finding,) = find.find([scene])
    assert finding.id == "first-iteration" and finding.gain_share is None


def steps(count: int, lead_ns: int = 0, launch: bool = True) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A loop of ``count`` steps of four kinds of kernels that never waits, begun ``lead_ns`` after the zero."""
    ops, calls = [], []
    for step in range(count):
        for kind in range(4):
            at = lead_ns + (4 * step + kind) * 100 * US
            calls.append(
                {"start_ns": at, "end_ns": at + 5 * US, "name": "cudaLaunchKernel", "correlation": len(ops) + 1}
            )
            ops.append({
                "start_ns": at + 20 * US, "end_ns": at + 118 * US, "name": f"kernel {kind}", "call": len(calls) - 1,
                "correlation": len(ops) + 1, "grid_x": 1, "block_x": 32,
            })  # fmt: skip
    return ops, calls


# -- loading


def loaded(lead: list[tuple[str, int]], copies_gb: float = 0.0) -> tuple[Finding, ...]:
    """Findings of a loop behind a set-up of calls (name, length in ns), one after another, and a pageable copy."""
    at, calls, ops = 0, [], []
    for name, length in lead:
        calls.append({"start_ns": at, "end_ns": at + length, "name": name})
        at += length
    if copies_gb:
        length = int(copies_gb * 1e9 / 3.0)  # 3 GB/s
        calls.append({"start_ns": at, "end_ns": at + length, "name": "cudaMemcpy", "correlation": 10**6})
        ops.append({
            "start_ns": at + US, "end_ns": at + length, "kind": "copy", "name": "H2D", "direction": "H2D", "bytes": int(copies_gb * 1e9),
            "src_memory": "pageable", "dst_memory": "device", "call": len(calls) - 1, "correlation": 10**6,
        })  # fmt: skip
        at += length
    loop_ops, loop_calls = steps(400, at + MS)
    shifted = [op | {"call": op["call"] + len(calls)} for op in loop_ops]
    shown = made(ops + shifted, calls + loop_calls)
    return find.find(scenes_of(shown, views(shown)))


@pytest.mark.parametrize(
    ("lead", "copies_gb", "word"),
    [
        ([("cudaMalloc", 300 * MS)], 6.0, "6.00 GB at 3.0 GB/s"),
        ([("cudaMalloc", 300 * MS), ("cuLibraryLoadData", 900 * MS)], 0.0, "the loading of code"),
        ([("cuModuleLoadData", 100 * MS), ("cuLinkComplete", 900 * MS)], 0.0, "the compilation of PTX"),
    ],
)
def test_a_slow_load_is_a_finding_of_its_own(lead: list[tuple[str, int]], copies_gb: float, word: str) -> None:
    (finding,) = loaded(lead, copies_gb)
    assert finding.id == "slow-loading" and word in finding.claim and finding.gain_share is None
    assert finding.where == "device 0, loading" and finding.gain_ns >= 900 * MS


def test_a_quick_load_is_none() -> None:
    assert loaded([("cudaMalloc", 2000 * MS), ("cuLibraryLoadData", 200 * MS)]) == ()
    assert loaded([("cudaMalloc", 9000 * MS), ("cuLibraryLoadData", 900 * MS)]) == (), "a tenth of the loading"


# -- communication


def exchange(beside: bool, late_ns: int = 0, devices: int = 2, length_ns: int = 100 * US) -> Trace:
    """40 steps on each device: a GEMM of 200 us and NCCL, beside it in a second stream or after it in its own.

    The last device begins each step's work ``late_ns`` later; collectives end together.
    """
    ops, calls = [], []
    for step in range(40):
        for device in range(devices):
            at = step * 800 * US + (late_ns if device == devices - 1 else 0)
            begin = at if beside else at + 200 * US
            end = step * 800 * US + late_ns + (0 if beside else 200 * US) + length_ns
            for kind, name, stream, start, finish in (
                ("kernel", "gemm", 7, at, at + 200 * US), ("comm", "ncclDevKernel_AllReduce", 8, begin, end),
            ):  # fmt: skip
                calls.append(
                    {"start_ns": max(step * 800 * US - 900 * US, 0), "end_ns": max(step * 800 * US - 890 * US, 1)}
                )
                ops.append(
                    {
                        "start_ns": start,
                        "end_ns": finish,
                        "kind": kind,
                        "name": name,
                        "stream": stream,
                        "device": device,
                        "call": -1,
                    }
                )
    return made(ops)


def communication(shown: Trace) -> list[Finding]:
    return [
        f
        for finding in find.find(scenes_of(shown, views(shown)))
        for f in finding.all
        if f.id == "exposed-communication"
    ]


def test_communication_after_compute_is_exposed_and_bounded() -> None:
    one, other = communication(exchange(beside=False))
    for finding in (one, other):
        assert finding.gain_ns == 40 * 100 * US and "NCCL in a stream of their own" in finding.claim
        assert finding.evidence["operations"] == 40 and finding.evidence["waits_for_other_devices_ns"] == 0
    (long, _) = communication(exchange(beside=False, length_ns=500 * US))
    assert long.gain_ns == 40 * 200 * US, "no more can hide than there is compute"


def test_communication_beside_compute_is_silent() -> None:
    assert communication(exchange(beside=True)) == []


def test_communication_that_waits_for_a_late_device_says_so() -> None:
    (finding,) = communication(exchange(beside=False, late_ns=300 * US, length_ns=20 * US))
    assert (
        finding.device == 0
        and finding.evidence["waits_for_device"] == 1
        and "because GPU 1 arrives late" in finding.claim
    )
    assert finding.evidence["waits_for_other_devices_ns"] == 40 * 300 * US == finding.gain_ns


def test_the_exposed_exchange_of_the_sample_has_its_cause() -> None:
    folder = ROOT / "reports" / "samples" / "expert_parallel"
    (finding,) = analysis_of_file(folder / "baseline" / "trace.sqlite").findings
    assert finding.id == "exposed-communication" and finding.gain_ns / finding.passes / MS == pytest.approx(
        5.98, abs=0.01
    )
    assert [f.id for f in analysis_of_file(folder / "overlap" / "trace.sqlite").findings] == []
    assert [f.id for f in analysis_of_file(folder / "graph" / "trace.sqlite").findings] == []


# -- the bound


def gains(path: Path) -> Iterator[tuple[Finding, int]]:
    """Each finding with the time from which its gain can come."""
    analysis = analysis_of_file(path)
    parts = {part.device: part for part in analysis.judged}
    for finding in (f for merged in analysis.findings for f in merged.all):
        if finding.id in OWNERS:
            yield finding, sum(getattr(parts[finding.device or 0].ledger, owner) for owner in OWNERS[finding.id])


@pytest.mark.parametrize("path", every_trace(), ids=named)
def test_no_gain_is_above_its_own_idle_or_exposed_time(path: Path) -> None:
    for finding, bound in gains(path):
        assert 0 < finding.gain_ns <= bound, (finding.id, finding.gain_ns, bound)
        assert finding.gain_share is not None and 0 < finding.gain_share <= 1
        assert finding.left_ns is None or 0 <= finding.left_ns <= finding.gain_ns


@pytest.mark.parametrize("name", [*recordings.names("-faulty", "-faulty-whole", "-faulty-whole-bare")])
def test_no_rule_needs_the_bound(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is a guarantee: on planted faults the rules themselves stay below it, to the rounding of the ledger."""
    monkeypatch.setattr(common, "OWNERS", {})
    shown = recordings.trace(name)
    for scene in scenes_of(shown, views(shown)):
        for finding in find.find([scene]):
            owners = OWNERS.get(finding.id)
            if owners is not None:
                assert finding.gain_ns <= 1.02 * sum(getattr(scene.judged.ledger, owner) for owner in owners), (
                    finding.id
                )


def test_the_bound_holds_for_a_rule_that_claims_too_much() -> None:
    shown = recordings.trace("host-bound-faulty")
    (scene,) = scenes_of(shown, views(shown))
    claimed = common.finding("host-bound", scene, 10 * scene.span, "up to {ms}", "try")
    assert claimed is not None and claimed.gain_ns == scene.judged.ledger.idle_ns


def test_every_rule_has_its_owners_or_lies_outside_of_the_judged_part() -> None:
    ids = {rule.__name__.replace("_", "-") for rule in find.RULES}
    assert ids - OWNERS.keys() == {"first-iteration", "slow-loading"} and OWNERS.keys() <= ids


def test_scenes_without_operations_have_no_finding() -> None:
    empty = made([])
    assert scenes_of(empty, views(empty)) == () and find.find(()) == ()
    one = made([{"start_ns": 0, "end_ns": 10, "call": -1}])
    (scene,) = scenes_of(one, views(one))
    assert isinstance(scene, Scene) and scene.passes == 0 and find.find([scene]) == ()
    assert replace(scene).judged.of_operations == 1 and np.all(scene.gaps == 0)
