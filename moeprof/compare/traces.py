"""Any two traces: what a unit of the same work costs in each, where the difference went, and which kernels changed.

The unit must be known (``compare.units``): named by the user, a range that both traces repeat, or a whole program that both ran.
Without one both traces are shown as they are, and nothing is compared: the lengths of two traces mean nothing, since both may
be one-second windows, and counts of launches are what an optimisation changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd

from moeprof.analysis import steps
from moeprof.analysis.analyze import analyze
from moeprof.analysis.device import DeviceView
from moeprof.analysis.ledger import idle, ledger
from moeprof.analysis.model import Analysis, Finding, Idle, Ledger
from moeprof.analysis.projection import projected, tiled
from moeprof.analysis.steps import StepSpans
from moeprof.analysis.waterfall import Bar, bars, parts
from moeprof.compare import kernels
from moeprof.compare.kernels import Count, FamilyCost, Kernel
from moeprof.compare.units import (
    MOST_RESIZED,
    SameWork,
    Source,
    Wanted,
    folded,
    hint,
    pattern_of,
    same_work,
    with_range,
)
from moeprof.errors import UsageError
from moeprof.findings.steady_state import MAJORITY, loops
from moeprof.loaded.analysed_trace import AnalysedTrace
from moeprof.notes import Note, note
from moeprof.trace import Trace
from moeprof.units import short_kernel

REPEATED = 2  # instances in each trace from which a range is a unit without being named
NESTED = (
    1.02  # launches in a range over those between its first and last one: more, and its instances contain one another
)
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
class SidePart:
    """One category of the ledger in both traces: time per unit (without a unit: of the whole trace), and its share of the window."""

    label: str
    before_ns: int
    after_ns: int
    before_share: float
    after_share: float


@dataclass(frozen=True)
class DeviceComparison:
    """One device, ``device`` in the first and ``device_after`` in the second trace: ``units`` of work in each trace, a unit's time
    in each, its waterfall (which sums exactly), its kernels.

    Without a known unit ``unit`` is None, the times are those of the whole traces, and there is no waterfall.

    Args:
        source: how the unit is known; None: it is not.
        evidence: whether a unit launches the same work in both; of the best candidate where no unit is known.
        candidate: the range that both traces repeat although a unit of it is not the same work.
    """

    device: int
    device_after: int
    unit: str | None
    units_before: float
    units_after: float
    before_ns: int
    after_ns: int
    waterfall: tuple[Bar, ...]
    kernels: tuple[Kernel, ...]
    counts: tuple[Count, ...]
    source: Source | None = None
    evidence: SameWork | None = None
    candidate: str | None = None
    parts: tuple[SidePart, ...] = ()
    families: tuple[FamilyCost, ...] = ()
    typical_before_ns: float | None = None  # the median unit, where units are instances
    typical_after_ns: float | None = None

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


def compare(
    before: AnalysedTrace, after: AnalysedTrace, wanted: Wanted = Wanted(), unlike: tuple[Note, ...] = ()
) -> TraceComparison:
    """Device by device, in the order of their indices.

    Args:
        wanted: what the user says of the unit of work.
        unlike: what is known to differ beside what the traces themselves show.

    Raises:
        UsageError: a trace has no work on any device, or not the unit that was asked for.
    """
    for side in (before, after):
        if not side.views:
            raise UsageError(f"{side.name} holds no GPU work", "give traces of runs that used the GPU")
    pairs = list(zip(before.views, after.views, strict=False))
    devices = tuple(_device((before.trace, after.trace), pair, wanted) for pair in pairs)
    findings = [[f for merged in side.analysis.findings for f in merged.all] for side in (before, after)]
    ids = [{f.id for f in of_side} for of_side in findings]
    extra = () if len(before.views) == len(after.views) else (
        note("unlike", what="number of GPUs", before=str(len(before.views)), after=str(len(after.views))),
    )  # fmt: skip
    return TraceComparison(
        before.name, after.name, _differing(unlike, devices, extra + _unlike(before.trace, after.trace)), devices,
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
    spans_ns: tuple[int, ...] = ()  # of the instances, in order

    @property
    def typical_ns(self) -> float | None:
        """The median instance; None without instances."""
        return float(np.median(self.spans_ns)) if self.spans_ns else None


def _differing(
    known: tuple[Note, ...], devices: Sequence[DeviceComparison], found: tuple[Note, ...]
) -> tuple[Note, ...]:
    """What differs, each thing once; with a warning where the user's own unit launches other work."""
    whats = {n.evidence.get("what") for n in known}
    noted = [*known, *(n for n in found if n.evidence.get("what") not in whats)]
    for d in devices:
        if d.source in ("named", "counted") and d.evidence is not None and d.evidence.shapes_known:
            if d.evidence.repeated:
                noted.append(
                    note(
                        "unlike-count", device=d.device, unit=d.unit, kernels=d.evidence.scaled, ratio=d.evidence.ratio
                    )
                )
            elif d.evidence.resized > MOST_RESIZED * (d.evidence.alike + d.evidence.resized):
                total = d.evidence.alike + d.evidence.resized
                noted.append(
                    note("unlike-shapes", device=d.device, unit=d.unit, resized=d.evidence.resized, total=total)
                )
    return tuple(noted)


