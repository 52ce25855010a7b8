"""What to run: the user's request, and the processes that it becomes. Pure (``--dry-run`` prints them)."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from moeprof.errors import ToolError
from moeprof.machine.command import Command
from moeprof.machine.launcher import Team
from moeprof.machine.ncu_metrics import COUNTED, WARP_STATE_METRICS
from moeprof.machine.tools import Tool, export_command
from moeprof.worker import nvtx
from moeprof.worker.spec import Device, Follower, Measurement, Params, Program, Target, WorkerSpec
from moeprof.workload.model import DEFAULT_COUNTED

ROUND_SECONDS = 0.25  # of one variant in one round of clean timing
BUDGET_S = (
    40  # of clean timing: with the rest of a capture under two minutes (docs/results.md); quiet machines need a third
)
LEADER_GRACE_S = 15
RANGES = ("--capture-range=cudaProfilerApi", "--capture-range-end=stop")
KNOWN_TOOLS = ("nsys", "ncu", "torch", "none")


@dataclass(frozen=True)
class Request:
    """What the user asked for. ``workload`` is a name or path, or None where ``program`` holds a command line."""

    workload: str | None = None
    program: tuple[str, ...] = ()
    variants: tuple[str, ...] | None = None
    preset: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    device: Device | None = None
    tools: tuple[str, ...] | None = None
    rounds: int | None = None  # None: until the verdicts are clear or the budget is spent
    budget_s: float | None = None  # of clean timing; None: BUDGET_S
    iterations: int = 8
    stalls: bool = False  # count too why warps wait
    roofline: tuple[str, ...] = ()  # counters of FLOPs and peaks that ncu knows on this chip
    ncu_kernels: int | None = None  # None: as many as the workload says
    nsys: Path | None = None
    ncu: Path | None = None
    timeout_s: int = 300
    output: Path | None = None
    force: bool = False
    keep_raw: bool = False
    nproc: int | None = None  # ranks; None: as many as the workload takes here
    argv: tuple[str, ...] = ("moeprof", "capture")


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
    """ncu on the first ``kernels`` of a process. Clocks are left as they are.

    Attributes:
        table: the CSV file that it writes.
        roofline: counters of FLOPs and peaks.
        warp_states: whether it counts why warps wait.
        region: whether only kernels in our measured range count.
    """

    path: Path
    table: Path
    kernels: int
    roofline: tuple[str, ...]
    warp_states: bool
    region: bool

    @property
    def words(self) -> tuple[str, ...]:
        """Its command line, without that of the process."""
        metrics = (*COUNTED, *self.roofline, *(WARP_STATE_METRICS if self.warp_states else ()))
        include = ("--nvtx", "--nvtx-include", f"{nvtx.DOMAIN}@{nvtx.MEASURE}/") if self.region else ()
        return (
            str(self.path), "--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none", "--graph-profiling", "node",
            "--target-processes", "all", "--launch-count", str(self.kernels), "--metrics", ",".join(metrics),
            "--log-file", str(self.table), *include,
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
    def params(self) -> Params:
        """The parameters of its worker; empty for a program."""
        target = self.process.target if isinstance(self.process, WorkerSpec) else None
        return target.params if target is not None else {}

    def holding(self, hold: Path) -> ToolRun | None:
        """The same run, whose worker imports and then waits at the start barrier ``hold`` for its parameters; None for a program."""
        if not isinstance(self.process, WorkerSpec) or self.process.measurement is None:
            return None
        return replace(self, process=self.process.holding(str(hold)))

    def without_roofline(self) -> ToolRun:
        """The same run, without the counters that only the roofline needs."""
        return replace(self, tool=replace(self.tool, roofline=())) if isinstance(self.tool, Ncu) else self


@dataclass(frozen=True)
class Files:
    """Where one measured run of a variant leaves what: the tool's output, the worker's result, the start barrier."""

    out: Path
    result: Path
    gate: Path


def patience_s(request: Request, target: Target) -> int:
    """Time limit of a process; a leader of ranks has time to report first which rank hangs."""
    return request.timeout_s + (0 if target.team is None else LEADER_GRACE_S)


def serve(request: Request, target: Target, log: Path) -> WorkerSpec:
    """The worker that proves and times a variant on request."""
    return WorkerSpec("serve", replace(target, team=_in_room(target.team, log)), request.timeout_s, str(log))


def _in_room(team: Team | None, log: Path) -> Team | None:
    """Ranks of several hosts share a store, in which each run has keys of its own: the name of its log is in them."""
    return team if team is None or len(team.layout) == 1 else replace(team, room=f"{team.room}{log.stem}")


def _measure(request: Request, target: Target, log: Path, measurement: Measurement) -> WorkerSpec:
    return replace(serve(request, target, log), mode="measure", measurement=measurement)


def nsys_trace(request: Request, tool: Tool, target: Target, log: Path, files: Files) -> ToolRun:
    """A variant under nsys: only the measured iterations, CUDA graphs node by node. Its ranks are children of its process, so
    that all are in one report."""
    measurement = Measurement("nsys", str(files.result), request.iterations, gate=str(files.gate))
    worker = _measure(request, target, log, measurement)
    return ToolRun(Nsys(tool.path, files.out, True), worker, files.out, patience_s(request, target))


def torch_trace(request: Request, target: Target, log: Path, files: Files) -> ToolRun:
    """A variant under torch.profiler, where nsys is missing; each rank leaves a trace of its own."""
    measurement = Measurement("torch", str(files.result), request.iterations, str(files.out), str(files.gate))
    return ToolRun(None, _measure(request, target, log, measurement), files.out, patience_s(request, target))


def ncu_count(request: Request, tool: Tool, target: Target, log: Path, files: Files) -> ToolRun:
    """A variant's kernels under ncu: the first ``ncu_kernels`` of one iteration inside our range."""
    worker = _measure(request, target, log, Measurement("ncu", str(files.result), gate=str(files.gate)))
    return ToolRun(_ncu(request, tool, files.out, region=True), worker, files.out, request.timeout_s)


