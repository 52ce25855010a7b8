"""The profiled processes of a plan: of each variant, or of the user's program, one that traces and one that counts. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moeprof.capture import commands
from moeprof.capture.commands import Files, Launches, ToolRun
from moeprof.capture.plan import PROGRAM, Plan
from moeprof.storage.capture_folder import Store
from moeprof.worker.spec import Target
from moeprof.worker.start_barrier import StartBarrier

ToolName = Literal["nsys", "torch", "ncu"]


@dataclass(frozen=True)
class Job:
    """One profiled process. ``name`` is the variant or "program"; ``gate`` is None for a program, which waits for nobody."""

    name: str
    tool: ToolName
    run: ToolRun
    gate: StartBarrier | None
    result: Path


def profiling_jobs(plan: Plan, store: Store, targets: Iterable[Target]) -> list[Job]:
    """All that trace, then all that count, of these variants."""
    chosen = list(targets)
    traces = [_trace(plan, store, target) for target in chosen] if plan.tracer != "none" else []
    return traces + ([_count(plan, store, target) for target in chosen] if plan.counting is not None else [])


def trace_of_program(plan: Plan, store: Store) -> Job:
    """The trace of the user's program."""
    tool: ToolName = "torch" if plan.nsys is None else "nsys"
    files = _files(store, None, tool, "-kineto.json" if plan.nsys is None else ".nsys-rep", "trace")
    return _job(tool, commands.trace_program(plan, files), None, files)


def count_of_program(plan: Plan, store: Store, launches: Launches | None) -> Job:
    """The counters of some launches of the user's program; None: of its first launches."""
    files = _files(store, None, "ncu", ".csv", "count")
    return _job("ncu", commands.count_program(plan, files, launches), None, files)


def _trace(plan: Plan, store: Store, target: Target) -> Job:
    tool: ToolName = "torch" if plan.nsys is None else "nsys"
    files = _files(store, target, tool, "-kineto.json" if plan.nsys is None else ".nsys-rep", "trace")
    return _job(tool, commands.trace(plan, target, files), target, files)


def _count(plan: Plan, store: Store, target: Target) -> Job:
    files = _files(store, target, "ncu", ".csv", "count")
    return _job("ncu", commands.count(plan, target, files), target, files)


def _files(store: Store, target: Target | None, tool: ToolName, out: str, kind: str) -> Files:
    name, scratch = _name(target), store.scratch
    return Files(
        scratch / f"{name}{out}",
        scratch / f"{name}-{kind}.json",
        scratch / f"{name}-{kind}.gate",
        store.log(name, tool),
    )


def _job(tool: ToolName, run: ToolRun, target: Target | None, files: Files) -> Job:
    gate = None if target is None else StartBarrier(files.gate)
    return Job(_name(target), tool, run, gate, files.result)


def _name(target: Target | None) -> str:
    return PROGRAM if target is None else target.variant