@dataclass(frozen=True)
class _Cut:
    """The compared parts of two traces and how many units each has."""

    name: str
    source: Source
    before: Part
    after: Part
    units: tuple[float, float]

    @property
    def evidence(self) -> SameWork:
        return same_work(self.before.ops, self.after.ops, self.units, exact=self.source == "whole")


def _device(traces: tuple[Trace, Trace], views: tuple[DeviceView, DeviceView], wanted: Wanted) -> DeviceComparison:
    cut, evidence, candidate = _chosen(traces, views, wanted)
    if cut is None:
        return _side_by_side(traces, views, evidence, candidate)
    before, after, units = cut.before, cut.after, cut.units
    first, second = (
        shared_out(parts(part.ledger, part.idle), n) for part, n in ((before, units[0]), (after, units[1]))
    )
    return DeviceComparison(
        views[0].index, views[1].index, cut.name, *units, sum(first.values()), sum(second.values()), bars(first, second),
        kernels.kernels(before.ops, after.ops, units), kernels.counts(before, after, units),
        cut.source, evidence, None, _shares(first, second), kernels.families(before.ops, after.ops, units),
        before.typical_ns, after.typical_ns,
    )  # fmt: skip


def _side_by_side(
    traces: tuple[Trace, Trace], views: tuple[DeviceView, DeviceView], evidence: SameWork | None, candidate: str | None
) -> DeviceComparison:
    """Both devices as they are: no unit, so no difference."""
    before, after = (_part(trace, view, None) for trace, view in zip(traces, views, strict=True))
    first, second = (parts(part.ledger, part.idle) for part in (before, after))
    both = {"same": "both", "changed": "both"}
    listed = kernels.kernels(before.ops, after.ops, (1.0, 1.0))
    return DeviceComparison(
        views[0].index, views[1].index, None, 1.0, 1.0, sum(first.values()), sum(second.values()), (),
        tuple(sorted((replace(k, status=both.get(k.status, k.status)) for k in listed), key=lambda k: -max(k.before_ns, k.after_ns))),
        kernels.counts(before, after, (1.0, 1.0)), None, evidence, candidate, _shares(first, second), kernels.families(before.ops, after.ops, (1.0, 1.0)),
    )  # fmt: skip


def _shares(first: Mapping[str, int], second: Mapping[str, int]) -> tuple[SidePart, ...]:
    totals = [max(sum(side.values()), 1) for side in (first, second)]
    return tuple(
        SidePart(b.label, b.before_ns, b.after_ns, b.before_ns / totals[0], b.after_ns / totals[1])
        for b in bars(first, second)
    )


