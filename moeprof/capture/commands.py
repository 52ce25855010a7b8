"""The processes that a plan becomes, each alone or under a profiler. Pure: the same plan gives the same commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from moeprof.capture.plan import Counting, Plan
from moeprof.capture.program import nsys_options
from moeprof.capture.program.name import python_command
from moeprof.errors import ToolError
from moeprof.machine.command import Command
from moeprof.machine.launcher import Team
from moeprof.machine.ncu_metrics import COUNTED, WARP_STATE_METRICS
from moeprof.machine.tools import Tool, export_command
from moeprof.worker import nvtx
from moeprof.worker.leader import GROUP_FACTOR
from moeprof.worker.spec import Follower, Measurement, Profiler, Target, WorkerSpec

LEADER_GRACE_S = 15
RANGES = ("--capture-range=cudaProfilerApi", "--capture-range-end=stop")
# children that are forked end by os._exit, which flushes nothing
FLUSHED = "--cuda-flush-interval=500"
TRACED = (
    "--trace=cuda,nvtx",
    "--sample=none",
    "--cpuctxsw=none",
    "--cuda-graph-trace=node",
    "--cuda-event-trace=false",
)


@dataclass(frozen=True)
class Session:
    """What a program needs of nsys beyond a variant: a session by its name, in which ``nsys start`` and ``nsys stop`` begin and end
    the recording. nsys never kills the program.

    ``later``: nothing is recorded until ``nsys start``. ``args``: the user's own options.
    """

    name: str
    later: bool = False
    fork_before_exec: bool = False
    args: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """All options of ``nsys profile`` that say what is traced: the capture's own, the user's, the session's."""
        defaults = (*TRACED, FLUSHED) if self.fork_before_exec else TRACED
        return (*nsys_options.merged(defaults, self.args), *self.words)

    @property
    def words(self) -> tuple[str, ...]:
        """Its options of ``nsys profile``."""
        later = ("--start-later=true",) if self.later else ()
        fork = ("--trace-fork-before-exec=true",) if self.fork_before_exec else ()
        return (f"--session-new={self.name}", "--kill=none", *later, *fork)


@dataclass(frozen=True)
class Nsys:
    """nsys on a process and its children. ``region``: it records only between cudaProfilerStart and cudaProfilerStop."""

    path: Path
    report: Path
    region: bool
    session: Session | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """Its command line, without that of the process."""
        session = self.session
        options = TRACED if session is None else session.options
        return (
            str(self.path), "profile", *options, "--force-overwrite=true", "-o", str(self.report.with_suffix("")),
            *(RANGES if self.region else ()),
        )  # fmt: skip


@dataclass(frozen=True)
class Launches:
    """Launches of some kernels of a program: ``names`` without template arguments, as ncu matches them; ``skip`` launches of any of
    them are passed over, then ``count`` are counted."""

    names: tuple[str, ...]
    skip: int
    count: int

    @property
    def words(self) -> tuple[str, ...]:
        """Options of ncu; the program ends once the launches are counted."""
        names = "|".join(re.escape(name) for name in self.names)
        return (
            "--kernel-name-base", "function", "--kernel-name", f"regex:^({names})$", "--launch-skip", str(self.skip),
            "--kill", "yes",
        )  # fmt: skip


@dataclass(frozen=True)
class Ncu:
    """ncu on kernels of a process, whose CSV file is ``table``: on the first ones, or on ``launches``. ``region``: only kernels in
    our measured range count. Clocks are left as they are."""

    counting: Counting
    table: Path
    region: bool
    launches: Launches | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """Its command line, without that of the process."""
        counting, launches = self.counting, self.launches
        metrics = (*COUNTED, *counting.roofline, *(WARP_STATE_METRICS if counting.warp_states else ()))
        include = ("--nvtx", "--nvtx-include", f"{nvtx.DOMAIN}@{nvtx.MEASURE}/") if self.region else ()
        return (
            str(counting.ncu.path), "--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none",
            "--graph-profiling", "node", "--target-processes", "all", *(launches.words if launches else ()),
            "--launch-count", str(launches.count if launches else counting.kernels),
            "--metrics", ",".join(metrics), "--log-file", str(self.table), *include,
        )  # fmt: skip


