"""An inspected kernel as text for the terminal: one block a kernel and launch shape, sections that have data, then what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from moeprof.kernels.hot_lines import Hot
from moeprof.kernels.inspection import Inspection, InspectResult, Traced
from moeprof.kernels.memory_chart import Link
from moeprof.report import format as fmt
from moeprof.report.tables import Table
from moeprof.report.text import rendered, rich_table

SHOWN_PERCENT = 0.5  # a state or pipe below it is left to --json
SHOWN_RULES, RULE_LENGTH, TEXT_LENGTH, NAMES = 6, 300, 90, 6
SCALES = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def text(found: InspectResult) -> str:
    """Everything that was found, and the notes."""
    parts: list[RenderableType] = [rich_table(_traced(found.traced))] if found.traced else []
    for kernel in found.kernels:
        parts += [Text(""), *_kernel(kernel)]
    parts += [Text(f"{n.severity}: {n.text}") for n in found.notes]
    return rendered(Group(*parts))


def _traced(traced: Iterable[Traced]) -> Table:
    """What the trace alone says: an average window."""
    header = (
        "kernel", "variant", "rank", "grid", "block", "regs", "shared", "count", "time", "of it", "exposed", "gap before", "in launch calls", "median",
    )  # fmt: skip
    rows = [
        (
            fmt.short_kernel(t.cost.name, 32), t.variant, f"{t.rank} of {t.of}", _shape(t.cost.grid), _shape(t.cost.block), str(t.cost.registers),
            fmt.size(t.cost.shared_bytes), fmt.number(t.cost.count, 1), fmt.us(t.cost.time_ns), fmt.percent(t.share), fmt.us(t.cost.exposed_ns),
            fmt.us(t.cost.gap_ns), "in a graph" if t.cost.in_graph else fmt.us(t.cost.launch_ns), fmt.us(t.cost.median_ns),
        )
        for t in traced
    ]  # fmt: skip
    return Table("In the trace, without ncu: cost of an average window, rank by time", header, tuple(rows))


def _shape(sizes: tuple[int, ...]) -> str:
    """2x66; trailing ones say nothing."""
    kept = [n for i, n in enumerate(sizes) if i == 0 or any(m != 1 for m in sizes[i:])]
    return "x".join(map(str, kept))


def _kernel(k: Inspection) -> Iterator[RenderableType]:
    several = f"each number the median of its {len(k.launches)} launches" if len(k.launches) > 1 else "1 launch"
    yield Text(f"{k.kernel}", style="bold")
    yield Text(
        f"grid {_shape(k.grid)}, block {_shape(k.block)}, device {k.device}: {several}; time under ncu {fmt.us(k.speed.duration_ns)}"
    )
    for table in (_speed(k), _operations(k), _memory(k), _occupancy(k), _states(k), _pipes(k), _asked(k), _rules(k)):
        if table.rows:
            yield rich_table(table)
    yield from (Text(line) for line in _sentences(k))
    hot = (("Hottest source lines", k.hot_source), ("Hottest instructions (SASS), by offset", k.hot_sass))
    yield from (rich_table(_hot(caption, lines)) for caption, lines in hot if lines)
    yield from (Text(line) for line in _missing(k))


def _speed(k: Inspection) -> Table:
    speed = k.speed
    shares = (speed.sm_percent, speed.memory_percent, speed.l1_percent, speed.l2_percent, speed.dram_percent)
    if all(share is None for share in shares):
        return Table("", (), ())
    row = ("% of peak", *(fmt.number(share, 2) for share in shares), _scaled(speed.dram_bytes_per_s, "B/s"))
    return Table("Speed of light", ("", "SM", "memory", "L1", "L2", "DRAM", "DRAM throughput"), (row,))


def _operations(k: Inspection) -> Table:
    roofs = {roof.precision: roof for roof in k.roofs}
    rows = []
    for f in k.flops:
        roof = roofs.get(f.precision)
        share = f.per_s / f.peak_per_s if f.per_s and f.peak_per_s else None
        place = (
            (
                fmt.number(roof.intensity, 2),
                fmt.number(roof.ridge, 1),
                roof.bound or fmt.DASH,
                fmt.percent(roof.of_roof),
            )
            if roof
            else (fmt.DASH,) * 4
        )
        rows.append(
            (f.precision, _scaled(f.count, "FLOP"), _scaled(f.per_s, "FLOP/s"), fmt.percent(share), *place, f.origin)
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
        return fmt.DASH
    prefix, factor = next(((p, f) for p, f in SCALES if abs(value) >= f), ("", 1.0))
    return f"{value / factor:.3f} {prefix}{unit}" if prefix else f"{value:,.0f} {unit}"


def _memory(k: Inspection) -> Table:
    header = ("link", "read", "written", "hit %", "sectors a read", "sectors a write")
    return Table("Memory chart", header, tuple(_link(link) for link in k.memory.links))


def _link(link: Link) -> tuple[str, ...]:
    ratios = (link.read_sectors_per_request, link.write_sectors_per_request)
    return (
        link.name, fmt.size(link.read_bytes), fmt.size(link.write_bytes), fmt.number(link.hit_percent, 2), *(fmt.number(r, 2) for r in ratios),
    )  # fmt: skip


def _occupancy(k: Inspection) -> Table:
    o = k.occupancy
    if o.theoretical_percent is None and o.achieved_percent is None and not o.limits:
        return Table("", (), ())
    limits = ", ".join(
        f"{name} {fmt.number(blocks, 0)}" for name, blocks in sorted(o.limits.items(), key=lambda item: item[1])
    )
    row = (
        fmt.number(o.theoretical_percent, 2), fmt.number(o.achieved_percent, 2), ", ".join(o.limiters) or fmt.DASH, limits or fmt.DASH,
        fmt.number(o.registers, 0), fmt.size(o.shared_bytes), fmt.number(o.waves, 2),
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
        (f"{s.name}: {s.what or fmt.DASH}", fmt.number(s.cycles, 2), fmt.percent(s.share))
        for s in k.states
        if 100 * s.share >= SHOWN_PERCENT
    ]
    return Table("What warps wait for", ("state", "cycles an instruction", "share"), tuple(rows))


def _pipes(k: Inspection) -> Table:
    rows = [
        (pipe.name, fmt.number(pipe.busy_percent, 2), fmt.number(pipe.issued_percent, 2))
        for pipe in k.pipes
        if pipe.percent >= SHOWN_PERCENT
    ]
    return Table("Pipes, % of what they sustain", ("pipe", "busy cycles", "instructions"), tuple(rows))


def _asked(k: Inspection) -> Table:
    return Table(
        "Asked for", ("counter", "value"), tuple((name, fmt.number(value, 6)) for name, value in k.asked.items())
    )


def _rules(k: Inspection) -> Table:
    shown = [rule for rule in k.rules if rule.type != "INF"][:SHOWN_RULES]
    rows = [
        (
            rule.name,
            fmt.DASH if rule.speedup_percent is None else f"{rule.speedup_percent:.1f} %",
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
            f"Scheduler: {fmt.number(s.active_warps, 2)} warps, {fmt.number(s.eligible_warps, 2)} of them ready; "
            f"{fmt.number(s.issued_per_cycle, 2)} instructions a cycle; none ready in {fmt.number(s.no_eligible_percent, 2)} % of the cycles; "
            f"a warp issues every {fmt.number(s.cycles_per_instruction, 2)} cycles."
        )
    if k.memory.shared_wavefronts:
        yield (
            f"Shared memory: {fmt.number(k.memory.shared_wavefronts, 0)} wavefronts, "
            f"{fmt.number(k.memory.shared_conflicts, 0)} of them for bank conflicts."
        )
    if k.speed.verdict:
        yield f"In short: {k.speed.verdict}."
    if k.compiled:
        yield "Compiled: " + ", ".join(f"{name} {value}" for name, value in k.compiled.items()) + "."


def _hot(caption: str, lines: tuple[Hot, ...]) -> Table:
    rows = [
        (
            h.place, fmt.number(h.samples), fmt.percent(h.share), f"{h.stall} {fmt.percent(h.stall_share)}" if h.stall else fmt.DASH,
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
    for section, names in k.missing.items():
        more = f" and {len(names) - NAMES} more (--json)" if len(names) > NAMES else ""
        yield f"Missing from {section}: {', '.join(names[:NAMES])}{more}."