def _chosen(
    traces: tuple[Trace, Trace], views: tuple[DeviceView, DeviceView], wanted: Wanted
) -> tuple[_Cut | None, SameWork | None, str | None]:
    """The unit, its evidence; without one the range that came nearest, and why it is none."""
    if wanted.name is not None:
        sides = [_named(trace, view, wanted.name) for trace, view in zip(traces, views, strict=True)]
        cut = _Cut(wanted.name, "named", sides[0], sides[1], (_count(sides[0]), _count(sides[1])))
        return cut, cut.evidence, None
    if wanted.counts is not None or wanted.whole:
        cut = _whole(
            traces, views, "unit" if wanted.counts else "the whole trace", "counted" if wanted.counts else "named"
        )
        cut = replace(cut, units=wanted.counts or cut.units)
        return cut, cut.evidence, None
    nearest: tuple[SameWork | None, str | None] = (None, None)
    for form in (traces, (folded(traces[0]), folded(traces[1]))):
        for name in _common(form, views):
            before, after = (_part(trace, view, name) for trace, view in zip(form, views, strict=True))
            cut = _Cut(name, "range", before, after, (_count(before), _count(after)))
            evidence = cut.evidence
            if evidence.established:
                return cut, evidence, None
            nearest = nearest if nearest[1] is not None else (evidence, name)
    stepped = _stepped(traces, views)
    if stepped is not None:
        evidence = stepped.evidence
        if evidence.established:
            return stepped, evidence, None
        nearest = nearest if nearest[1] is not None else (evidence, stepped.name)
    if wanted.same_command:
        cut = _whole(traces, views, "the whole program", "whole")
        if cut.evidence.established:
            return cut, cut.evidence, None
        nearest = nearest if nearest[1] is not None else (cut.evidence, cut.name)
    return None, *nearest


def _stepped(traces: tuple[Trace, Trace], views: tuple[DeviceView, DeviceView]) -> _Cut | None:
    """The steps that were found in both traces, after their warm-up; None where one of them does not show that these are steps."""
    before, after = (steps.find(trace, view) for trace, view in zip(traces, views, strict=True))
    if before is None or after is None or not (before.sure and after.sure):
        return None
    sides = [_steady(view, spans) for view, spans in zip(views, (before, after), strict=True)]
    return _Cut("step", "steps", sides[0], sides[1], (_count(sides[0]), _count(sides[1])))


def _steady(view: DeviceView, spans: StepSpans) -> Part:
    """The steps of one trace without its first, slow ones."""
    start, end = spans.steady
    inside = view.starting(start, end)
    calls = view.calls[view.calls["pid"].isin(view.ops["pid"].unique())]
    of_host = calls[((calls["start_ns"] >= start) & (calls["start_ns"] < end)).to_numpy()]
    lengths = tuple(int(x) for x in spans.lengths[spans.warm_up :])
    return Part(ledger(view, start, end), idle(view, start, end), view.ops.iloc[inside], of_host, len(lengths), lengths)


def _whole(traces: tuple[Trace, Trace], views: tuple[DeviceView, DeviceView], name: str, source: Source) -> _Cut:
    before, after = (_part(trace, view, None) for trace, view in zip(traces, views, strict=True))
    return _Cut(name, source, before, after, (1.0, 1.0))


def _count(part: Part) -> float:
    return float(part.instances or 1)


