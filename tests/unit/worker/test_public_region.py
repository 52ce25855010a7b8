"""``moeprof.region``: times where they are asked for, ranges for profilers, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from moeprof import region
from moeprof.worker import region as regions


def test_a_region_records_its_wall_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(regions.TIMES, str(tmp_path))
    for _ in range(3):
        with region("a step"):
            time.sleep(0.01)
    with region("other"):
        pass
    (times,) = regions.recorded_ns(tmp_path, "a step")
    assert len(times) == 3 and all(10_000_000 <= ns < 1_000_000_000 for ns in times)
    assert regions.names(tmp_path) == ["a step", "other"] and regions.recorded_ns(tmp_path, "nothing") == []


def test_without_being_asked_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(regions.TIMES, raising=False)
    with region("step"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_body_that_raises_has_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(regions.TIMES, str(tmp_path))
    with pytest.raises(ValueError, match="inside"), region("step"):
        raise ValueError("inside")
    assert regions.recorded_ns(tmp_path, "step") == []


@pytest.mark.parametrize("absent", ["nvtx", "torch"])
def test_it_needs_neither_torch_nor_nvtx(tmp_path: Path, absent: str) -> None:
    program = f"""
import sys
sys.modules[{absent!r}] = None
from moeprof import region
with region("step"):
    pass
heavy = [name for name in ("torch", "pandas", "click", "rich") if sys.modules.get(name) is not None]
assert not heavy, heavy
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_torch_profiler_sees_it() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with torch.profiler.profile() as recorded, region("a step"):
        torch.zeros(1)
    assert "a step" in {event.name for event in recorded.events()}


def test_each_process_has_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(regions.TIMES, str(tmp_path))
    program = "from moeprof import region\nfor _ in range(2):\n    with region('step'): pass"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], check=True)
    assert [len(times) for times in regions.recorded_ns(tmp_path, "step")] == [2, 2]
