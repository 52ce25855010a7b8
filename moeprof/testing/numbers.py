"""A trace -> what was captured: the part inside a range, on the device that has most of the work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from moeprof.analysis.analyze import Cut, kernels, window
from moeprof.analysis.call_sites import Site, sites
from moeprof.analysis.device import DeviceView, main_device, views
from moeprof.errors import UsageError
from moeprof.loaded import pytest_run
from moeprof.loaded.pytest_run import Captured
from moeprof.testing.errors import ProbeError
from moeprof.trace import Trace, read
from moeprof.trace.kineto.reader import operators
from moeprof.trace.tables import OPS, table
from moeprof.worker.nvtx import DOMAIN, MEASURE

CPU_ONLY = "cpu-operators"  # the note of a trace in which operators stand in for kernels


@dataclass(frozen=True)
class Part:
    """Which part of a trace file was captured: the instances of a range, or all of it (``range`` None)."""

    path: Path
    range: str | None = MEASURE
    domain: str | None = DOMAIN


@dataclass(frozen=True)
class Chosen:
    """The part of a trace: its operations, the host calls made inside it, and how many instances of the range it is."""

    trace: Trace
    calls: pd.DataFrame
    instances: int


def chosen(trace: Trace, part: Part) -> Chosen:
    """The operations whose launch calls were made inside the range, by any thread of its process.

    Operators of a CPU trace, and operations with no known call, count where they start inside it.

    Raises:
        UsageError: the trace has no such range.
    """
    if part.range is None:
        return Chosen(trace, trace.calls, 1)
    ranges = trace.ranges[trace.ranges["name"] == part.range]
    ranges = ranges if part.domain is None else ranges[ranges["domain"] == part.domain]
    if not len(ranges):
        known = ", ".join(sorted(set(trace.ranges["name"].astype(str)))[:8]) or "none"
        raise UsageError(f"{part.path.name} has no range {part.range!r}", f"its ranges: {known}")
    spans = ranges[["start_ns", "end_ns"]].to_numpy()
    calls_inside = (
        _within(trace.calls["start_ns"].to_numpy(), spans) & trace.calls["pid"].isin(set(ranges["pid"])).to_numpy()
    )
    ops, call = trace.ops, trace.ops["call"].to_numpy()
    launched = calls_inside[call] & (call >= 0) if len(calls_inside) else np.zeros(len(ops), dtype=bool)
    ops_inside = launched | ((call < 0) & _within(ops["start_ns"].to_numpy(), spans))
    return Chosen(replace(trace, ops=ops[ops_inside].reset_index(drop=True)), trace.calls[calls_inside], len(ranges))


def _within(times: np.ndarray, spans: np.ndarray) -> np.ndarray:
    inside = np.zeros(len(times), dtype=bool)
    for start, end in spans:
        inside |= (times >= start) & (times <= end)
    return inside


def captured(part: Part, number: int, device: str, iterations: int | None) -> Captured:
    """The numbers of a part of a trace file; ``iterations`` None: as many as the range has instances."""
    trace = read(part.path)
    stands_in = any(n.id == CPU_ONLY for n in trace.notes)
    if device == "cuda" and stands_in:  # a GPU was there and nothing ran on it: operators must not stand in
        trace, stands_in = replace(trace, ops=table(OPS, {}), notes=()), False
    selection = chosen(trace, part)
    view = main_device(views(selection.trace)) or DeviceView(0, selection.trace.ops, trace.calls)
    start, end = (int(view.starts[0]), int(view.ends.max())) if len(view.ops) else (0, 0)
    seen = bool(len(view.ops) or len(selection.calls))
    return Captured(
        number=number,
        device="cpu" if stands_in else device,
        iterations=iterations or selection.instances,
        window=window(view, Cut(start, end, selection.calls, part.range)) if seen else None,
        kernels=tuple(kernels(view)) if len(view.ops) else (),
        calls_known=not stands_in and (bool(len(trace.calls)) or not len(view.ops)),
        notes=trace.notes,
    )


def refuse_empty(capture: Captured, may_be_empty: bool) -> None:
    """A block in which nothing ran would pass every upper limit: ProbeError, unless that is meant."""
    if capture.kernels or (capture.window and capture.window.span_ns):
        return
    if (pytest_run.launches(capture) or 0) > 0:
        raise ProbeError(
            "kernels were launched and none was recorded: another tool (nsys, ncu, a debugger) holds the GPU's tracing",
            "run pytest without it",
        )
    if not may_be_empty:
        what = "operator ran on the CPU" if capture.device == "cpu" else "work ran on the GPU"
        raise ProbeError(f"the block is empty: no {what} inside it", "give may_be_empty=True where that is meant")


def call_sites(part: Part, kinds: tuple[str, ...]) -> tuple[Site, ...]:
    """Where the host calls of some kinds were made: by call and by the operator of torch around it."""
    trace = read(part.path)
    calls = chosen(trace, part).calls
    around = operators(part.path) if trace.kind == "kineto" else None
    return sites(calls[calls["kind"].isin(kinds)], around)
