"""TraceContrast -> an offline page, and its short form for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from moeprof.analysis.model import Finding
from moeprof.compare.traces import DeviceContrast, TraceContrast
from moeprof.report import format as fmt
from moeprof.report.figures import bars
from moeprof.report.html import Section, filled, section
from moeprof.report.tables import Table
from moeprof.report.text import rendered, rich_table

MAX_KERNELS = 14


def render(found: TraceContrast) -> str:
    """The page."""
    sections = [s for device in found.devices for s in _sections(device)]
    if findings(found).rows:
        note = "Findings judge each trace alone; gain is an upper bound over its judged part."
        sections.append(section("findings", "Findings of both traces", note, None, (findings(found),)))
    sentences = [f"GPU {d.device}: {word}" for d in found.devices for word in d.words]
    return filled(
        "traces.html.j2",
        title=f"{found.before} and {found.after}",
        contrast=found,
        sections=sections,
        sentences=sentences,
    )


def text(found: TraceContrast) -> str:
    """The same, short."""
    parts: list[RenderableType] = [Text(n.text, style="bold yellow") for n in found.unlike]
    for device in found.devices:
        parts += [Text(f"GPU {device.device}: {device.words[0]}", style="bold")]
        parts += [Text(f"- {word}") for word in device.words[1:]]
        parts += [rich_table(t) for t in (waterfall(device), counts(device), kernels(device, 12)) if t.rows]
    parts += [rich_table(findings(found))] if findings(found).rows else []
    parts += [Text(f"{n.severity}: {n.text}") for n in found.notes]
    return rendered(Group(*parts))


def _sections(device: DeviceContrast) -> list[Section]:
    where, unit = f"GPU {device.device}", device.unit
    figure = bars.steps(("A", device.before_ns), device.waterfall, ("B", device.after_ns), f"ms: {unit}")
    change = fmt.signed_ms(device.after_ns - device.before_ns)
    walked = f"{device.units_before:g} in A, {device.units_after:.3g} in B. The steps sum exactly."
    return [
        section(f"waterfall-{device.device}", f"{where}: where the time went, {change} for {unit}", walked, figure, (waterfall(device),)),
        section(
            f"kernels-{device.device}", f"{where}: kernels, new, gone and changed",
            "Matched by name, then by launch shape and count, then by their neighbours in the stream. Times are of one unit.",
            None, (kernels(device, MAX_KERNELS), counts(device)),
        ),
    ]  # fmt: skip


def waterfall(device: DeviceContrast) -> Table:
    """The steps of a unit's time."""
    rows = [(s.label, fmt.ms(s.before_ns), fmt.ms(s.after_ns), fmt.signed_ms(s.delta_ns)) for s in device.waterfall]
    total = device.after_ns - device.before_ns
    rows.append(("sum", fmt.ms(device.before_ns), fmt.ms(device.after_ns), fmt.signed_ms(total)))
    return Table(f"GPU {device.device}, {device.unit}", ("category", "A", "B", "difference"), tuple(rows))


def kernels(device: DeviceContrast, most: int) -> Table:
    """Kernels of a unit, the largest change first."""
    rows = [
        (
            fmt.short_kernel(k.name) + (f" -> {fmt.short_kernel(k.other)}" if k.other else ""), k.status,
            fmt.number(k.count_before), fmt.number(k.count_after), fmt.ms(k.before_ns), fmt.ms(k.after_ns), fmt.signed_ms(k.delta_ns),
        )
        for k in device.kernels[:most]
    ]  # fmt: skip
    header = ("kernel", "status", "count A", "count B", "time A", "time B", "difference")
    return Table(f"Kernels, GPU {device.device}", header, tuple(rows))


def counts(device: DeviceContrast) -> Table:
    """How often things happen in a unit."""
    rows = [(c.what, fmt.number(c.before), fmt.number(c.after)) for c in device.counts if c.before or c.after]
    return Table(f"Counts, GPU {device.device}", ("what", "A", "B"), tuple(rows))


def findings(found: TraceContrast) -> Table:
    """Findings that went, came and stayed."""
    groups: tuple[tuple[str, tuple[Finding, ...]], ...] = (
        ("gone in B", found.gone),
        ("new in B", found.new),
        ("in both", found.kept),
    )
    rows = [(f.id, state, f.where, fmt.ms(f.gain_ns), f.claim) for state, group in groups for f in group]
    return Table("Findings", ("finding", "state", "where", "gain at most", "claim"), tuple(rows), plain=True)
