"""Kernels ranked by what they cost per iteration: of a trace file, of each variant of a capture, of one device.

ncu's counters are joined by name and launch shape.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moeprof.analysis.analyze import analyze, iterations
from moeprof.analysis.device import DeviceView, main_device, views
from moeprof.analysis.intervals import Times, Union, union
from moeprof.analysis.model import Analysis
from moeprof.errors import CaptureError, UsageError, choices
from moeprof.machine.ncu_metrics import OCCUPANCY_LIMIT
from moeprof.storage import manifest
from moeprof.trace import Trace, open_trace
from moeprof.trace.ncu.counters import read_counters

SHAPE = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z")
ORDERS = ("time", "exposed", "gap", "launch")


@dataclass(frozen=True)
class KernelCost:
    """A kernel of one launch shape and what it costs one window on average; times in ns.

    ``exposed_ns``: while nothing else runs on the device. ``gap_ns``: idle time that ends with its start. ``launch_ns``: inside its
    launch calls (a graph's call is nobody's). ``counters``: ncu's, mean over the ``counted`` launches of this name and shape.
    """

    name: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    registers: int
    shared_bytes: int
    count: float
    time_ns: float
    exposed_ns: float
    gap_ns: float
    launch_ns: float
    median_ns: float
    in_graph: bool
    counted: int = 0
    counters: dict[str, float] = field(default_factory=dict)

    @property
    def limiter(self) -> str | None:
        """What allows the fewest blocks an SM, of what ncu counted; all that are equal."""
        limits = {
            metric.removeprefix(OCCUPANCY_LIMIT): blocks
            for metric, blocks in self.counters.items()
            if metric.startswith(OCCUPANCY_LIMIT)
        }
        fewest = min(limits.values(), default=None)
        return None if fewest is None else ", ".join(sorted(name for name in limits if limits[name] == fewest))


@dataclass(frozen=True)
class Ranking:
    """The kernels of some windows. ``covered``: the share of their time that kernels with counters take; None without ncu."""

    windows: int
    span_ns: float  # of one window on average
    kernels: tuple[KernelCost, ...]
    covered: float | None = None

    def to_json(self) -> dict[str, Any]:
        """One entry of ``variants`` in the document of ``moeprof kernels --json``."""
        kernels = [
            {**asdict(kernel), "grid": list(kernel.grid), "block": list(kernel.block), "limiter": kernel.limiter}
            for kernel in self.kernels
        ]
        return {"windows": self.windows, "span_ns": self.span_ns, "covered": self.covered, "kernels": kernels}


def rankings(
    path: Path, range_name: str | None, variant: str | None, device: int | None, by: str
) -> dict[str, Ranking]:
    """The ranking of one trace under its file's name, or of each variant of a capture under the variant's.

    Args:
        range_name: only what starts in the instances of this range; None: the measured iterations, else the whole trace.
        variant: only this variant of a capture.
        device: None: the device with most of the work.
        by: one of ORDERS.

    Raises:
        CaptureError: a capture without a trace.
        UsageError: there is no such variant, range or device.
    """
    if not path.is_dir():
        if variant is not None:
            raise UsageError(f"{path} is a trace: it has no variants", "leave --variant out")
        return {path.name: rank_trace(path, None, range_name, device, by)}
    records = manifest.read(path).variants
    if variant is not None and variant not in [record.name for record in records]:
        names = (record.name for record in records)
        raise UsageError(f"{path} has no variant {variant!r}", choices(variant, names, "its variants"))
    ranked = {}
    for record in records:
        trace, counters = record.part("trace"), record.part("counters")
        if trace is not None and variant in (None, record.name):
            table = None if counters is None else read_counters(path / counters.file)
            ranked[record.name] = rank_trace(path / trace.file, table, range_name, device, by)
    if not ranked:
        raise CaptureError(
            f"{path} contains no trace" + (f" of {variant}" if variant else ""),
            "capture again with --tools nsys or torch",
        )
    return ranked


def rank_trace(
    path: Path, counters: pd.DataFrame | None, range_name: str | None, device: int | None, by: str
) -> Ranking:
    """The kernels of a trace: of its measured iterations, of a range's instances, or of all of it.

    Raises:
        UsageError: there is no such range, or no work on the device.
    """
    with open_trace(path) as trace:
        prepared = views(trace, device)
        view = main_device(prepared)
        if view is None or not len(view.ops):
            raise UsageError(
                f"{path} has no GPU work" + ("" if device is None else f" on device {device}"), "see: moeprof analyze"
            )
        measured = iterations(trace, prepared if device is None else None) if range_name is None else None
        return rank(view, _spans(trace, view, range_name, measured), by, counters)


def _spans(trace: Trace, view: DeviceView, range_name: str | None, measured: Analysis | None) -> list[tuple[int, int]]:
    """The windows of the measured iterations, if they are on this device; else of the range, or the whole trace."""
    if measured is None or not any(w.device == view.index for w in measured.windows):
        measured = analyze(trace, range_name, view.index, (view,))
    return sorted((w.start_ns, w.end_ns) for w in measured.windows if w.device == view.index)


def shared_by_two(view: DeviceView) -> Union:
    """Where at least two operations run at once."""
    times = np.concatenate([view.starts, view.ends])
    change = np.concatenate([np.ones(len(view.starts), np.int64), -np.ones(len(view.ends), np.int64)])
    order = np.lexsort((change, times))  # at one time ends come first
    depth, times = np.cumsum(change[order]), times[order]
    crowded = depth[:-1] >= 2
    return union(times[:-1][crowded], times[1:][crowded])


def gaps(view: DeviceView, low: Times) -> Times:
    """Idle time that ends with each operation's start, not counted before ``low``; 0 where another one still runs."""
    reach = np.maximum.accumulate(view.ends) if len(view.ends) else view.ends
    before = np.maximum(np.concatenate([low[:1], reach[:-1]]) if len(reach) else reach, low)
    return np.maximum(view.starts - before, 0)


