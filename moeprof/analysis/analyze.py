"""Trace -> Analysis: windows, kernels, ranges, notes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from moeprof.analysis import range_names, steps
from moeprof.analysis.causes import exposed_causes, idle_causes
from moeprof.analysis.communication import communication
from moeprof.analysis.device import DeviceView, main_device, views
from moeprof.analysis.launch import LEAST_COVERAGE, launch
from moeprof.analysis.ledger import idle, ledger
from moeprof.analysis.model import Analysis, Kernel, Range, Source, Window
from moeprof.analysis.overlap import copies
from moeprof.analysis.projection import numbers, projected, tiled
from moeprof.errors import UsageError
from moeprof.notes import Note, note
from moeprof.trace import Trace
from moeprof.worker.nvtx import DOMAIN, ITERATION

LAUNCH_COVERAGE = 0.9  # share of kernels joined to a call; below it a note reports the coverage of launch numbers


@dataclass(frozen=True)
class Cut:
    """Where to cut a window: [start, end) on the device, and the host calls that belong to it."""

    start: int
    end: int
    calls: pd.DataFrame
    range: str | None = None
    instance: int | None = None


def analyze(
    trace: Trace,
    range_name: str | None = None,
    device: int | None = None,
    prepared: tuple[DeviceView, ...] | None = None,
) -> Analysis:
    """One window a device for the whole trace, or one for each device and instance of the range ``range_name``.

    ``prepared`` are the views of the trace, where the caller has them.

    Raises:
        UsageError: there is no range of that name, or no work on that device.
    """
    devices = views(trace, device) if prepared is None else prepared
    if device is not None and not len(devices[0].ops):
        known = ", ".join(map(str, sorted(set(trace.ops["device"])))) or "none"
        raise UsageError(f"{trace.path} has no work on device {device}", f"devices with work: {known}")
    cuts = [(v, cut) for v in devices for cut in (whole(v) if range_name is None else instances(trace, v, range_name))]
    if range_name is not None and not cuts:
        raise UsageError(f"{trace.path} has no range {range_name!r} with GPU work", _known_ranges(trace, range_name))
    return assembled(trace, devices, cuts)


def iterations(trace: Trace, prepared: tuple[DeviceView, ...] | None = None) -> Analysis | None:
    """One window a measured iteration on the device that has most of the work; None where there are no iterations.

    The windows tile the measured region: each runs from its first operation to the next iteration's first one, the
    last to the end of its last operation. ``prepared`` are the views of all devices, where the caller has them.
    """
    ranges = trace.ranges
    if not ((ranges["domain"] == DOMAIN) & (ranges["name"] == ITERATION)).any() or not len(trace.ops):
        return None
    view = main_device(views(trace) if prepared is None else prepared)
    assert view is not None  # the trace has operations
    cuts = tiled_cuts(instances(trace, view, ITERATION, DOMAIN))
    return assembled(trace, (view,), [(view, cut) for cut in cuts]) if cuts else None


def assembled(trace: Trace, devices: tuple[DeviceView, ...], cuts: list[tuple[DeviceView, Cut]]) -> Analysis:
    """The analysis of these windows, with the kernels of whole devices."""
    return Analysis(
        source=Source(trace.path.name, trace.kind, trace.producer, trace.schema),
        windows=tuple(window(view, cut) for view, cut in cuts),
        kernels=tuple(row for view in devices for row in kernels(view)),
        ranges=range_sums(trace),
        notes=trace.notes + _coverage(devices),
        steps=tuple(steps.summary(view, spans) for view in devices if (spans := steps.find(trace, view)) is not None),
    )


def window(view: DeviceView, cut: Cut) -> Window:
    """All numbers of one window."""
    compute, comm, copy, _, _ = (owner.clip(cut.start, cut.end).total_ns for owner in view.owners)
    return Window(
        device=view.index,
        range=cut.range,
        instance=cut.instance,
        start_ns=cut.start,
        end_ns=cut.end,
        span_ns=cut.end - cut.start,
        ledger=ledger(view, cut.start, cut.end),
        idle=idle(view, cut.start, cut.end),
        compute_busy_ns=compute,
        comm_busy_ns=comm,
        copy_busy_ns=copy,
        copies=copies(view, cut.start, cut.end),
        launch=launch(view, view.starting(cut.start, cut.end), cut.calls),
        graph_busy_ns=view.graphs.clip(cut.start, cut.end).total_ns,
        communication=communication(view, cut.start, cut.end) if view.communicates else (),
        exposed_causes=exposed_causes(view, cut.start, cut.end),
        idle_causes=idle_causes(view, cut.start, cut.end),
    )


def whole(view: DeviceView) -> list[Cut]:
    """From the first operation's start to the last one's end; the calls of the processes that used the device."""
    if not len(view.ops):
        return []
    calls = view.calls[view.calls["pid"].isin(view.ops["pid"].unique())]
    return [Cut(int(view.starts[0]), int(view.ends.max()), calls)]


def instances(trace: Trace, view: DeviceView, name: str, domain: str | None = None) -> list[Cut]:
    """The instances of a range that have work on this device, projected, in order; payloads number them if all have one.

    ``name`` may be ``domain@name``, as tables of ranges print it, where no range has that name.
    """
    ranges, label = projected(trace, view.index), name
    if domain is None and "@" in name and not (ranges["name"] == name).any():
        domain, _, name = name.partition("@")
    instances = ranges[(ranges["name"] == name) & (ranges["gpu_ops"] > 0)]
    instances = instances if domain is None else instances[instances["domain"] == domain]
    return [
        Cut(
            int(r.first_ns), int(r.last_ns),
            view.host.within(int(r.start_ns), int(r.end_ns), int(r.pid), int(r.tid) if r.style == "pushpop" else None),
            label, number,
        )
        for number, r in zip(numbers(instances), instances.itertuples(), strict=True)
    ]  # fmt: skip


def tiled_cuts(cuts: list[Cut]) -> list[Cut]:
    """The same cuts, each to the start of the next one."""
    return [replace(cut, end=end) for cut, end in zip(cuts, tiled([(c.start, c.end) for c in cuts]), strict=True)]


def kernels(view: DeviceView) -> list[Kernel]:
    """Kernels by name, the most time first, as ``nsys stats cuda_gpu_kern_sum`` groups them."""
    rows = view.ops[view.is_kernel]
    spent = (rows["end_ns"] - rows["start_ns"]).groupby(rows["name"], sort=True, observed=True)
    table = spent.agg(["size", "sum", "median", "min", "max"]).reset_index()
    rows_of = table.itertuples(index=False, name=None)
    by_name = [Kernel(str(n), int(c), int(t), float(m), int(a), int(b), view.index) for n, c, t, m, a, b in rows_of]
    return sorted(by_name, key=lambda k: (-k.total_ns, k.name))


def range_sums(trace: Trace) -> tuple[Range, ...]:
    """Ranges by domain and name, the longest GPU span first."""
    ranges = projected(trace)
    worked = ranges["gpu_ops"] > 0
    ranges = ranges.assign(
        host_ns=ranges["end_ns"] - ranges["start_ns"],
        gpu_ns=np.where(worked, ranges["last_ns"] - ranges["first_ns"], 0),
        worked=worked,
    )
    sums = ranges.groupby(["domain", "name"], sort=True, observed=True)
    table = sums.agg(
        n=("host_ns", "size"),
        host=("host_ns", "sum"),
        gpu=("gpu_ns", "sum"),
        ops=("gpu_ops", "sum"),
        any=("worked", "any"),
    )
    rows = [
        Range(str(d), str(n), int(size), int(host), int(gpu) if seen else None, int(ops))
        for (d, n), size, host, gpu, ops, seen in table.itertuples(name=None)
    ]
    return tuple(sorted(rows, key=lambda r: (-(r.gpu_span_ns or 0), r.domain, r.name)))


def _coverage(devices: tuple[DeviceView, ...]) -> tuple[Note, ...]:
    notes = []
    for view in devices:
        rows = view.ops[view.is_kernel]
        joined = int((rows["call"] >= 0).sum())
        if len(view.calls) and joined < LAUNCH_COVERAGE * len(rows):
            notes.append(note("unjoined", device=view.index, joined=joined, total=len(rows)))
        if len(view.calls) and joined < LEAST_COVERAGE * len(rows):
            what = f"what launching costs on device {view.index}"
            notes.append(
                note("withheld", what=what, share_percent=100 * joined / len(rows), needed_percent=100 * LEAST_COVERAGE)
            )
    return tuple(notes)


def _known_ranges(trace: Trace, wanted: str) -> str:
    return range_names.hint(wanted, trace.ranges["name"].astype(str))
