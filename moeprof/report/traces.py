"""The page of two traces: what a unit of the same work costs in each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from moeprof import units
from moeprof.analysis.model import Finding
from moeprof.analysis.waterfall import Bar
from moeprof.compare.kernels import Kernel
from moeprof.compare.traces import DeviceComparison, TraceComparison
from moeprof.loaded.analysed_trace import AnalysedTrace
from moeprof.report import json
from moeprof.report.figures import bars
from moeprof.report.figures.timeline_pair import side_by_side, trace_side
from moeprof.report.glossary import GLOSSARY
from moeprof.report.kernel_names import labels
from moeprof.report.narrative.traces import sentences
from moeprof.report.page import Drawing, Page, Section, Table, glossary, notes, section, unlike, verdict
from moeprof.report.trace_page import passes_shown

MAX_KERNELS = 14
# how the unit is known, after its counts
KNOWN: dict[str | None, str] = {
    "named": ", as named", "counted": ", as counted by the user", "whole": ": both programs ran the same command line",
    "range": ": both repeat it, and its launches agree",
    "steps": ": found in both by what recurs, and their launches agree", None: "",
}  # fmt: skip


def page(comparison: TraceComparison, sides: tuple[AnalysedTrace, AnalysedTrace] | None = None) -> Page:
    """The timelines of ``sides``, where they are given, then device by device what changed, then the findings of both traces."""
    sections = (
        *unlike("These two traces are unlike", (n.text for n in comparison.unlike)),
        verdict(_answer(comparison), wide=True),
        *(_timelines(sides) if sides else ()),
        *(s for device in comparison.devices for s in _device(device)),
        *_findings(comparison),
        notes(comparison.notes),
        glossary(GLOSSARY),
    )
    known = any(d.unit is not None for d in comparison.devices)
    lead = "Two traces, compared by what a unit of the same work costs. Lengths of traces are not compared."
    lead = lead if known else "Two traces side by side. No unit of work is known in both, so nothing is compared."
    return Page(f"{comparison.before} and {comparison.after}", lead, sections, data=json.two_traces(comparison))


def _answer(comparison: TraceComparison) -> Iterator[str]:
    """The sentences of each device; what is true of all of them once."""
    by_device = [(d, sentences(d)) for d in comparison.devices]
    common = [line for line in (by_device[0][1] if by_device else ()) if all(line in lines for _, lines in by_device)]
    alone = len(by_device) == 1
    for number, (device, lines) in enumerate(by_device):
        for line in lines:
            if line not in common or alone:
                yield f"{_name(device)}: {line}"
            elif number == 0:
                yield line


def _name(device: DeviceComparison) -> str:
    """GPU 0; with both numbers where the traces number it differently."""
    if device.device == device.device_after:
        return f"GPU {device.device}"
    return f"GPU {device.device} in A, {device.device_after} in B"


def _timelines(sides: tuple[AnalysedTrace, AnalysedTrace]) -> Iterator[Section]:
    shown = tuple(trace_side(label, side, passes_shown(side.analysis)) for label, side in zip("AB", sides, strict=True))
    note = "On one scale, each from the beginning of its typical pass, or of the trace where nothing repeats. Zoom and position are linked."
    figure = Drawing(side_by_side(shown, "A", "B", "timeline", "tl-traces"), True)
    yield Section("timelines", "A above B", note=note, figure=figure)


def _device(device: DeviceComparison) -> Iterator[Section]:
    if device.unit is None:
        yield from _side_by_side(device)
        return
    where, unit = _name(device), device.unit
    change = units.signed_ms(device.after_ns - device.before_ns)
    yield section(
        f"waterfall-{device.device}",
        f"{where}: where the time went, {change} for {unit}",
        f"{device.units_before:g} in A, {device.units_after:.3g} in B{KNOWN[device.source]}. The steps sum exactly.",
        bars.steps(("A", device.before_ns), device.waterfall, ("B", device.after_ns), f"ms: {unit}"),
        (waterfall_table(f"{where}, {unit}", ("A", device.before_ns), device.waterfall, ("B", device.after_ns)),),
        "summary",
    )
    kernels = section(
        f"kernels-{device.device}",
        f"{where}: kernels, new, gone and changed",
        "Matched by name, then by launch shape and count, then by their neighbours in the stream. Times are of one unit.",
        None,
        (kernel_table(f"Kernels, {where}", ("A", "B"), device.kernels[:MAX_KERNELS]), _counts(device)),
        "summary",
    )
    yield replace(kernels, open="short")


def _side_by_side(device: DeviceComparison) -> Iterator[Section]:
    """Both devices as they are: shares of each trace's own window."""
    where = _name(device)
    rows = [
        (
            p.label,
            units.ms(p.before_ns),
            units.percent(p.before_share),
            units.ms(p.after_ns),
            units.percent(p.after_share),
        )
        for p in device.parts
    ]
    rows.append(("sum", units.ms(device.before_ns), units.DASH, units.ms(device.after_ns), units.DASH))
    header = ("category", "A", "share of A", "B", "share of B")
    shown = section(
        f"sides-{device.device}",
        f"{where}: both traces as they are",
        "Each trace over its whole length. The lengths mean nothing.",
        None,
        (
            Table(f"{where}, whole traces", header, tuple(rows)),
            _families(device),
            _kernel_sides(device),
            _counts(device),
        ),
        "summary",
    )
    yield replace(shown, open="all")


