"""The processes that a plan becomes, each alone or under a profiler. Pure: the same plan gives the same commands."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from moeprof.capture.plan import Counting, Plan
from moeprof.errors import ToolError
from moeprof.machine.command import Command
from moeprof.machine.launcher import Team
from moeprof.machine.ncu_metrics import COUNTED, WARP_STATE_METRICS
from moeprof.machine.tools import Tool, export_command
from moeprof.worker import nvtx
from moeprof.worker.leader import GROUP_FACTOR
from moeprof.worker.spec import Follower, Measurement, Profiler, Program, Target, WorkerSpec

LEADER_GRACE_S = 15
RANGES = ("--capture-range=cudaProfilerApi", "--capture-range-end=stop")


@dataclass(frozen=True)
class Nsys:
    """nsys on a process and its children. ``region``: it records only between cudaProfilerStart and cudaProfilerStop."""

    path: Path
    report: Path
    region: bool

    @property
    def words(self) -> tuple[str, ...]:
        """Its command line, without that of the process."""
        return (
            str(self.path), "profile", "--trace=cuda,nvtx", "--sample=none", "--cpuctxsw=none", "--cuda-graph-trace=node",
            "--cuda-event-trace=false", "--force-overwrite=true", "-o", str(self.report.with_suffix("")),
            *(RANGES if self.region else ()),
        )  # fmt: skip


@dataclass(frozen=True)
class Ncu:
    """ncu on the first kernels of a process, whose CSV file is ``table``. ``region``: only kernels in our measured range count.
    Clocks are left as they are."""

    counting: Counting
    table: Path
    region: bool

    @property
    def words(self) -> tuple[str, ...]:
        """Its command line, without that of the process."""
        counting = self.counting
        metrics = (*COUNTED, *counting.roofline, *(WARP_STATE_METRICS if counting.warp_states else ()))
        include = ("--nvtx", "--nvtx-include", f"{nvtx.DOMAIN}@{nvtx.MEASURE}/") if self.region else ()
        return (
            str(counting.ncu.path), "--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none",
            "--graph-profiling", "node", "--target-processes", "all", "--launch-count", str(counting.kernels),
            "--metrics", ",".join(metrics), "--log-file", str(self.table), *include,
        )  # fmt: skip


@dataclass(frozen=True)
class ToolRun:
    """One process, bare or under a tool: a worker by its spec, or the user's own command line.

    ``produces`` is the file that it must leave; None if nothing waits for one.
    """

    tool: Nsys | Ncu | None
    process: WorkerSpec | tuple[str, ...]
    produces: Path | None
    timeout_s: int

    @property
    def command(self) -> Command:
        """The command to start."""
        words = self.process.argv if isinstance(self.process, WorkerSpec) else self.process
        return Command((*(self.tool.words if self.tool else ()), *words), self.produces, self.timeout_s)

    @property
    def target(self) -> Target | None:
        """The variant that its worker runs; None for a program."""
        return self.process.target if isinstance(self.process, WorkerSpec) else None

    @property
    def iterations(self) -> int | None:
        """Iterations that its worker measures; None for a program."""
        measurement = self.process.measurement if isinstance(self.process, WorkerSpec) else None
        return None if measurement is None else measurement.iterations

    def holding(self, hold: Path) -> ToolRun | None:
        """The same run, whose worker imports and then waits at the start barrier ``hold`` for its parameters; None for a program."""
        if not isinstance(self.process, WorkerSpec) or self.process.measurement is None:
            return None
        return replace(self, process=self.process.holding(str(hold)))

    def without_roofline(self) -> ToolRun:
        """The same run, without the counters that only the roofline needs."""
        if not isinstance(self.tool, Ncu):
            return self
        return replace(self, tool=replace(self.tool, counting=replace(self.tool.counting, roofline=())))


@dataclass(frozen=True)
class Files:
    """The files of one measured run: what the tool writes, the worker's result, its start barrier, its log."""

    out: Path
    result: Path
    gate: Path
    log: Path


def patience_s(plan: Plan) -> int:
    """Time limit of a process; a leader of ranks has time to report first which rank hangs."""
    return plan.request.timeout_s + (0 if plan.team is None else LEADER_GRACE_S)


