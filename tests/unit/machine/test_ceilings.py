"""Ceilings: measured here, remembered for the machine, measured anew; a failure is one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from moeprof.errors import ToolError
from moeprof.machine import ceilings

PLAIN = {"read_gb_per_s", "copy_gb_per_s", "gemm_float32_tflop_per_s"}
ON_GPU = PLAIN | {
    "gemm_bfloat16_tflop_per_s", "gemm_float16_tflop_per_s", "h2d_pinned_gb_per_s", "d2h_pinned_gb_per_s", "launch_eager_us", "launch_graph_node_us",
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "moeprof" / "ceilings"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A measuring process that only counts how often it runs."""
    calls: list[int] = []

    def run(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        calls.append(1)
        return subprocess.CompletedProcess(command, 0, f'noise\n{{"read_gb_per_s": {len(calls)}.5}}\n', "")

    monkeypatch.setattr(ceilings.subprocess, "run", run)
    return calls


def test_the_command_measures_this_machine() -> None:
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "moeprof", "doctor", "--ceilings", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(ran.stdout)
    assert set(found["values"]) >= PLAIN and all(value > 0 for value in found["values"].values())
    shown = subprocess.run(
        [sys.executable, "-P", "-m", "moeprof", "doctor", "--ceilings"], capture_output=True, text=True, check=True
    ).stdout
    assert found["at"] in shown and shown.count("GB/s") >= 2  # remembered: the same moment


def test_they_are_remembered_until_asked_anew_or_another_torch(
    measured: list[int], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ceilings.ceilings().values == ceilings.ceilings().values == {"read_gb_per_s": 1.5} and len(measured) == 1
    assert ceilings.ceilings(fresh=True).values == {"read_gb_per_s": 2.5} == ceilings.ceilings().values
    monkeypatch.setattr(ceilings, "version", lambda name: "9.9")
    assert ceilings.ceilings().values == {"read_gb_per_s": 3.5}
    for file in cache.glob("*.json"):
        file.write_text("{}")
    assert ceilings.ceilings().values == {"read_gb_per_s": 4.5}  # a damaged memory is none


def test_a_measuring_process_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "Traceback\nRuntimeError: out of memory\n")

    monkeypatch.setattr(ceilings.subprocess, "run", run)
    with pytest.raises(ToolError, match="RuntimeError: out of memory"):
        ceilings.ceilings()

    def slow(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(ceilings.subprocess, "run", slow)
    with pytest.raises(ToolError, match="not measured within"):
        ceilings.ceilings()


@pytest.mark.gpu
def test_a_gpu_has_all_of_them() -> None:
    assert set(ceilings.ceilings(fresh=True).values) >= ON_GPU