def _families(device: DeviceComparison) -> Table:
    """Kernels of both traces by family."""
    count = _counter(value for f in device.families for value in (f.count_before, f.count_after))
    rows = [
        (f.name, count(f.count_before), count(f.count_after), units.ms(f.before_ns), units.ms(f.after_ns))
        for f in device.families
    ]
    return Table(
        f"Families of kernels, {_name(device)}", ("family", "count A", "count B", "time A", "time B"), tuple(rows)
    )


def _kernel_sides(device: DeviceComparison) -> Table:
    """The kernels of both traces that take most time in either."""
    kernels = device.kernels[:MAX_KERNELS]
    names = _labels(kernels)
    count = _counter(value for k in kernels for value in (k.count_before, k.count_after))
    rows = [
        (
            names(k), {"new": "B alone", "gone": "A alone"}.get(k.status, k.status), count(k.count_before), count(k.count_after),
            units.ms(k.before_ns), units.ms(k.after_ns),
        )
        for k in kernels
    ]  # fmt: skip
    header = ("kernel", "in", "count A", "count B", "time A", "time B")
    return Table(f"Kernels, {_name(device)}", header, tuple(rows))


def waterfall_table(caption: str, before: tuple[str, int], steps: Sequence[Bar], after: tuple[str, int]) -> Table:
    """The steps from one total to the other; ``before`` and ``after`` are (name, ns)."""
    rows = [(s.label, units.ms(s.before_ns), units.ms(s.after_ns), units.signed_ms(s.delta_ns)) for s in steps]
    total = after[1] - before[1]
    rows.append(("sum", units.ms(before[1]), units.ms(after[1]), units.signed_ms(total)))
    return Table(caption, ("category", before[0], after[0], "difference"), tuple(rows))


def kernel_table(caption: str, sides: tuple[str, str], kernels: Sequence[Kernel]) -> Table:
    """Kernels with their counts and times on both sides."""
    before, after = sides
    header = ("kernel", "status", f"count {before}", f"count {after}", f"time {before}", f"time {after}", "difference")
    names = _labels(kernels)
    count = _counter(value for k in kernels for value in (k.count_before, k.count_after))
    rows = [
        (
            names(k), k.status, count(k.count_before), count(k.count_after), units.ms(k.before_ns), units.ms(k.after_ns), units.signed_ms(k.delta_ns),
        )
        for k in kernels
    ]  # fmt: skip
    return Table(caption, header, tuple(rows))


def _labels(kernels: Sequence[Kernel]) -> Callable[[Kernel], str]:
    """How each of these kernels is called: no two of different names alike."""
    short = labels(name for k in kernels for name in (k.name, k.other) if name)
    return lambda k: short[k.name] + (f" -> {short[k.other]}" if k.other else "")


def _counter(values: Iterable[float | None]) -> Callable[[float | None], str]:
    """How these counts are printed: without decimals where all are whole."""
    whole = all(value is None or float(value).is_integer() for value in values)
    return lambda value: units.number(value, 0 if whole else 1)


def _counts(device: DeviceComparison) -> Table:
    """How often things happen in a unit."""
    count = _counter(value for c in device.counts for value in (c.before, c.after))
    rows = [(c.what, count(c.before), count(c.after)) for c in device.counts if c.before or c.after]
    return Table(f"Counts, {_name(device)}", ("what", "A", "B"), tuple(rows))


def _findings(comparison: TraceComparison) -> Iterator[Section]:
    """Findings that are gone, new and in both."""
    groups: tuple[tuple[str, tuple[Finding, ...]], ...] = (
        ("gone in B", comparison.gone),
        ("new in B", comparison.new),
        ("in both", comparison.kept),
    )
    rows = [(f.id, state, f.where, units.ms(f.gain_ns), f.claim) for state, group in groups for f in group]
    header = ("finding", "state", "where", "gain at most", "claim")
    note = "Findings judge each trace alone; gain is an upper bound over its judged part."
    if rows:
        table = Table("Findings", header, tuple(rows), plain=True)
        yield section("findings", "Findings of both traces", note, None, (table,), "summary")
