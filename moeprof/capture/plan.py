"""What a request means on this machine. It is decided once; whatever runs later takes the plan and asks the machine nothing."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from moeprof.capture import ranks
from moeprof.capture.program import interpreter
from moeprof.capture.program.interpreter import Interpreter
from moeprof.capture.program.name import program_name
from moeprof.capture.program.window import Window, check
from moeprof.capture.request import Request
from moeprof.errors import ToolError, UsageError
from moeprof.machine import ncu_query, nvml, tools
from moeprof.machine.launcher import Team
from moeprof.machine.tools import Tool
from moeprof.notes import Note, note
from moeprof.worker.spec import Device, Params, Target
from moeprof.workload.find import load
from moeprof.workload.model import DEFAULT_COUNTED, Variant, Workload

TOOLS = ("nsys", "ncu", "torch", "none")
PROGRAM = "program"
PACKAGES = ("torch", "triton", "nvtx", "pandas", "plotly", "numpy")  # whose versions a capture records
NCU_RANKS = "ncu replays the kernels of one rank at a time, and a collective would wait for the others for ever"


@dataclass(frozen=True)
class Counting:
    """What ncu counts of a process: its first ``kernels``, the counters of FLOPs and peaks that it knows on this chip
    (``roofline``), and why warps wait (``warp_states``)."""

    ncu: Tool
    kernels: int
    roofline: tuple[str, ...]
    warp_states: bool


@dataclass(frozen=True)
class Plan:
    """A capture on this machine.

    Attributes:
        workload, variants: None and empty for a program.
        preset, params: as requested; the worker calibrates them later.
        nsys: traces; None: torch.profiler does if ``torch``, else nothing.
        counting: None: nothing is counted.
        team: the ranks by host; None for one process without ranks.
        interpreter: the Python of a program; None where it has none.
        host: the number of this host among them.
        notes: what the user should know of these choices.
    """

    request: Request
    device: Device
    notes: tuple[Note, ...]
    workload: Workload | None = None
    variants: tuple[Variant, ...] = ()
    preset: str = ""
    params: Params = field(default_factory=dict)
    nsys: Tool | None = None
    torch: bool = False
    counting: Counting | None = None
    team: Team | None = None
    interpreter: Interpreter | None = None
    host: int = 0

    @property
    def name(self) -> str:
        """The capture's name: the workload's, or the program's."""
        if self.workload is not None:
            return self.workload.name
        if self.request.commands is not None:
            return self.request.commands.name
        return program_name(self.request.program)

    @property
    def tracer(self) -> str:
        """nsys, torch or none."""
        return "nsys" if self.nsys is not None else "torch" if self.torch else "none"

    @property
    def local_ranks(self) -> int:
        """Processes of one variant on this host."""
        return 1 if self.team is None else self.team.layout[self.host]

    @property
    def targets(self) -> dict[str, Target]:
        """The variants to run, by name; empty for a program."""
        if self.request.workload is None:
            return {}
        return {
            v.name: Target(self.request.workload, v.name, self.device, self.params, self.team) for v in self.variants
        }


def make_plan(request: Request, environment: Mapping[str, str]) -> Plan:
    """The plan of a request. ``environment`` has the variables of a launcher, if one started this process.

    Raises:
        UsageError: options that exclude each other; an unknown workload, variant or parameter; ranks that do not fit.
        ToolError: a tool that was asked for, a GPU, or torch is missing.
    """
    device = _device(request)
    chosen = _tools(request, device)
    workload = None if request.workload is None else load(request.workload)
    count = ranks.count(request, workload, device, environment)
    chosen = _for_ranks(request, chosen, count)
    counting, metric_notes = _counting(request, workload, chosen.ncu)
    plan = Plan(request, device, chosen.notes + metric_notes, nsys=chosen.nsys, torch=chosen.torch, counting=counting)
    if workload is None:
        program = request.program if request.commands is None else request.commands.baseline.argv
        return replace(plan, interpreter=interpreter.of_program(program, PACKAGES))
    if device == "cpu" and workload.gpu_technique:
        plan = replace(plan, notes=(*plan.notes, note("functional-check", what=workload.name)))
    preset = request.preset or ("default" if device == "cuda" else "tiny")
    names = request.variants or tuple(variant.name for variant in workload.variants)
    return replace(
        plan, workload=workload, variants=tuple(workload.variant(name) for name in names), preset=preset,
        params=workload.params(preset, request.overrides),
        team=None if count is None else ranks.team(request, count, environment), host=ranks.host(request, environment),
    )  # fmt: skip


