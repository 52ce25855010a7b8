"""The page of inspected kernels: a section for each kernel and launch shape, the tables that have data, then what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from moeprof import units
from moeprof.kernels.hot_lines import Hot
from moeprof.kernels.inspection import Inspection, InspectResult, Traced
from moeprof.kernels.memory_chart import Link
from moeprof.report.page import Page, Paragraph, Section, Table, notes, section

SHOWN_PERCENT = 0.5  # a state or pipe below it is left to --json
SHOWN_RULES, RULE_LENGTH, TEXT_LENGTH, NAMES = 6, 300, 90, 6
SCALES = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def page(found: InspectResult) -> Page:
    """Everything that was found, and the notes."""
    traced = (section("trace", "", "", None, (_traced(found.traced),), "summary"),) if found.traced else ()
    kernels = (_kernel(f"kernel-{number}", kernel) for number, kernel in enumerate(found.kernels))
    return Page("", "", (*traced, *kernels, *((notes(found.notes),) if found.notes else ())))


def _traced(traced: Iterable[Traced]) -> Table:
    """What the trace alone says: an average window."""
    header = (
        "kernel", "variant", "rank", "grid", "block", "regs", "shared", "count", "time", "of it", "exposed", "gap before", "in launch calls", "median",
    )  # fmt: skip
    rows = [
        (
            units.short_kernel(t.cost.name, 32), t.variant, f"{t.rank} of {t.of}", units.shape(t.cost.grid), units.shape(t.cost.block), str(t.cost.registers),
            units.size(t.cost.shared_bytes), units.number(t.cost.count, 1), units.us(t.cost.time_ns), units.percent(t.share), units.us(t.cost.exposed_ns),
            units.us(t.cost.gap_ns), "in a graph" if t.cost.in_graph else units.us(t.cost.launch_ns), units.us(t.cost.median_ns),
        )
        for t in traced
    ]  # fmt: skip
    return Table("In the trace, without ncu: cost of an average window, rank by time", header, tuple(rows))


def _kernel(id: str, k: Inspection) -> Section:
    several = f"each number the median of its {len(k.launches)} launches" if len(k.launches) > 1 else "1 launch"
    head = f"grid {units.shape(k.grid)}, block {units.shape(k.block)}, device {k.device}: {several}; time under ncu {units.us(k.speed.duration_ns)}"
    counted = (_speed(k), _operations(k), _memory(k), _occupancy(k), _states(k), _pipes(k), _asked(k), _rules(k))
    hot = (("Hottest source lines", k.hot_source), ("Hottest instructions (SASS), by offset", k.hot_sass))
    return Section(
        id,
        k.kernel,
        above=(Paragraph(head, detail="summary"),),
        tables=tuple(replace(t, detail="summary") for t in counted if t.rows),
        parts=(
            Section("", above=tuple(Paragraph(line, detail="summary") for line in _sentences(k))),
            section("", "", "", None, (_hot(caption, lines) for caption, lines in hot if lines), "summary"),
        ),
        below=tuple(Paragraph(line, detail="summary") for line in _missing(k)),
    )


def _speed(k: Inspection) -> Table:
    speed = k.speed
    shares = (speed.sm_percent, speed.memory_percent, speed.l1_percent, speed.l2_percent, speed.dram_percent)
    if all(share is None for share in shares):
        return Table("", (), ())
    row = ("% of peak", *(units.number(share, 2) for share in shares), _scaled(speed.dram_bytes_per_s, "B/s"))
    return Table("Speed of light", ("", "SM", "memory", "L1", "L2", "DRAM", "DRAM throughput"), (row,))


def _operations(k: Inspection) -> Table:
    roofs = {roof.precision: roof for roof in k.roofs}
    rows = []
    for f in k.flops:
        roof = roofs.get(f.precision)
        share = f.per_s / f.peak_per_s if f.per_s and f.peak_per_s else None
        place = (
            (
                units.number(roof.intensity, 2),
                units.number(roof.ridge, 1),
                roof.bound or units.DASH,
                units.percent(roof.of_roof),
            )
            if roof
            else (units.DASH,) * 4
        )
        rows.append(
            (f.precision, _scaled(f.count, "FLOP"), _scaled(f.per_s, "FLOP/s"), units.percent(share), *place, f.origin)
        )
    header = (
        "operations",
        "of one launch",
        "rate",
        "of peak",
        "FLOP a DRAM byte",
        "ridge",
        "bound by",
        "of the roof",
        "from",
    )
    return Table("Roofline, from counters", header, tuple(rows))


def _scaled(value: float | None, unit: str) -> str:
    if value is None:
        return units.DASH
    prefix, factor = next(((p, f) for p, f in SCALES if abs(value) >= f), ("", 1.0))
    return f"{value / factor:.3f} {prefix}{unit}" if prefix else f"{value:,.0f} {unit}"


def _memory(k: Inspection) -> Table:
    header = ("link", "read", "written", "hit %", "sectors a read", "sectors a write")
    return Table("Memory chart", header, tuple(_link(link) for link in k.memory.links))


def _link(link: Link) -> tuple[str, ...]:
    ratios = (link.read_sectors_per_request, link.write_sectors_per_request)
    return (
        link.name, units.size(link.read_bytes), units.size(link.write_bytes), units.number(link.hit_percent, 2), *(units.number(r, 2) for r in ratios),
    )  # fmt: skip


def _occupancy(k: Inspection) -> Table:
    o = k.occupancy
    if o.theoretical_percent is None and o.achieved_percent is None and not o.limits:
        return Table("", (), ())
    limits = ", ".join(
        f"{name} {units.number(blocks, 0)}" for name, blocks in sorted(o.limits.items(), key=lambda item: item[1])
    )
    row = (
        units.number(o.theoretical_percent, 2), units.number(o.achieved_percent, 2), ", ".join(o.limiters) or units.DASH, limits or units.DASH,
        units.number(o.registers, 0), units.size(o.shared_bytes), units.number(o.waves, 2),
    )  # fmt: skip
    header = (
        "theoretical %",
        "achieved %",
        "limited by",
        "blocks an SM that each allows",
        "registers",
        "shared",
        "waves",
    )
    return Table("Occupancy", header, (row,), plain=True)


def _states(k: Inspection) -> Table:
    rows = [
        (f"{s.name}: {s.what or units.DASH}", units.number(s.cycles, 2), units.percent(s.share))
        for s in k.states
        if 100 * s.share >= SHOWN_PERCENT
    ]
    return Table("What warps wait for", ("state", "cycles an instruction", "share"), tuple(rows))


def _pipes(k: Inspection) -> Table:
    rows = [
        (pipe.name, units.number(pipe.busy_percent, 2), units.number(pipe.issued_percent, 2))
        for pipe in k.pipes
        if pipe.percent >= SHOWN_PERCENT
    ]
    return Table("Pipes, % of what they sustain", ("pipe", "busy cycles", "instructions"), tuple(rows))


def _asked(k: Inspection) -> Table:
    return Table(
        "Asked for", ("counter", "value"), tuple((name, units.number(value, 6)) for name, value in k.asked.items())
    )


def _rules(k: Inspection) -> Table:
    shown = [rule for rule in k.rules if rule.type != "INF"][:SHOWN_RULES]
    rows = [
        (
            rule.name,
            units.DASH if rule.speedup_percent is None else f"{rule.speedup_percent:.1f} %",
            _cut(rule.text, RULE_LENGTH),
        )
        for rule in shown
    ]
    return Table(
        "What ncu's rules say, with the speed-up that they estimate",
        ("rule", "speed-up", "why"),
        tuple(rows),
        plain=True,
    )


def _sentences(k: Inspection) -> Iterator[str]:
    s = k.scheduler
    if s.issued_per_cycle is not None:
        yield (
            f"Scheduler: {units.number(s.active_warps, 2)} warps, {units.number(s.eligible_warps, 2)} of them ready; "
            f"{units.number(s.issued_per_cycle, 2)} instructions a cycle; none ready in {units.number(s.no_eligible_percent, 2)} % of the cycles; "
            f"a warp issues every {units.number(s.cycles_per_instruction, 2)} cycles."
        )
    if k.memory.shared_wavefronts:
        yield (
            f"Shared memory: {units.number(k.memory.shared_wavefronts, 0)} wavefronts, "
            f"{units.number(k.memory.shared_conflicts, 0)} of them for bank conflicts."
        )
    if k.speed.verdict:
        yield f"In short: {k.speed.verdict}."
    if k.compiled:
        yield "Compiled: " + ", ".join(f"{name} {value}" for name, value in k.compiled.items()) + "."


def _hot(caption: str, lines: tuple[Hot, ...]) -> Table:
    rows = [
        (
            h.place, units.number(h.samples), units.percent(h.share), f"{h.stall} {units.percent(h.stall_share)}" if h.stall else units.DASH,
            _cut(h.text, TEXT_LENGTH),
        )
        for h in lines
    ]  # fmt: skip
    return Table(
        f"{caption}: stall samples of all its launches",
        ("place", "samples", "share", "mostly", ""),
        tuple(rows),
        plain=True,
    )


def _cut(text: str, limit: int) -> str:
    one = " ".join(text.split())
    return one if len(one) <= limit else one[: limit - 1] + "…"


def _missing(k: Inspection) -> Iterator[str]:
    for clause in k.untold:
        yield f"Not told: operations in {clause}."
    for name, names in k.missing.items():
        more = f" and {len(names) - NAMES} more (--json)" if len(names) > NAMES else ""
        yield f"Missing from {name}: {', '.join(names[:NAMES])}{more}."
