"""Any two traces: what a unit of the same work costs in each, where the difference went, and which kernels changed.

The unit is an instance of an NVTX range that both traces have. Without one it is the work itself: the kernels that both ran
show how many times the work of A was done in B. The lengths of two traces mean nothing: both may be one-second windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from moeprof.analysis.analyze import analyze
from moeprof.analysis.device import DeviceView
from moeprof.analysis.ledger import idle, ledger
from moeprof.analysis.model import Analysis, Finding, Idle, Ledger
from moeprof.analysis.projection import projected
from moeprof.analysis.waterfall import Bar, bars, parts
from moeprof.compare import kernels
from moeprof.compare.kernels import Count, Kernel
from moeprof.errors import UsageError
from moeprof.findings.steady_state import MAJORITY, loops
from moeprof.loaded.analysed_trace import AnalysedTrace
from moeprof.notes import Note, note
from moeprof.trace import Trace

COVERS = 0.25  # of all launches that a range must contain to represent the trace's work
FEWER_WAITS = 0.3  # of the waits that must be gone before they may have become copies
MORE_COPIES = 0.2  # of the waits that are gone: as many copies must be new
STALLED = ("idle: launch", "idle: sync", "idle: host", "idle: dependency", "idle: edge", "exposed copy")


@dataclass(frozen=True)
class MovedWaits:
    """Per unit: ``waits`` of the host fewer, tiny ``copies`` more, and how idle and exposed copy time changed."""

    waits: float
    copies: float
    bytes_per_copy: float
    stalled_delta_ns: int


@dataclass(frozen=True)
class DeviceComparison:
    """One device, ``device`` in the first and ``device_after`` in the second trace: ``units`` of work in each trace, a unit's time in each, its waterfall (which sums exactly), its kernels."""

    device: int
    device_after: int
    unit: str
    units_before: float
    units_after: float
    before_ns: int
    after_ns: int
    waterfall: tuple[Bar, ...]
    kernels: tuple[Kernel, ...]
    counts: tuple[Count, ...]

    @property
    def moved_waits(self) -> MovedWaits | None:
        """Waits of the host that became tiny copies, where there are any."""
        count = {c.what: c for c in self.counts}
        waits, tiny, size = count["waits of the host"], count["tiny copies"], count["bytes in tiny copies"]
        fewer, more = waits.before - waits.after, tiny.after - tiny.before
        if fewer < max(1.0, FEWER_WAITS * waits.before) or more < MORE_COPIES * fewer:
            return None
        stalled_delta_ns = sum(b.delta_ns for b in self.waterfall if b.label in STALLED)
        return MovedWaits(fewer, more, size.after / max(tiny.after, 1), stalled_delta_ns)


@dataclass(frozen=True)
class TraceComparison:
    """Two traces, device by device; ``unlike`` is shown before any number."""

    before: str
    after: str
    unlike: tuple[Note, ...]  # before any number
    devices: tuple[DeviceComparison, ...]
    gone: tuple[Finding, ...]
    new: tuple[Finding, ...]
    kept: tuple[Finding, ...]
    notes: tuple[Note, ...]
    schema_version: int = 1


def compare(before: AnalysedTrace, after: AnalysedTrace, range_name: str | None = None) -> TraceComparison:
    """Device by device, in the order of their indices.

    Raises:
        UsageError: a trace has no work on any device, or not the range that was asked for.
    """
    for side in (before, after):
        if not side.views:
            raise UsageError(f"{side.name} holds no GPU work", "give traces of runs that used the GPU")
    pairs = list(zip(before.views, after.views, strict=False))
    devices = tuple(_device(before.trace, a, after.trace, b, range_name) for a, b in pairs)
    findings = [[f for merged in side.analysis.findings for f in merged.all] for side in (before, after)]
    ids = [{f.id for f in of_side} for of_side in findings]
    extra = () if len(before.views) == len(after.views) else (
        note("unlike", what="number of GPUs", before=str(len(before.views)), after=str(len(after.views))),
    )  # fmt: skip
    return TraceComparison(
        before.name, after.name, extra + _unlike(before.trace, after.trace), devices,
        gone=tuple(f for f in findings[0] if f.id not in ids[1]),
        new=tuple(f for f in findings[1] if f.id not in ids[0]),
        kept=tuple(f for f in findings[1] if f.id in ids[0]),
        notes=_notes(before.analysis, after.analysis),
    )  # fmt: skip


def _notes(before: Analysis, after: Analysis) -> tuple[Note, ...]:
    noted = [note("one-run")]
    noted += [n for n in (*before.notes, *after.notes) if n not in noted]
    return tuple(noted)


def _unlike(before: Trace, after: Trace) -> tuple[Note, ...]:
    def facts(trace: Trace) -> dict[str, str]:
        gpus = sorted({d.name for d in trace.devices if d.name})
        return {"GPU": ", ".join(gpus) or "not recorded", "profiler": trace.producer or trace.kind}

    facts_before, facts_after = facts(before), facts(after)
    return tuple(
        note("unlike", what=key, before=facts_before[key], after=facts_after[key])
        for key in facts_before
        if facts_before[key] != facts_after[key]
    )