def _ncu(request: Request, tool: Tool, table: Path, region: bool) -> Ncu:
    kernels = request.ncu_kernels or DEFAULT_COUNTED
    return Ncu(tool.path, table, kernels, request.roofline, request.stalls, region)


def head(request: Request, target: Target, log: Path, follower: Follower, nsys: Nsys | None) -> ToolRun:
    """The first rank of a further host, which starts the others there; under nsys as on rank 0's host, or bare."""
    worker = replace(serve(request, target, log), mode="follow", follower=follower)
    if nsys is None:
        return ToolRun(None, worker, None, request.timeout_s)
    return ToolRun(nsys, worker, nsys.report, request.timeout_s + LEADER_GRACE_S)


def nsys_program(request: Request, tool: Tool, report: Path) -> ToolRun:
    """The user's own program under nsys, from its start to its end."""
    return ToolRun(Nsys(tool.path, report, False), request.program, report, request.timeout_s)


def torch_program(request: Request, result: Path, out: Path) -> ToolRun:
    """A Python program under torch.profiler.

    Raises:
        ToolError: the program is no Python program, so that only nsys could trace it.
    """
    first, *rest = request.program
    if first.endswith(".py"):
        rest = [first, *rest]
    elif not Path(first).name.startswith("python") or not rest:
        raise ToolError(
            f"nsys is missing, and torch.profiler cannot trace {first!r}", "install nsys, or give a Python program"
        )
    words = [word for word in rest[:1] if word != "-u"] + rest[1:]
    worker = WorkerSpec("program", program=Program(tuple(words), str(out), str(result)))
    return ToolRun(None, worker, out, request.timeout_s)


def ncu_program(request: Request, tool: Tool, table: Path) -> ToolRun:
    """The first kernels of the user's own program under ncu."""
    return ToolRun(_ncu(request, tool, table, region=False), request.program, table, request.timeout_s)


def nsys_export(request: Request, tool: Tool, report: Path, export: Path) -> Command:
    """The SQLite export of a report."""
    return Command(export_command(tool, report, export), export, request.timeout_s)


def shown(argv: tuple[str, ...], *folders: Path) -> tuple[str, ...]:
    """A command without this machine's paths: tools by their name, files of these folders by theirs."""
    short = list(argv)
    for folder in folders:
        short = [word.replace(f"{folder}{os.sep}", "") for word in short]
    return tuple(Path(word).name if word in (argv[0], sys.executable) else word for word in short)


def printed(command: Command) -> str:
    """A command as a shell would run it, with a worker's spec over several lines."""
    words = list(command.argv)
    if "--spec" in words:
        at = words.index("--spec") + 1
        words[at] = json.dumps(json.loads(words[at]), indent=1, ensure_ascii=False)
    return str(replace(command, argv=tuple(words)))