def _named(trace: Trace, view: DeviceView, name: str) -> Part:
    """The part of a trace that the user's unit covers: a range, or from the first launch of a kernel to its last one.

    Raises:
        UsageError: there is neither.
    """
    ranged = with_range(trace, name)
    if ranged is not None and _has_work(ranged, view, name):
        return _part(ranged, view, name)
    pattern = pattern_of(name)
    matching = [
        str(n) for n in view.ops["name"].cat.categories if pattern.search(str(n)) or short_kernel(str(n)) == name
    ]
    rows = np.flatnonzero(view.ops["name"].astype(str).isin(matching).to_numpy() & view.is_kernel)
    anchors = view.ops.iloc[rows]
    if not len(anchors):
        raise UsageError(
            f"{trace.path} has no range {name!r} with GPU work on device {view.index}, and no kernel of that name",
            hint(name, (trace,)),
        )
    if len(anchors) < 2:
        raise UsageError(
            f"{trace.path}: kernel {name!r} ran once on device {view.index}", "two launches mark a unit between them"
        )
    start, end = int(anchors["start_ns"].min()), int(anchors["start_ns"].max())
    calls = view.calls[view.calls["pid"].isin(view.ops["pid"].unique())]
    begun, ended = (view.call_starts[rows[i]] for i in (0, -1)) if len(view.calls) else (start, end)
    of_host = calls[((calls["start_ns"] >= begun) & (calls["start_ns"] < ended)).to_numpy()]
    inside = view.starting(start, end)
    spans = tuple(int(x) for x in np.diff(np.sort(anchors["start_ns"].to_numpy())))
    return Part(
        ledger(view, start, end), idle(view, start, end), view.ops.iloc[inside], of_host, len(anchors) - 1, spans
    )


def _has_work(trace: Trace, view: DeviceView, name: str) -> bool:
    ranges = projected(trace, view.index)
    return bool(((ranges["name"].astype(str) == name) & (ranges["gpu_ops"] > 0)).any())


def _common(traces: tuple[Trace, Trace], views: tuple[DeviceView, DeviceView]) -> list[str]:
    """The ranges that both traces repeat and that contain most of the launches around them, those with most work first."""
    first, second = (loops(projected(trace, view.index), view) for trace, view in zip(traces, views, strict=True))
    both = first.add_suffix("_a").join(second.add_suffix("_b"), how="inner")
    shares = both[["share_a", "share_b"]]
    both = both[
        (both[["n_a", "n_b"]].min(axis=1) >= REPEATED)
        & (shares.min(axis=1) >= MAJORITY)
        & (shares.max(axis=1) <= NESTED)
        & (both[["of_all_a", "of_all_b"]].min(axis=1) >= COVERS)
    ]
    best = both.assign(ops=both["ops_a"] + both["ops_b"]).sort_values(
        ["ops", "n_a"], ascending=[False, True], kind="stable"
    )
    return list(dict.fromkeys(str(name) for _, name in best.index))


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
        spans = _tiles(trace, view, name)
        return Part(
            ledger(view, start, end),
            idle(view, start, end),
            view.ops.iloc[inside],
            of_host,
            int(best["n"].iloc[0]),
            spans,
        )
    return _instances(trace, view, name, of_host)


def _instances(trace: Trace, view: DeviceView, name: str, calls: pd.DataFrame) -> Part:
    windows = analyze(trace, name, view.index, (view,)).windows
    inside = np.zeros(len(view.ops), dtype=bool)
    for w in windows:
        inside[view.starting(w.start_ns, w.end_ns)] = True
    owners, waits = Ledger(**_sums([w.ledger for w in windows])), Idle(**_sums([w.idle for w in windows]))
    return Part(owners, waits, view.ops[inside], calls, len(windows), tuple(w.span_ns for w in windows))


def _tiles(trace: Trace, view: DeviceView, name: str) -> tuple[int, ...]:
    """The spans of a range's instances, each to the start of the next one."""
    ranges = projected(trace, view.index)
    rows = ranges[(ranges["name"].astype(str) == name) & (ranges["gpu_ops"] > 0)].sort_values("first_ns", kind="stable")
    spans = [(int(a), int(b)) for a, b in rows[["first_ns", "last_ns"]].itertuples(index=False)]
    return tuple(end - start for (start, _), end in zip(spans, tiled(spans), strict=True))


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