@dataclass(frozen=True)
class Part:
    """The compared part of one device: its intervals, its ledger and idle split, its operations and host calls."""

    ledger: Ledger
    idle: Idle
    ops: pd.DataFrame
    calls: pd.DataFrame
    instances: int | None = None


def _device(
    trace_before: Trace, view_before: DeviceView, trace_after: Trace, view_after: DeviceView, range_name: str | None
) -> DeviceComparison:
    name = range_name or _common(trace_before, view_before, trace_after, view_after)
    before, after = _part(trace_before, view_before, name), _part(trace_after, view_after, name)
    if before.instances and after.instances:
        unit, units = str(name), (float(before.instances), float(after.instances))
    else:
        unit, units = "the work of the first trace", (1.0, kernels.work_ratio(before.ops, after.ops))
    first, second = (
        shared_out(parts(part.ledger, part.idle), n) for part, n in ((before, units[0]), (after, units[1]))
    )
    return DeviceComparison(
        view_before.index, view_after.index, unit, *units, sum(first.values()), sum(second.values()), bars(first, second),
        kernels.kernels(before.ops, after.ops, units), kernels.counts(before, after, units),
    )  # fmt: skip


def _common(trace_before: Trace, view_before: DeviceView, trace_after: Trace, view_after: DeviceView) -> str | None:
    """The range of both traces that contains most of the launches around it; of several, the one with the most work."""
    first, second = (
        loops(projected(trace_before, view_before.index), view_before),
        loops(projected(trace_after, view_after.index), view_after),
    )
    both = first.add_suffix("_a").join(second.add_suffix("_b"), how="inner")
    both = both[
        (both[["share_a", "share_b"]].min(axis=1) >= MAJORITY) & (both[["of_all_a", "of_all_b"]].min(axis=1) >= COVERS)
    ]
    if not len(both):
        return None
    best = both.assign(ops=both["ops_a"] + both["ops_b"]).sort_values(
        ["ops", "n_a"], ascending=[False, True], kind="stable"
    )
    return str(best.index[0][1])


def _part(trace: Trace, view: DeviceView, name: str | None) -> Part:
    """The part of the device's time that belongs to a range, or the whole time.

    Instances of a range that contains most of the launches around it are taken with the gaps between them: they tile.
    """
    calls = view.calls[view.calls["pid"].isin(view.ops["pid"].unique())]
    if name is None:
        start, end = int(view.starts[0]), int(view.ends.max())
        return Part(ledger(view, start, end), idle(view, start, end), view.ops, calls)
    table = loops(projected(trace, view.index), view)
    table = table[[str(n) == name for _, n in table.index]]
    if not len(table):
        raise UsageError(
            f"{trace.path} has no range {name!r} with GPU work on device {view.index}", "see moeprof analyze"
        )
    best = table.sort_values("ops").iloc[-1:]
    start, end, begin, finish = (int(best[c].iloc[0]) for c in ("first_ns", "last_ns", "begin_ns", "finish_ns"))
    of_host = calls[((calls["start_ns"] >= begin) & (calls["end_ns"] <= finish)).to_numpy()]
    if best["share"].iloc[0] >= MAJORITY:
        inside = view.starting(start, end)
        return Part(
            ledger(view, start, end), idle(view, start, end), view.ops.iloc[inside], of_host, int(best["n"].iloc[0])
        )
    return _instances(trace, view, name, of_host)


def _instances(trace: Trace, view: DeviceView, name: str, calls: pd.DataFrame) -> Part:
    windows = analyze(trace, name, view.index, (view,)).windows
    inside = np.zeros(len(view.ops), dtype=bool)
    for w in windows:
        inside[view.starting(w.start_ns, w.end_ns)] = True
    owners, waits = Ledger(**_sums([w.ledger for w in windows])), Idle(**_sums([w.idle for w in windows]))
    return Part(owners, waits, view.ops[inside], calls, len(windows))


def _sums(ledgers: Sequence[Ledger] | Sequence[Idle]) -> dict[str, int]:
    return {f.name: sum(getattr(x, f.name) for x in ledgers) for f in fields(ledgers[0])}


def shared_out(values: Mapping[str, int], units: float) -> dict[str, int]:
    """Each value over ``units``, in whole nanoseconds that sum to the rounded sum over ``units`` (largest remainders)."""
    exact = {key: value / units for key, value in values.items()}
    whole = {key: int(np.floor(x)) for key, x in exact.items()}
    missing = round(sum(values.values()) / units) - sum(whole.values())
    order = sorted(exact, key=lambda key: (whole[key] - exact[key], key))
    for key in order[: max(missing, 0)]:
        whole[key] += 1
    return whole
