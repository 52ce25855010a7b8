"""What is kept of what a tool left, and each way that a tool fails: the fake tools run a program that does nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fakes.command_line import FAKES, environment

from moeprof.capture import manifest_builder
from moeprof.capture.child_processes import Child
from moeprof.capture.jobs import Job, profiling_jobs
from moeprof.capture.parts import Parts
from moeprof.capture.plan import Counting, Plan
from moeprof.capture.profiling import Ended
from moeprof.capture.program.capture import planned
from moeprof.capture.request import Request
from moeprof.errors import CaptureError, MoeprofError, ToolError, WorkloadError
from moeprof.machine import nvml
from moeprof.machine.tools import Tool
from moeprof.storage.capture_folder import Store
from moeprof.workload.find import load

NSYS, NCU = (Tool(name, FAKES / "bin" / name, "2025.3.1.0") for name in ("nsys", "ncu"))
ROOFLINE = ("smsp__sass_thread_inst_executed_op_ffma_pred_on.sum",)


def opened(folder: Path, plan: Plan) -> tuple[Store, Parts]:
    store = Store(folder / "cap", manifest_builder.manifest(plan))
    store.open()
    return store, Parts(plan, store)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The plan of a program that does nothing, under the fake nsys and ncu."""
    monkeypatch.setattr(nvml, "gpus", lambda: ())
    request = Request(program=("true",), timeout_s=20)
    return Plan(request, "cuda", (), nsys=NSYS, counting=Counting(NCU, 2, ROOFLINE, False))


def ran(job: Job, store: Store) -> Ended:
    child = Child(job.run.command, store.log(job.name, job.tool))
    return Ended(child.wait(), child.last_words())


def test_a_trace_and_counters_become_parts(tmp_path: Path, program: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", environment())
    store, parts = opened(tmp_path, program)
    (_, trace), (_, count) = planned(program, store)
    for job in (trace, count):
        parts.keep(job, ran(job, store))
    [record] = store.manifest.variants
    assert [(part.kind, part.tool, part.file) for part in record.parts] == [
        ("trace", "nsys", "program/trace.sqlite"), ("counters", "ncu", "program/counters.csv"),
    ]  # fmt: skip
    assert all((store.folder / part.file).is_file() for part in record.parts)
    assert record.parts[1].argv[-1] == "true" and str(tmp_path) not in " ".join(record.parts[1].argv)
    assert [note.id for note in store.manifest.notes] == ["redacted", "counters-of-program"]


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("exit1", CaptureError, ("without a report", "something went wrong")),
        ("noreport", CaptureError, ("without a report", "No reports were generated")),
        ("qdstrm", ToolError, (".qdstrm", "moeprof doctor")),
        ("nokernels", CaptureError, ("the trace holds no kernels",)),
        ("truncated", CaptureError, ("the trace cannot be read",)),
        ("killed", WorkloadError, ("killed by SIGKILL",)),
    ],
)
def test_each_way_that_nsys_fails(
    tmp_path: Path, program: Plan, monkeypatch: pytest.MonkeyPatch, how: str, kind: type[MoeprofError], words: tuple[str, ...]
) -> None:  # fmt: skip
    monkeypatch.setattr(os, "environ", environment(FAKE_NSYS=how))
    store, parts = opened(tmp_path, program)
    job = next(planned(program, store))[1]
    with pytest.raises(kind) as raised:
        parts.keep(job, ran(job, store))
    assert type(raised.value) is kind
    for word in words:
        assert word in f"{raised.value.message} ({raised.value.hint})"
    assert not store.manifest.variants[0].parts and not (store.folder / "program" / "trace.sqlite").exists()


@pytest.mark.parametrize("lost", [0, 1])
def test_every_iteration_must_be_in_the_trace(
    tmp_path: Path, program: Plan, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    monkeypatch.setattr(os, "environ", environment())
    workload = load(str(FAKES / "workload.py"))
    request = Request(str(FAKES / "workload.py"), iterations=3, timeout_s=20)
    plan = Plan(request, "cuda", (), workload, (workload.variant("slow"),), "tiny", {"stages": 2, "seed": 3}, NSYS)
    store, parts = opened(tmp_path, plan)
    [job] = profiling_jobs(plan, store, plan.targets.values())
    report = {"iterations": 3 - lost, "environment": {}}
    assert job.run.produces is not None
    job.run.produces.write_text(f"NVIDIA Tegra Profiler Report 2025@3@1@9\n{json.dumps(report)}")
    if lost:
        with pytest.raises(CaptureError, match="2 iteration ranges, 3 ran"):
            parts.keep(job, Ended(0, ""))
        return
    parts.keep(job, Ended(0, ""))
    assert [part.iterations for part in store.manifest.variants[0].parts] == [3]


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("noperm", ToolError, ("ERR_NVGPUCTRPERM", "NVreg_RestrictProfilingToAdminUsers=0")),
        ("nothing", CaptureError, ("wrote nothing",)),
        ("empty", CaptureError, ("counted no kernel",)),
    ],
)
def test_each_way_that_ncu_fails(
    tmp_path: Path, program: Plan, monkeypatch: pytest.MonkeyPatch, how: str, kind: type[MoeprofError], words: tuple[str, ...]
) -> None:  # fmt: skip
    monkeypatch.setattr(os, "environ", environment(FAKE_NCU=how))
    store, parts = opened(tmp_path, program)
    job = list(planned(program, store))[1][1]
    with pytest.raises(kind) as raised:
        parts.keep(job, ran(job, store))
    assert type(raised.value) is kind
    for word in words:
        assert word in f"{raised.value.message} ({raised.value.hint})"
    assert not store.manifest.variants[0].parts


def test_ncu_runs_again_without_counters_that_it_does_not_know(
    tmp_path: Path, program: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", environment(FAKE_NCU="strict"))
    store, parts = opened(tmp_path, program)
    job = list(planned(program, store))[1][1]
    parts.keep(job, ran(job, store))
    [part] = store.manifest.variants[0].parts
    assert "op_ffma" in " ".join(job.run.command.argv) and "op_ffma" not in " ".join(part.argv)
    assert "Failed to find metric smsp__sass" in next(n.text for n in store.manifest.notes if n.id == "no-flops")
