"""What a request means on this machine: the device, and which tools trace and count."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from moeprof.capture import commands
from moeprof.capture.commands import Request
from moeprof.errors import ToolError, UsageError
from moeprof.machine import ncu_query, tools
from moeprof.machine.tools import Tool
from moeprof.notes import Note, note
from moeprof.worker.spec import Device


@dataclass(frozen=True)
class Setup:
    """What a request means on this machine: traces by ``nsys``, or by torch.profiler where ``torch``, or none; counters by
    ``ncu`` or none."""

    device: Device
    notes: tuple[Note, ...]
    nsys: Tool | None = None
    torch: bool = False
    ncu: Tool | None = None
    roofline: tuple[str, ...] = ()  # counters of FLOPs and peaks that this ncu knows on this chip

    @property
    def traces(self) -> bool:
        """Whether variants are traced at all."""
        return self.torch or self.nsys is not None

    @property
    def tracer(self) -> str:
        """What traces: nsys, torch or none."""
        return "nsys" if self.nsys is not None else "torch" if self.torch else "none"


def setup(request: Request) -> Setup:
    """Choose device and tools.

    Raises:
        UsageError: the tools named do not fit together.
        ToolError: a tool that was asked for, the GPU or torch is missing.
    """
    if request.rounds and request.budget_s:
        raise UsageError("--rounds and --budget exclude each other", "a number of rounds is run whatever time it takes")
    wanted = request.tools
    unknown = [t for t in wanted or () if t not in commands.KNOWN_TOOLS]
    if unknown or (wanted and "none" in wanted and len(wanted) > 1) or (wanted and {"nsys", "torch"} <= set(wanted)):
        raise UsageError(
            f"--tools {','.join(wanted or ())} does not fit", "give nsys or torch, with or without ncu; or none alone"
        )
    has_gpu = bool(tools.gpus())
    if request.device == "cuda" and not has_gpu:
        raise ToolError("there is no CUDA GPU here", "give --device cpu, or see: moeprof doctor")
    device: Device = request.device or ("cuda" if has_gpu else "cpu")
    if importlib.util.find_spec("torch") is None and request.workload is not None:
        raise ToolError(
            "torch is not installed",
            "pip install 'moeprof[gpu]'; recorded captures need no torch: moeprof report --sample kv_transfer",
        )
    if wanted == ("none",):
        return Setup(device, (note("timing-only"),))
    if device == "cpu":
        return _cpu_setup(request)
    nsys, torch, trace_notes = _tracer(request)
    ncu, count_notes = _counter(request)
    metrics, metric_notes = ((), ()) if ncu is None else ncu_query.roofline_metrics(ncu)
    return Setup(device, trace_notes + count_notes + metric_notes, nsys, torch, ncu, metrics)


def _cpu_setup(request: Request) -> Setup:
    for tool in ("nsys", "ncu"):
        if tool in (request.tools or ()):
            raise ToolError(f"{tool} needs a CUDA GPU, and this capture runs on the CPU", "give --tools torch or none")
    return Setup("cpu", (note("no-gpu", what=request.workload or "the program"),), torch=True)


def _tracer(request: Request) -> tuple[Tool | None, bool, tuple[Note, ...]]:
    """nsys if it traces, whether torch.profiler does, and what is to be said of it."""
    wanted = request.tools
    if wanted is not None and "torch" in wanted:
        return None, True, ()
    if wanted is not None and "nsys" not in wanted:
        return None, False, ()
    found = tools.find("nsys", request.nsys)
    if found is not None:
        return found, False, ()
    if wanted is not None:
        raise ToolError(
            "nsys was asked for and is not here",
            "install Nsight Systems, give --nsys PATH, or drop --tools; see: moeprof doctor",
        )
    return None, True, (note("no-nsys", why="not given, not on PATH, not in the usual folders"),)


def _counter(request: Request) -> tuple[Tool | None, tuple[Note, ...]]:
    wanted = request.tools
    if (wanted is not None and "ncu" not in wanted) or (wanted is None and request.program):
        return None, ()
    found = tools.find("ncu", request.ncu)
    if found is not None:
        return found, ()
    if wanted is not None:
        raise ToolError(
            "ncu was asked for and is not here",
            "install Nsight Compute, give --ncu PATH, or drop --tools; see: moeprof doctor",
        )
    return None, (note("no-ncu", why="ncu was not found"),)