@dataclass(frozen=True)
class _Tools:
    """The tools of a capture, as in ``Plan``, and the notes on their choice."""

    notes: tuple[Note, ...]
    nsys: Tool | None = None
    torch: bool = False
    ncu: Tool | None = None


def _device(request: Request) -> Device:
    """The device; checks first that the request fits together."""
    if request.rounds and request.budget_s:
        raise UsageError("--rounds and --budget exclude each other", "a number of rounds is run whatever time it takes")
    check(request.window)
    if request.workload is not None and (request.window != Window() or request.nsys_args or request.fork_before_exec):
        raise UsageError(
            "--start-after, --start-on, --steps, --duration, --nsys-args and --trace-fork-before-exec are for programs",
            "of a workload --iterations N are traced; a program: moeprof capture -- PROGRAM ARGS",
        )
    wanted = request.tools or ()
    unknown = [tool for tool in wanted if tool not in TOOLS]
    if unknown or ("none" in wanted and len(wanted) > 1) or {"nsys", "torch"} <= set(wanted):
        raise UsageError(f"--tools {','.join(wanted)} does not fit", "give nsys or torch, with or without ncu; or none")
    has_gpu = bool(nvml.gpus())
    if request.device == "cuda" and not has_gpu:
        raise ToolError("there is no CUDA GPU here", "give --device cpu, or see: moeprof doctor")
    if importlib.util.find_spec("torch") is None and request.workload is not None:
        raise ToolError(
            "torch is not installed",
            "pip install 'moeprof[gpu]'; recorded captures need no torch: moeprof report --sample kv_transfer",
        )
    return request.device or ("cuda" if has_gpu else "cpu")


def _tools(request: Request, device: Device) -> _Tools:
    if request.tools == ("none",):
        return _Tools((note("timing-only"),))
    if device == "cpu":
        for tool in ("nsys", "ncu"):
            if tool in (request.tools or ()):
                raise ToolError(
                    f"{tool} needs a CUDA GPU, and this capture runs on the CPU", "give --tools torch or none"
                )
        what = request.workload or ("the program" if request.commands is None else "the commands")
        return _Tools((note("no-gpu", what=what),), torch=True)
    nsys, torch, trace_notes = _tracer(request)
    ncu, count_notes = _counter(request)
    return _Tools(trace_notes + count_notes, nsys, torch, ncu)


def _for_ranks(request: Request, chosen: _Tools, count: int | None) -> _Tools:
    """The tools that serve so many ranks: ncu counts one process alone."""
    if count is None or count == 1 or chosen.ncu is None:
        return chosen
    if "ncu" in (request.tools or ()):
        raise UsageError(f"ncu cannot count {count} ranks: {NCU_RANKS}", "drop ncu from --tools, or give --nproc 1")
    return replace(chosen, ncu=None, notes=(*chosen.notes, note("no-ncu", why=NCU_RANKS)))


def _tracer(request: Request) -> tuple[Tool | None, bool, tuple[Note, ...]]:
    """nsys if it traces, whether torch.profiler does, and the notes on that choice."""
    wanted = request.tools
    if wanted is not None and "torch" in wanted:
        return None, True, ()
    if wanted is not None and "nsys" not in wanted:
        return None, False, ()
    nsys = tools.find("nsys", request.nsys)
    if nsys is not None:
        return nsys, False, ()
    if wanted is not None:
        raise ToolError(
            "nsys was asked for and is not here",
            "install Nsight Systems, give --nsys PATH, or drop --tools; see: moeprof doctor",
        )
    return None, True, (note("no-nsys", why="not given, not on PATH, not in the usual folders"),)


def _counter(request: Request) -> tuple[Tool | None, tuple[Note, ...]]:
    """ncu if it counts, and the notes on that choice."""
    wanted = request.tools
    if (wanted is not None and "ncu" not in wanted) or (wanted is None and request.workload is None):
        return None, ()
    ncu = tools.find("ncu", request.ncu)
    if ncu is not None:
        return ncu, ()
    if wanted is not None:
        raise ToolError(
            "ncu was asked for and is not here",
            "install Nsight Compute, give --ncu PATH, or drop --tools; see: moeprof doctor",
        )
    return None, (note("no-ncu", why="ncu was not found"),)


def _counting(
    request: Request, workload: Workload | None, ncu: Tool | None
) -> tuple[Counting | None, tuple[Note, ...]]:
    """What ncu counts: kernels as the user says, else as the workload says."""
    if ncu is None:
        return None, ()
    roofline, notes = ncu_query.roofline_metrics(ncu)
    default = DEFAULT_COUNTED if workload is None else workload.counted
    warp_states = workload is not None and workload.stalls
    return Counting(ncu, request.ncu_kernels or default, roofline, warp_states), notes