def serve(plan: Plan, target: Target, log: Path) -> WorkerSpec:
    """The worker that proves and times a variant on request; on a further host the parent of the ranks there."""
    spec = WorkerSpec("serve", replace(target, team=_in_room(target.team, log)), plan.request.timeout_s, str(log))
    if not plan.host:
        return spec
    follower = Follower(os.getpid(), GROUP_FACTOR * plan.request.timeout_s, host=plan.host)
    return replace(spec, mode="host", follower=follower)


def _in_room(team: Team | None, log: Path) -> Team | None:
    """Ranks of several hosts share a store, in which each run has keys of its own: the name of its log is in them."""
    return team if team is None or len(team.layout) == 1 else replace(team, room=f"{team.room}/{log.stem}")


def trace(plan: Plan, target: Target | None, files: Files) -> ToolRun:
    """The trace of a variant, or of the user's program where ``target`` is None: by nsys, else by torch.profiler.

    Of a variant only the measured iterations are traced, CUDA graphs node by node. Under nsys its ranks are in one report, as
    they are children of its process; torch.profiler leaves one trace a rank.

    Raises:
        ToolError: the program is no Python program, so that only nsys could trace it.
    """
    tool = None if plan.nsys is None else Nsys(plan.nsys.path, files.out, region=target is not None)
    process: WorkerSpec | tuple[str, ...]
    if target is not None:
        out = str(files.out) if tool is None else None
        profiler: Profiler = "torch" if tool is None else "nsys"
        process = _measure(plan, target, files, Measurement(profiler, str(files.result), plan.request.iterations, out))
    else:
        process = plan.request.program if tool is not None else _under_torch(plan.request.program, files)
    return ToolRun(tool, process, files.out, patience_s(plan))


def count(plan: Plan, target: Target | None, files: Files) -> ToolRun:
    """Counters of the first kernels of a variant's iteration, or of the user's program where ``target`` is None."""
    assert plan.counting is not None
    process: WorkerSpec | tuple[str, ...] = plan.request.program
    if target is not None:
        process = _measure(plan, target, files, Measurement("ncu", str(files.result)))
    tool = Ncu(plan.counting, files.out, region=target is not None)
    return ToolRun(tool, process, files.out, plan.request.timeout_s)


def _measure(plan: Plan, target: Target, files: Files, measurement: Measurement) -> WorkerSpec:
    spec = serve(plan, target, files.log)
    if spec.follower is not None:
        return replace(spec, follower=replace(spec.follower, out=measurement.out))
    return replace(spec, mode="measure", measurement=replace(measurement, gate=str(files.gate)))


def _under_torch(program: tuple[str, ...], files: Files) -> WorkerSpec:
    """The worker that runs a Python program under torch.profiler."""
    first, *words = program
    if first.endswith(".py"):
        words = [first, *words]
    elif not Path(first).name.startswith("python") or not words:
        raise ToolError(
            f"nsys is missing, and torch.profiler cannot trace {first!r}", "install nsys, or give a Python program"
        )
    words = [word for word in words[:1] if word != "-u"] + words[1:]
    return WorkerSpec("program", program=Program(tuple(words), str(files.out), str(files.result)))


def nsys_export(tool: Tool, report: Path, export: Path, timeout_s: int) -> Command:
    """The SQLite export of a report."""
    return Command(export_command(tool, report, export), export, timeout_s)


def shown(argv: tuple[str, ...], *folders: Path) -> tuple[str, ...]:
    """A command without this machine's paths: tools by their name, files of these folders by theirs."""
    short = list(argv)
    for folder in folders:
        short = [word.replace(f"{folder}{os.sep}", "") for word in short]
    return tuple(Path(word).name if word in (argv[0], sys.executable) else word for word in short)


def printed(argv: tuple[str, ...]) -> str:
    """A command as a shell would run it, with a worker's spec over several lines."""
    words = list(argv)
    if "--spec" in words:
        at = words.index("--spec") + 1
        words[at] = json.dumps(json.loads(words[at]), indent=1, ensure_ascii=False)
    return shlex.join(words)
