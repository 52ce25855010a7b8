"""What to run: requests and commands. Pure: the same request and tools give the same commands (``--dry-run`` prints them)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from moeprof.errors import ToolError
from moeprof.machine.command import Command
from moeprof.machine.launcher import Team
from moeprof.machine.ncu_metrics import COUNTED, WARP_STATE_METRICS
from moeprof.machine.tools import Tool, export_command
from moeprof.worker import nvtx
from moeprof.workload.model import DEFAULT_COUNTED

ROUND_SECONDS = 0.25  # of one variant in one round of clean timing
BUDGET_S = (
    40  # of clean timing: with the rest of a capture under two minutes (docs/results); quiet machines need a third
)
LEADER_GRACE_S = 15
PARAMS = "--params"
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
    device: str | None = None
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
class Target:
    """One variant to run: how the worker is told of it. ``ranks`` is None for a workload that has none."""

    workload: str
    variant: str
    device: str
    params: dict[str, Any]
    ranks: int | None = None
    hosts: tuple[str, ...] = ()  # where several hosts meet

    @property
    def words(self) -> tuple[str, ...]:
        """The worker's arguments that name it."""
        ranks = () if self.ranks is None else ("--nproc", str(self.ranks))
        return ("--workload", self.workload, "--variant", self.variant, "--device", self.device, *ranks)

    def watched(self, request: Request, log: Path) -> tuple[str, ...]:
        """How the leader of ranks watches them: the time limit, and the log beside which each rank writes its own. Its name is that of
        the room in which ranks of several hosts meet."""
        if self.ranks is None:
            return ()
        room = ("--room", log.stem) if self.hosts else ()
        return ("--timeout", str(request.timeout_s), "--log", str(log), *self.hosts, *room)

    def patience(self, request: Request) -> int:
        """Seconds that a process may take; a leader has the time to say first which rank hangs."""
        return request.timeout_s + (0 if self.ranks is None else LEADER_GRACE_S)


def worker(mode: str, *words: str) -> tuple[str, ...]:
    """The argument list of a worker; -P keeps the current folder off its import path."""
    return (sys.executable, "-P", "-m", "moeprof.worker", mode, *words)


def serve(target: Target, *more: str) -> tuple[str, ...]:
    """The worker that proves and times a variant on request."""
    return worker("serve", *target.words, *more)


def _measured(mode: str, target: Target, profiler: str, result: Path, *more: str) -> tuple[str, ...]:
    params = json.dumps(target.params, sort_keys=True)
    return worker(mode, *target.words, PARAMS, params, "--profiler", profiler, "--result", str(result), *more)


def nsys_trace(
    request: Request, tool: Tool, target: Target, result: Path, report: Path, more: tuple[str, ...]
) -> Command:
    """A variant under nsys: only the measured iterations, CUDA graphs node by node. Its ranks are children of its process, so
    that all are in one report."""
    child = _measured("trace", target, "nsys", result, "--iterations", str(request.iterations), *more)
    return Command((*_nsys(tool, report), *RANGES, *child), report, target.patience(request))


def head(request: Request, device: str, team: Team, log: Path, words: Iterable[str]) -> tuple[str, ...]:
    """The first rank of a further host, which starts the others there; it ends with this process."""
    assert request.workload is not None
    about = ("--workload", request.workload, "--device", device, "--layout", team.text)
    return worker("follow", *about, "--leader", str(os.getpid()), "--log", str(log), *words)


def nsys_head(request: Request, tool: Tool, child: tuple[str, ...], report: Path) -> Command:
    """The same under nsys, as on rank 0's host."""
    return Command((*_nsys(tool, report), *RANGES, *child), report, request.timeout_s + LEADER_GRACE_S)


def nsys_program(request: Request, tool: Tool, report: Path) -> Command:
    """The user's own program under nsys, from its start to its end."""
    return Command((*_nsys(tool, report), *request.program), report, request.timeout_s)


def _nsys(tool: Tool, report: Path) -> tuple[str, ...]:
    stem = str(report.with_suffix(""))
    return (
        str(tool.path), "profile", "--trace=cuda,nvtx", "--sample=none", "--cpuctxsw=none", "--cuda-graph-trace=node",
        "--cuda-event-trace=false", "--force-overwrite=true", "-o", stem,
    )  # fmt: skip


def nsys_export(request: Request, tool: Tool, report: Path, export: Path) -> Command:
    """The SQLite export of a report."""
    return Command(export_command(tool, report, export), export, request.timeout_s)


def torch_trace(request: Request, target: Target, result: Path, out: Path, more: tuple[str, ...]) -> Command:
    """A variant under torch.profiler, where nsys is missing; each rank leaves a trace of its own."""
    words = ("--iterations", str(request.iterations), "--out", str(out), *more)
    return Command(_measured("trace", target, "torch", result, *words), out, target.patience(request))


def torch_program(request: Request, result: Path, out: Path) -> Command:
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
    return Command(worker("program", "--out", str(out), "--result", str(result), "--", *words), out, request.timeout_s)


def ncu_count(request: Request, tool: Tool, target: Target, result: Path, out: Path, gate: tuple[str, ...]) -> Command:
    """A variant's kernels under ncu: the first ``ncu_kernels`` of one iteration inside our range, clocks untouched."""
    child = _measured("count", target, "ncu", result, *gate)
    include = ("--nvtx", "--nvtx-include", f"{nvtx.DOMAIN}@{nvtx.MEASURE}/")
    return Command((*_ncu(request, tool, out), *include, *child), out, request.timeout_s)


def ncu_program(request: Request, tool: Tool, out: Path) -> Command:
    """The first kernels of the user's own program under ncu."""
    return Command((*_ncu(request, tool, out), *request.program), out, request.timeout_s)


def _ncu(request: Request, tool: Tool, out: Path) -> tuple[str, ...]:
    return (
        str(tool.path), "--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none", "--graph-profiling", "node",
        "--target-processes", "all", "--launch-count", str(request.ncu_kernels or DEFAULT_COUNTED), "--metrics", ",".join([*COUNTED, *request.roofline, *(WARP_STATE_METRICS if request.stalls else ())]),
        "--log-file", str(out),
    )  # fmt: skip


def without_roofline(request: Request, command: Command) -> Command:
    """The same counting without the counters that only the roofline needs."""
    more = "," + ",".join(request.roofline)
    return replace(command, argv=tuple(word.replace(more, "") for word in command.argv))


def held(command: Command, file: Path) -> Command | None:
    """The same worker, which imports and then waits until ``file`` has its parameters; None of a command that takes none."""
    if PARAMS not in command.argv:
        return None
    at = command.argv.index(PARAMS)
    return replace(command, argv=(*command.argv[:at], "--hold", str(file), *command.argv[at + 2 :]))


def params_of(command: Command) -> str:
    """The parameters of a worker's command, as JSON."""
    return command.argv[command.argv.index(PARAMS) + 1]


def shown(argv: tuple[str, ...], *folders: Path) -> tuple[str, ...]:
    """A command without this machine's paths: tools by their name, files of these folders by theirs."""
    short = list(argv)
    for folder in folders:
        short = [word.replace(f"{folder}{os.sep}", "") for word in short]
    return tuple(Path(word).name if word in (argv[0], sys.executable) else word for word in short)
