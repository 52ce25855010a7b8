"""The worker as its parent sees it: a real child process on the CPU, its protocol, its traces, its failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from moeprof.storage.json import decode
from moeprof.worker import messages
from moeprof.worker.messages import (
    Build,
    Built,
    ErrorReply,
    Hello,
    Prepare,
    Prove,
    Quit,
    Request,
    Round,
    RunResult,
)
from moeprof.worker.spec import Measurement, Target, WorkerSpec
from moeprof.worker.start_barrier import StartBarrier

PARAMS = {
    "layers": 3, "tokens": 64, "hidden": 16, "kv_width": 32, "width": 8, "ratio": 1.0, "link": "host",
    "dtype": "float32", "depth": 2, "seed": 0,
}  # fmt: skip


def serve(variant: str, requests: list[Request[Any]], workload: str = "kv_transfer") -> tuple[list[Any], int, str]:
    lines = "".join(messages.line(request) + "\n" for request in requests)
    spec = WorkerSpec("serve", Target(workload, variant, "cpu"))
    ran = subprocess.run(spec.argv, input=lines, capture_output=True, text=True, check=False)
    return [messages.reply(line) for line in ran.stdout.splitlines()], ran.returncode, ran.stderr


def measure(variant: str, measurement: Measurement) -> WorkerSpec:
    return WorkerSpec("measure", Target("kv_transfer", variant, "cpu", PARAMS), measurement=measurement)


def test_serve_prepares_builds_proves_and_times() -> None:
    requests: list[Request[Any]] = [Prepare(PARAMS), Build(PARAMS), Prove(), Round(0.01), Quit()]
    replies, status, _ = serve("overlap", requests)
    assert status == 0
    hello, prepared, built, proven, timed = replies
    assert isinstance(hello, Hello) and hello.skip is None and hello.machine.cuda is False
    assert prepared.params == PARAMS and prepared.ceilings["link_gb_per_s"] > 0
    assert built == Built(flops=2 * 3 * 64 * 8 * 48, bytes_moved=3 * 64 * 32 * 4)
    assert proven.proof.ok is True
    assert len(timed.times_ns) >= 3 and min(timed.times_ns) > 0


def test_serve_says_why_a_variant_is_skipped_and_ends_with_its_input() -> None:
    replies, status, _ = serve("graph", [])
    assert replies[0].skip == "needs a CUDA GPU"
    assert status == 0


def test_a_failure_is_the_last_line_and_status_5() -> None:
    replies, status, log = serve("baseline", [Build({**PARAMS, "dtype": "float99"})])
    assert status == 5
    assert isinstance(replies[-1], ErrorReply) and "float99" in replies[-1].error
    assert "Traceback" in log


def test_prints_of_a_workload_do_not_reach_the_protocol(tmp_path: Path) -> None:
    noisy = tmp_path / "noisy.py"
    noisy.write_text(
        "from moeprof.workloads.kv_transfer.workload import *\nfrom dataclasses import replace\nprint('importing')\n"
        "def build(params, device):\n    print('building'); return build_baseline(params, device)\n"
        "WORKLOAD = replace(WORKLOAD, variants=(Variant('baseline', '', build), *WORKLOAD.variants[1:]))\n"
    )
    replies, status, log = serve("baseline", [Build(PARAMS)], str(noisy))
    assert status == 0 and len(replies) == 2
    assert "importing" in log and "building" in log


def test_trace_records_ranges_on_both_threads_with_torch_profiler(tmp_path: Path) -> None:
    out, result = tmp_path / "trace.json", tmp_path / "result.json"
    spec = measure("overlap", Measurement("torch", str(result), 4, str(out)))
    ran = subprocess.run(spec.argv, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    run = decode(RunResult, json.loads(result.read_text()))
    assert run.iterations == 4 and run.proof.ok is True
    events = json.loads(out.read_text())["traceEvents"]
    names = [e["name"] for e in events if e.get("cat") == "user_annotation"]
    assert [n for n in names if n.startswith("moeprof:iteration:")] == [f"moeprof:iteration:{i}" for i in range(4)]
    assert "moeprof:kv_transfer/overlap" in names and "moeprof:measure" in names
    tids = {name: {e["tid"] for e in events if e["name"] == name} for name in ("aten::mm", "aten::copy_")}
    assert tids["aten::mm"] and tids["aten::copy_"] and not tids["aten::mm"] & tids["aten::copy_"]


def test_a_gate_holds_the_measurement_back(tmp_path: Path) -> None:
    gate, result = StartBarrier(tmp_path / "gate"), tmp_path / "result.json"
    spec = measure("baseline", Measurement("none", str(result), 2, gate=str(gate.file)))
    with subprocess.Popen(spec.argv, stderr=subprocess.PIPE, text=True) as child:
        while not gate.ready.exists():
            assert child.poll() is None
            time.sleep(0.01)
        assert not result.exists()
        gate.open()
        assert child.wait(30) == 0
    assert result.exists()


def test_who_waits_at_a_gate_ends_when_nobody_is_left_to_open_it(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as holder:
        gate = StartBarrier(tmp_path / "gate")
        spec = measure("baseline", Measurement("none", str(tmp_path / "r.json"), gate=str(gate.file)))
        env = os.environ | {"MOEPROF_HOLDER": str(holder.pid)}
        with subprocess.Popen(spec.argv, stderr=subprocess.PIPE, text=True, env=env) as child:
            while not gate.ready.exists():
                assert child.poll() is None
                time.sleep(0.01)
            time.sleep(1.2)
            assert child.poll() is None  # the holder is there
            holder.kill()
            holder.wait()
            _, said = child.communicate(timeout=30)
        assert child.returncode == 1 and "the capture that this process waited for is gone" in said


def test_nothing_heavy_is_imported_in_the_profiled_process() -> None:
    code = "import moeprof.worker.__main__, moeprof.workloads.kv_transfer.workload, sys; print([m for m in ('pandas', 'plotly', 'click', 'rich', 'psutil', 'torch') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "[]"
    )