@dataclass(frozen=True)
class ToolRun:
    """One process, bare or under a tool: a worker by its spec, or the user's own command line.

    ``produces`` is the file that it must leave; None if nothing waits for one. ``environment`` is on top of moeprof's, ``folder`` where it
    runs (None: where moeprof runs).
    """

    tool: Nsys | Ncu | None
    process: WorkerSpec | tuple[str, ...]
    produces: Path | None
    timeout_s: int
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def command(self) -> Command:
        """The command to start."""
        words = self.process.argv if isinstance(self.process, WorkerSpec) else self.process
        words = (*(self.tool.words if self.tool else ()), *words)
        return Command(words, self.produces, self.timeout_s, self.environment, self.folder)

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


def trace(plan: Plan, target: Target, files: Files) -> ToolRun:
    """The trace of a variant: by nsys, else by torch.profiler.

    Only the measured iterations are traced, CUDA graphs node by node. Under nsys its ranks are in one report, as they are children
    of its process; torch.profiler leaves one trace per rank.
    """
    tool = None if plan.nsys is None else Nsys(plan.nsys.path, files.out, region=True)
    out = str(files.out) if tool is None else None
    profiler: Profiler = "torch" if tool is None else "nsys"
    process = _measure(plan, target, files, Measurement(profiler, str(files.result), plan.request.iterations, out))
    return ToolRun(tool, process, files.out, patience_s(plan))


def trace_program(plan: Plan, files: Files) -> ToolRun:
    """The trace of the user's program, with its children: by nsys, else by torch.profiler inside its own Python.

    Raises:
        ToolError: the program is no Python program, so that only nsys could trace it, or its Python has no moeprof or torch.
    """
    request = plan.request
    if plan.nsys is None:
        return ToolRun(None, _under_torch(plan, files), files.out, request.timeout_s)
    later = request.window.start_after_s is not None
    session = Session(f"moeprof-{os.getpid()}", later, request.fork_before_exec, request.nsys_args)
    return ToolRun(Nsys(plan.nsys.path, files.out, False, session), request.program, files.out, request.timeout_s)


def count(plan: Plan, target: Target, files: Files) -> ToolRun:
    """Counters of the first kernels of a variant's iteration."""
    assert plan.counting is not None
    process = _measure(plan, target, files, Measurement("ncu", str(files.result)))
    return ToolRun(Ncu(plan.counting, files.out, region=True), process, files.out, plan.request.timeout_s)


def count_program(plan: Plan, files: Files, launches: Launches | None) -> ToolRun:
    """Counters of some launches of the user's program, which ends once they are counted; None: of its first launches."""
    assert plan.counting is not None
    tool = Ncu(plan.counting, files.out, False, launches)
    return ToolRun(tool, plan.request.program, files.out, plan.request.timeout_s)


def _measure(plan: Plan, target: Target, files: Files, measurement: Measurement) -> WorkerSpec:
    spec = serve(plan, target, files.log)
    if spec.follower is not None:
        return replace(spec, follower=replace(spec.follower, out=measurement.out))
    return replace(spec, mode="measure", measurement=replace(measurement, gate=str(files.gate)))


def without_nsys(plan: Plan) -> str:
    """Why torch.profiler is to trace."""
    if "torch" in (plan.request.tools or ()):
        return "--tools torch"
    return "there is no CUDA GPU for nsys to trace" if plan.device == "cpu" else "nsys is missing"


def _under_torch(plan: Plan, files: Files) -> tuple[str, ...]:
    """A Python program inside ``python -m moeprof.worker run``, under its own interpreter and its options."""
    program, interpreter = plan.request.program, plan.interpreter
    python = python_command(program)
    if python is None:
        raise ToolError(
            f"{without_nsys(plan)}, and torch.profiler cannot trace {program[0]!r}",
            "give a Python program, or one that runs on a GPU, with nsys",
        )
    executable = sys.executable if interpreter is None else interpreter.executable
    for name, has in () if interpreter is None else (("torch", interpreter.torch), ("moeprof", interpreter.moeprof)):
        if not has:
            raise ToolError(
                f"{without_nsys(plan)}, and {executable} has no {name} for torch.profiler to trace with",
                f"install nsys, or: {executable} -m pip install {name}",
            )
    later = ("--later",) if plan.request.window.start_after_s is not None else ()
    worker = ("-P", "-m", "moeprof.worker", "run", "--out", str(files.out), *later, "--")
    return (executable, *python.options, *worker, *python.words)


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
