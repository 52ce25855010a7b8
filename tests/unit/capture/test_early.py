"""Processes that are to be profiled import while others are built: when they start, when they go on, and that none is left behind."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from fakes.command_line import FAKES, alive, capture, environment, running, whole

from moeprof.capture import clean_timing, early_start
from moeprof.capture import plan as plans
from moeprof.capture.commands import ToolRun
from moeprof.capture.early_start import EarlyStart
from moeprof.capture.jobs import Job
from moeprof.capture.plan import make_plan
from moeprof.capture.progress import Silent
from moeprof.capture.request import Request
from moeprof.machine import load
from moeprof.storage import manifest
from moeprof.storage.capture_folder import Store
from moeprof.storage.manifest import Environment, Manifest, VariantRecord
from moeprof.worker.spec import Measurement, Target, WorkerSpec, read
from moeprof.worker.start_barrier import StartBarrier

CORES = os.pathsep.join((str(FAKES / "site"), str(FAKES / "coressite")))
GB = 10**9


def waiting(folder: Path, stages: int = 2, variant: str = "slow", iterations: int = 1) -> Job:
    """A trace of the sleeping workload without a profiler."""
    gate, result = StartBarrier(folder / f"{variant}.gate"), folder / f"{variant}.json"
    target = Target(str(FAKES / "workload.py"), variant, "cpu", {"stages": stages, "seed": 3})
    measurement = Measurement("none", str(result), iterations, gate=str(gate.file))
    run = ToolRun(None, WorkerSpec("measure", target, measurement=measurement), None, 60)
    return Job(variant, "nsys", run, gate, result)


@pytest.fixture
def early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EarlyStart:
    store = Store(tmp_path / "cap", Manifest(1, "workload", "w", "2026", (), "cpu", Environment("0", "3", "L", "c", 2)))
    store.open()
    monkeypatch.setattr(early_start.os, "cpu_count", lambda: 16)
    monkeypatch.setattr(load, "available_bytes", lambda *_: 64 * GB)
    monkeypatch.setattr(os, "environ", environment())
    return EarlyStart(store)


def children(early: EarlyStart) -> list[int]:
    return [child.process.pid for _, child in early._waiting.values()]


def test_one_that_was_started_early_takes_the_parameters_that_were_found_later(
    early: EarlyStart, tmp_path: Path
) -> None:
    early.start([waiting(tmp_path)])
    early.settle()
    assert "imported" in early.store.log("slow", "nsys").read_text()
    job = waiting(tmp_path, stages=9)
    assert job.gate is not None and not job.gate.ready.exists(), "it is not built before it has its parameters"
    child = early.take(job)
    assert child is not None
    job.gate.open()
    assert child.wait() == 0 and json.loads(job.result.read_text())["iterations"] == 1
    assert json.loads((early.store.scratch / "slow-nsys.hold").read_text())["stages"] == 9
    assert early.take(job) is None


def test_one_that_has_ended_or_was_to_do_another_thing_is_not_taken(early: EarlyStart, tmp_path: Path) -> None:
    early.start([waiting(tmp_path)])
    other = waiting(tmp_path, iterations=7)
    [pid] = children(early)
    assert early.take(other) is None and not alive(pid)
    early.start([waiting(tmp_path)])
    [(_, child)] = early._waiting.values()
    child.process.kill()
    child.process.wait()
    early.settle()
    assert early.take(waiting(tmp_path)) is None


def test_those_that_nobody_takes_are_ended(early: EarlyStart, tmp_path: Path) -> None:
    early.start([waiting(tmp_path), waiting(tmp_path, variant="fast")])
    pids = children(early)
    assert len(pids) == 2 and all(alive(pid) for pid in pids)
    early.close()
    assert not any(alive(pid) for pid in pids)


@pytest.mark.parametrize(("cores", "memory"), [(1, 64 * GB), (16, GB), (16, None)])
def test_a_small_machine_starts_none(
    early: EarlyStart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, memory: int | None
) -> None:
    monkeypatch.setattr(early_start.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(load, "available_bytes", lambda *_: memory)
    early.start([waiting(tmp_path), waiting(tmp_path, variant="fast")])
    assert not early._waiting


def test_a_command_without_parameters_is_not_held(early: EarlyStart, tmp_path: Path) -> None:
    job = waiting(tmp_path)
    run = ToolRun(None, (sys.executable, "p.py"), None, 60)
    early.start([Job("p", "ncu", run, job.gate, job.result)])
    assert not early._waiting


def test_nothing_is_timed_before_those_that_import_are_quiet(
    early: EarlyStart, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[object] = []
    monkeypatch.setattr(clean_timing.Timing, "run", lambda self: order.append("time"))
    early.store.update(
        params={"stages": 2, "seed": 3}, variants=(VariantRecord("slow", "sleeps", "pending"),), baseline="slow"
    )
    request = Request(str(FAKES / "workload.py"), variants=("slow",), device="cpu", tools=("none",))
    monkeypatch.setattr(plans.importlib.util, "find_spec", lambda name: True)
    run = clean_timing.Clean(
        make_plan(request, {}),
        early.store,
        Silent(),
        [],
        None,
        order.append,
        lambda: order.append("quiet"),
    )
    assert [target.variant for target in run.run()] == ["slow"] and order == [["slow"], "quiet", "time"]


@pytest.mark.parametrize("cores", ["16", "4"])
def test_a_capture_on_a_large_machine_imports_ahead(tmp_path: Path, cores: str) -> None:
    ran = capture(tmp_path, "--variants", "slow,wrong,fast", "--rounds", "1", PYTHONPATH=CORES, FAKE_CORES=cores)
    assert ran.returncode == 5 and "wrong is wrong" in ran.stderr
    found = whole(tmp_path / "cap")
    for name in ("slow", "fast"):
        record = found.variant(name)
        assert record is not None and [p.kind for p in record.parts] == ["trace", "counters"]
        for part in record.parts:
            spec = read(part.argv[part.argv.index("--spec") + 1])
            assert spec.target is not None and spec.target.params and spec.measurement is not None
            assert spec.measurement.hold is None
            log = (tmp_path / "cap" / "logs" / f"{name}-{part.tool}.log").read_text()
            assert ("imported" in log) == (cores == "16") and log.count("measured") == 1
    until = time.monotonic() + 5
    while time.monotonic() < until and running("moeprof.worker", tmp_path):
        time.sleep(0.05)
    assert not running("moeprof.worker", tmp_path), "the wrong variant's processes are ended"
    assert manifest.read(tmp_path / "cap").variant("wrong").status == "failed"  # type: ignore[union-attr]
