"""How many processes set up side by side, cores first, then the GPU's memory; what waits for what while they measure and end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from moeprof.capture import profiling
from moeprof.capture.child_processes import close_all
from moeprof.capture.commands import ToolRun
from moeprof.capture.jobs import Job, ToolName
from moeprof.capture.profiling import Ended
from moeprof.capture.progress import Silent
from moeprof.storage.capture_folder import Store
from moeprof.storage.manifest import Environment, Gpu, Manifest
from moeprof.worker.start_barrier import StartBarrier

GB = 10**9


@pytest.mark.parametrize(
    ("cores", "memory", "used", "each", "slots"),
    [
        (16, 80 * GB, 0, 4 * GB, 6),
        (2, 80 * GB, 0, 4 * GB, 1),
        (16, 8 * GB, 0, 2 * GB, 3),
        (16, 8 * GB, 4 * GB, 2 * GB, 1),
        (16, 8 * GB, 0, 20 * GB, 1),
        (16, 8 * GB, 0, 0, 6),
    ],
)
def test_slots(monkeypatch: pytest.MonkeyPatch, cores: int, memory: int, used: int, each: int, slots: int) -> None:
    monkeypatch.setattr(profiling.os, "cpu_count", lambda: cores)
    environment = Environment(
        "0", "3", "Linux", "cpu", cores, gpus_before=(Gpu(0, "g", memory_bytes=memory, memory_used_bytes=used),)
    )
    store = Store(Path("x"), Manifest(1, "workload", "w", "2026", (), "cuda", environment))
    assert profiling.Profiling(store, Silent(), [], lambda job, ended: None, process_bytes=each).slots(6) == slots


WAITS = """
import pathlib, sys, time
gate, until, result = map(pathlib.Path, sys.argv[1:])
pathlib.Path(f"{gate}.ready").touch()
while not (gate.exists() and until.exists()):
    time.sleep(0.01)
result.touch()
"""


def test_what_was_traced_is_kept_while_ncu_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counting process ends only once the trace before it was kept; the second trace begins before the first is."""
    monkeypatch.setattr(profiling.os, "cpu_count", lambda: 16)
    store = Store(
        tmp_path / "cap", Manifest(1, "workload", "w", "2026", (), "cpu", Environment("0", "3", "L", "c", 16))
    )
    store.open()
    order: list[str] = []

    def job(name: str, tool: ToolName, until: str) -> Job:
        gate, result = tmp_path / f"{name}.gate", tmp_path / f"{name}.result"
        words = (sys.executable, "-c", WAITS, str(gate), str(tmp_path / until), str(result))
        return Job(name, tool, ToolRun(None, words, None, 20), StartBarrier(gate), result)

    jobs = [job("one", "nsys", "one.gate"), job("two", "nsys", "one.gate"), job("three", "ncu", "two.kept"), job("four", "ncu", "three.kept")]  # fmt: skip
    problems: list[Any] = []

    def keep(job: Job, ended: Ended) -> None:
        order.append(f"{job.name} {ended.status}")
        (tmp_path / f"{job.name}.kept").touch()

    profiling.Profiling(store, Silent(), problems, keep).run(jobs)
    assert order == ["one 0", "two 0", "three 0", "four 0"] and not problems


def test_workers_are_asked_to_end_before_any_is_waited_for() -> None:
    order: list[str] = []

    class Worker:
        def __init__(self, name: str) -> None:
            self.name = name

        def quit(self) -> None:
            order.append(f"quit {self.name}")

        def close(self) -> None:
            order.append(f"close {self.name}")

    close_all([Worker("a"), Worker("b")])  # type: ignore[list-item]
    assert order == ["quit a", "quit b", "close a", "close b"]
