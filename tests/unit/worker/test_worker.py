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

PARAMS = {
    "layers": 3, "tokens": 64, "hidden": 16, "kv_width": 32, "width": 8, "ratio": 1.0, "link": "host",
    "dtype": "float32", "depth": 2, "seed": 0,
}  # fmt: skip
WORKER = [sys.executable, "-P", "-m", "moeprof.worker"]


def serve(
    variant: str, requests: list[dict[str, Any]], workload: str = "kv_transfer"
) -> tuple[list[dict[str, Any]], int, str]:
    lines = "".join(json.dumps(r) + "\n" for r in requests)
    command = [*WORKER, "serve", "--workload", workload, "--variant", variant, "--device", "cpu"]
    ran = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    return [json.loads(line) for line in ran.stdout.splitlines()], ran.returncode, ran.stderr


def test_serve_prepares_builds_proves_and_times() -> None:
    requests = [
        {"do": "prepare", "params": PARAMS},
        {"do": "build", "params": PARAMS},
        {"do": "prove"},
        {"do": "round", "seconds": 0.01},
        {"do": "quit"},
    ]
    replies, status, _ = serve("overlap", requests)
    assert status == 0
    ready, prepared, built, proven, timed = replies
    assert ready["ready"] and ready["skip"] is None and ready["machine"]["cuda"] is False
    assert prepared["params"] == PARAMS and prepared["ceilings"]["link_gb_per_s"] > 0
    assert built == {"flops": 2 * 3 * 64 * 8 * 48, "bytes_moved": 3 * 64 * 32 * 4}
    assert proven["proof"]["ok"] is True
    assert len(timed["times_ns"]) >= 3 and min(timed["times_ns"]) > 0


def test_serve_says_why_a_variant_is_skipped_and_ends_with_its_input() -> None:
    replies, status, _ = serve("graph", [])
    assert replies[0]["skip"] == "needs a CUDA GPU"
    assert status == 0


def test_a_failure_is_the_last_line_and_status_5() -> None:
    replies, status, log = serve("baseline", [{"do": "build", "params": {**PARAMS, "dtype": "float99"}}])
    assert status == 5
    assert "float99" in replies[-1]["error"]
    assert "Traceback" in log


def test_prints_of_a_workload_do_not_reach_the_protocol(tmp_path: Path) -> None:
    noisy = tmp_path / "noisy.py"
    noisy.write_text(
        "from moeprof.workloads.kv_transfer.workload import *\nfrom dataclasses import replace\nprint('importing')\n"
        "def build(params, device):\n    print('building'); return build_baseline(params, device)\n"
        "WORKLOAD = replace(WORKLOAD, variants=(Variant('baseline', '', build), *WORKLOAD.variants[1:]))\n"
    )
    replies, status, log = serve("baseline", [{"do": "build", "params": PARAMS}], str(noisy))
    assert status == 0 and len(replies) == 2
    assert "importing" in log and "building" in log


def test_trace_records_ranges_on_both_threads_with_torch_profiler(tmp_path: Path) -> None:
    out, result = tmp_path / "trace.json", tmp_path / "result.json"
    command = [
        *WORKER,
        "trace",
        "--workload",
        "kv_transfer",
        "--variant",
        "overlap",
        "--device",
        "cpu",
        "--profiler",
        "torch",
    ]
    words = ["--params", json.dumps(PARAMS), "--iterations", "4", "--out", str(out), "--result", str(result)]
    ran = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(result.read_text())["iterations"] == 4
    assert json.loads(result.read_text())["proof"]["ok"] is True
    events = json.loads(out.read_text())["traceEvents"]
    names = [e["name"] for e in events if e.get("cat") == "user_annotation"]
    assert [n for n in names if n.startswith("moeprof:iteration:")] == [f"moeprof:iteration:{i}" for i in range(4)]
    assert "moeprof:kv_transfer/overlap" in names and "moeprof:measure" in names
    tids = {name: {e["tid"] for e in events if e["name"] == name} for name in ("aten::mm", "aten::copy_")}
    assert tids["aten::mm"] and tids["aten::copy_"] and not tids["aten::mm"] & tids["aten::copy_"]


def test_a_gate_holds_the_measurement_back(tmp_path: Path) -> None:
    gate, result = tmp_path / "gate", tmp_path / "result.json"
    command = [
        *WORKER,
        "trace",
        "--workload",
        "kv_transfer",
        "--variant",
        "baseline",
        "--device",
        "cpu",
        "--profiler",
        "none",
    ]
    words = ["--params", json.dumps(PARAMS), "--iterations", "2", "--result", str(result), "--gate", str(gate)]
    with subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True) as child:
        while not Path(str(gate) + ".ready").exists():
            assert child.poll() is None
        assert not result.exists()
        gate.touch()
        assert child.wait(30) == 0
    assert result.exists()


def test_who_waits_at_a_gate_ends_when_nobody_is_left_to_open_it(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as holder:
        gate = tmp_path / "gate"
        words = ["--workload", "kv_transfer", "--variant", "baseline", "--device", "cpu", "--profiler", "none"]
        words += ["--params", json.dumps(PARAMS), "--result", str(tmp_path / "r.json"), "--gate", str(gate)]
        env = os.environ | {"MOEPROF_HOLDER": str(holder.pid)}
        with subprocess.Popen([*WORKER, "trace", *words], stderr=subprocess.PIPE, text=True, env=env) as child:
            while not Path(str(gate) + ".ready").exists():
                assert child.poll() is None
            time.sleep(1.2)
            assert child.poll() is None  # the holder is there
            holder.kill()
            holder.wait()
            _, said = child.communicate(timeout=30)
        assert child.returncode == 1 and "the capture that this process waited for is gone" in said


def test_a_program_runs_under_torch_profiler_and_keeps_its_status(tmp_path: Path) -> None:
    program, out, result = tmp_path / "p.py", tmp_path / "t.json", tmp_path / "r.json"
    program.write_text("import sys, torch\ntorch.ones(4).sum()\nprint(sys.argv[1:])\nsys.exit(3)\n")
    words = ["program", "--out", str(out), "--result", str(result), "--", str(program), "a", "--b"]
    ran = subprocess.run([*WORKER, *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(result.read_text()) == {"exit_code": 3}
    assert "['a', '--b']" in ran.stderr
    assert any(e["name"] == "aten::sum" for e in json.loads(out.read_text())["traceEvents"])


def test_nothing_heavy_is_imported_in_the_profiled_process() -> None:
    code = "import moeprof.worker.__main__, moeprof.workloads.kv_transfer.workload, sys; print([m for m in ('pandas', 'plotly', 'click', 'rich', 'torch') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "[]"
    )