def rank(view: DeviceView, spans: Sequence[tuple[int, int]], by: str, counters: pd.DataFrame | None = None) -> Ranking:
    """The kernels that start in ``spans`` (disjoint, in order), the most costly by one of ORDERS first."""
    begins = np.array([s for s, _ in spans], dtype=np.int64)
    stops = np.array([e for _, e in spans], dtype=np.int64)
    window = np.searchsorted(begins, view.starts, side="right") - 1
    inside = (window >= 0) & (view.starts < stops[np.maximum(window, 0)]) & view.is_kernel
    rows = view.ops.loc[inside, ["name", *SHAPE, "registers", "static_shared_bytes", "dynamic_shared_bytes"]].copy()
    length = view.ends - view.starts
    rows["time"] = length[inside]
    rows["exposed"] = (length - shared_by_two(view).covered(view.starts, view.ends))[inside]
    rows["gap"] = gaps(view, begins[np.maximum(window, 0)])[inside]
    known = (view.call >= 0) & ~view.in_graph
    rows["launch"] = np.where(known, view.call_ends - view.call_starts, 0)[inside]
    rows["graph"] = view.in_graph[inside]
    costs = [_cost(key, group, len(spans)) for key, group in rows.groupby(["name", *SHAPE], observed=True, sort=True)]
    joined = _joined(costs, counters)
    order = sorted(joined, key=lambda k: (-getattr(k, f"{by}_ns"), k.name, k.grid))
    total = sum(k.time_ns for k in order)
    covered = None if counters is None or not total else sum(k.time_ns for k in order if k.counted) / total
    span = float((stops - begins).mean()) if len(spans) else 0.0
    return Ranking(len(spans), span, tuple(order), covered)


def _cost(key: tuple[object, ...], group: pd.DataFrame, windows: int) -> KernelCost:
    name, *shape = key
    numbers = [int(str(n)) for n in shape]
    return KernelCost(
        name=str(name), grid=(numbers[0], numbers[1], numbers[2]), block=(numbers[3], numbers[4], numbers[5]),
        registers=int(group["registers"].max()),
        shared_bytes=int((group["static_shared_bytes"].clip(lower=0) + group["dynamic_shared_bytes"].clip(lower=0)).max()),
        count=len(group) / windows, time_ns=float(group["time"].sum()) / windows, exposed_ns=float(group["exposed"].sum()) / windows,
        gap_ns=float(group["gap"].sum()) / windows, launch_ns=float(group["launch"].sum()) / windows, median_ns=float(group["time"].median()),
        in_graph=bool(group["graph"].all()),
    )  # fmt: skip


def _joined(costs: list[KernelCost], counters: pd.DataFrame | None) -> list[KernelCost]:
    """With ncu's counters of the same name and launch shape; where the two tools spell a name differently, of the same function,
    if only one kernel of that function and shape is there on either side. Position alone joins nothing."""
    if counters is None or not len(counters):
        return costs
    keys = counters.drop_duplicates("launch").set_index("launch")
    names, shapes = (
        keys["kernel"].astype(str),
        [(_numbers(g), _numbers(b)) for g, b in zip(keys["grid"], keys["block"], strict=True)],
    )
    exact: dict[tuple[object, ...], list[int]] = {}
    loose: dict[tuple[object, ...], dict[str, list[int]]] = {}
    for launch, name, shape in zip(keys.index, names, shapes, strict=True):
        exact.setdefault((name, *shape), []).append(launch)
        loose.setdefault((function(name), *shape), {}).setdefault(name, []).append(launch)
    alike: dict[tuple[object, ...], int] = {}
    for kernel in costs:
        key = (function(kernel.name), kernel.grid, kernel.block)
        alike[key] = alike.get(key, 0) + 1
    return [_with(kernel, counters, _launches(kernel, exact, loose, alike)) for kernel in costs]


def _launches(
    kernel: KernelCost,
    exact: dict[tuple[object, ...], list[int]],
    loose: dict[tuple[object, ...], dict[str, list[int]]],
    alike: dict[tuple[object, ...], int],
) -> list[int]:
    same = exact.get((kernel.name, kernel.grid, kernel.block))
    if same:
        return same
    key = (function(kernel.name), kernel.grid, kernel.block)
    spelled = loose.get(key, {})
    return next(iter(spelled.values())) if len(spelled) == 1 and alike[key] == 1 else []


def _with(kernel: KernelCost, counters: pd.DataFrame, launches: list[int]) -> KernelCost:
    if not launches:
        return kernel
    mean = counters.loc[counters["launch"].isin(launches)].groupby("metric", observed=True)["value"].mean()
    return KernelCost(
        **{**vars(kernel), "counted": len(launches), "counters": {str(m): float(v) for m, v in mean.items()}}
    )


def _numbers(text: object) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", str(text)))


def function(name: str) -> str:
    """The bare name of a kernel: without return type, template arguments and parameters."""
    depth, characters = 0, []
    for char in name.replace("(anonymous namespace)", "").replace("<unnamed>", ""):
        depth += char in "<("
        if depth == 0:
            characters.append(char)
        depth -= char in ">)"
    return "".join(characters).strip().rpartition(" ")[2].rpartition("::")[2]
