"""Commands on a machine with many cores and a GPU: traced one at a time; the number of rounds is decided before they are timed."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from moeprof.capture import command_run, command_timing, manifest_builder
from moeprof.capture.command_run import Place
from moeprof.capture.command_set import CommandVariant, Given, from_options
from moeprof.capture.command_timing import BUDGET_S, CommandsClean
from moeprof.capture.jobs import Job
from moeprof.capture.plan import Plan, make_plan
from moeprof.capture.progress import Silent
from moeprof.capture.request import Request
from moeprof.errors import WorkloadError
from moeprof.machine.tools import Tool
from moeprof.stats.verdict import LOOKS, MIN_ROUNDS
from moeprof.storage.capture_folder import Store
from moeprof.storage.manifest import Gpu


def planned(tmp_path: Path, **changes: Any) -> tuple[Plan, Store]:
    commands = from_options(
        Given((f"baseline={sys.executable} a.py --out {{out}}", f"optimized={sys.executable} b.py"))
    )
    plan = make_plan(Request(commands=commands, device="cpu", **changes), {})
    store = Store(tmp_path / "cap", manifest_builder.manifest(plan))
    store.open()
    return plan, store


@dataclass
class Recorded:
    """Stands for the profiling phase."""

    progress: Silent = field(default_factory=Silent)
    problems: list[Any] = field(default_factory=list)
    calls: list[list[Job]] = field(default_factory=list)

    def run(self, jobs: list[Job]) -> None:
        self.calls.append(jobs)


def test_commands_are_traced_one_at_a_time_in_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = planned(tmp_path)
    plan = replace(plan, torch=False, nsys=Tool("nsys", Path("/opt/nsys"), "2025.3"))
    assert plan.request.commands is not None
    monkeypatch.setattr(CommandsClean, "run", lambda self: list(self.commands.variants))
    profiling: Any = Recorded()
    command_timing.run_commands(plan, store, profiling)
    assert [[job.name for job in jobs] for jobs in profiling.calls] == [["baseline"], ["optimized"]]
    first, second = (jobs[0].run.command for jobs in profiling.calls)
    assert "--capture-range=cudaProfilerApi" not in first.argv, "the whole program is traced"
    out = first.argv[first.argv.index("--out") + 1]
    assert out == first.env[command_run.OUT_VARIABLE] != second.env[command_run.OUT_VARIABLE]
    assert Path(out).is_dir() and not list(Path(out).iterdir())


@pytest.mark.parametrize(
    ("run_s", "rounds", "budget_s", "noted"),
    [(1.0, None, BUDGET_S, False), (20.0, 10, None, False), (100.0, 2, None, True), (1000.0, 1, None, True)],
)
def test_slow_commands_have_their_rounds_decided_first(
    tmp_path: Path, run_s: float, rounds: int | None, budget_s: float | None, noted: bool
) -> None:
    plan, store = planned(tmp_path)
    assert plan.request.commands is not None
    clean = CommandsClean(plan, plan.request.commands, store, Silent(), [])
    clean.longest_s = {"baseline": run_s, "optimized": run_s}
    request = clean._request(list(clean.commands.variants))
    assert (request.rounds, request.budget_s) == (rounds, budget_s)
    assert ("few-rounds" in [n.id for n in store.manifest.notes]) is noted and MIN_ROUNDS <= 10 < LOOKS[0]


def variant(*words: str, **changes: Any) -> CommandVariant:
    return CommandVariant("v", (sys.executable, *words), **changes)


def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "runs" / "v", tmp_path / "v.log")


def test_a_run_past_its_time_is_killed_with_its_children(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="ran past 1 s and was killed"):
        command_run.run(variant("-c", "import time; time.sleep(60)"), place(tmp_path), 1, False)


def test_a_run_has_its_environment_and_an_empty_folder(tmp_path: Path) -> None:
    where = place(tmp_path)
    where.out.mkdir(parents=True)
    (where.out / "old").touch()
    program = (
        "import os; print(os.environ['A'], os.getcwd(), os.listdir(os.environ['MOEPROF_OUT'])); open('{out}/new', 'w')"
    )
    ran, _ = command_run.run(variant("-c", program, environment={"A": "b"}, folder=tmp_path), where, 60, False)
    assert where.output.read_text() == f"b {os.path.realpath(tmp_path)} []\n"
    assert (where.out / "new").is_file() and ran.process_ns > 1_000_000


def test_the_gpu_is_read_while_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its end the GPU would have the clocks of an idle one; of several readings the one with most power counts."""
    readings = iter([Gpu(0, "g", power_w=100.0, sm_clock_mhz=1200), Gpu(0, "g", power_w=600.0, sm_clock_mhz=1900)])
    monkeypatch.setattr(command_run, "WATCH_S", 0.05)
    monkeypatch.setattr(command_run.nvml, "gpu", lambda *_: next(readings, Gpu(0, "g", power_w=90.0, sm_clock_mhz=300)))
    _, watched = command_run.run(variant("-c", "import time; time.sleep(0.5)"), place(tmp_path), 60, True)
    assert watched.gpu is not None and watched.gpu.sm_clock_mhz == 1900
