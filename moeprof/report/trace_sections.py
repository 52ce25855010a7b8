"""The sections of a trace's page below its findings: passes, kernels, ranges, copies, communication, launches, memory.

Each is there only with data, and folded where its matter takes less than MATTERS of the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from markupsafe import Markup

from moeprof import units
from moeprof.analysis.model import Analysis, CopySize, Excess, Kernel, Passes, RangeNode, SlowPass, Window
from moeprof.report.figures.icicle import colour_of, icicle
from moeprof.report.figures.launch import launch_drawing
from moeprof.report.figures.memory import memory_figure
from moeprof.report.figures.passes import FAMILIES, MOST_ROWS, PARTS, passes_figure, place
from moeprof.report.kernel_names import labels
from moeprof.report.page import Bullets, Detail, Drawing, Item, Look, Paragraph, Section, Table
from moeprof.report.tables import CAUSES

MATTERS = 0.02  # of the traced time: a section about less is folded
MAX_KERNELS = 30  # rows of a device
MAX_RANGES, MAX_CAUSES, MAX_CALLS = 40, 12, 12
SHORT_KERNELS = 6  # what the terminal shows
DEEPEST = 6  # levels of ranges in the table
TITLED = 3  # families in a title
TOLD = 3  # differences of a slow step in its sentence
LEAST_CAUSE = 0.001  # of the time: a smaller cause is not listed

PLURAL = {"step": "Steps", "pass": "Passes"}
OWNERS = {"exposed_copy": "exposed copies", "exposed_migration": "page migrations", "exposed_memset": "memsets"}
WAITS = {
    "launch": "idle inside the launch call {}", "sync": "idle while the host waits in {}", "host": "idle while the host runs other code",
    "dependency": "idle after the launch ({})",
}  # fmt: skip


def sections(analysis: Analysis, names: Mapping[int, str], zero_ns: int, main: int | None = None) -> Iterator[Section]:
    """The sections in the order of reading.

    Args:
        analysis: of the whole trace.
        names: of its devices, by index.
        zero_ns: what the timeline's axis counts from.
        main: the device that the answer is about; None: the one with the most kernel time.
    """
    spent = {k.device: _spent(analysis, k.device) for k in analysis.kernels}
    if main not in spent:
        main = max(spent, key=lambda device: (spent[device], -device), default=0)
    shown = labels(dict.fromkeys([*(k.name for k in analysis.kernels), *_operations(analysis)]))
    if analysis.passes:
        yield _passes(analysis, names, shown, zero_ns, main)
    if analysis.kernels:
        yield _kernels(analysis, names, shown, main)
    if len(analysis.range_tree) > 1:
        yield _ranges(analysis, shown)
    yield from _causes(analysis, names)
    yield from _copies(analysis, names)
    yield from _communication(analysis, names)
    yield from _launches(analysis, names, main)
    if analysis.memory:
        yield _memory(analysis, names, zero_ns)


def _operations(analysis: Analysis) -> Iterator[str]:
    return (node.name for node in analysis.range_tree if node.kind == "operation")


def share_of_time(analysis: Analysis, part: str) -> float:
    """The largest share that a part of the ledger has of any device's time."""
    return max((getattr(w.ledger, part) / w.span_ns for w in analysis.windows if w.span_ns), default=0.0)


def _title(name: str, fact: str) -> str:
    return f"{name}: {fact}" if fact else name


# Passes


def _passes(analysis: Analysis, names: Mapping[int, str], shown: Mapping[str, str], zero_ns: int, main: int) -> Section:
    """The passes of the main device, those of the others folded."""
    first, *rest = sorted(analysis.passes, key=lambda p: (p.device != main, p.device))
    longest = max(
        (slow.longer_ns / max(p.passes[p.median].span_ns, 1) for p in analysis.passes for slow in p.slow), default=0.0
    )
    note = f"One row per {first.what}, from its first operation to the first one of the next. Click a row to see it in the timeline."
    if len(first.passes) > MOST_ROWS:
        note = f"One cell per {first.what} in the order of time, coloured by its length. Click a cell to see it in the timeline."
    body = _passes_of(first, names, shown, zero_ns)
    title = f"{PLURAL[first.what]} of {names[first.device]}" if rest else PLURAL[first.what]
    parts = tuple(
        replace(
            _passes_of(of, names, shown, zero_ns),
            title=_title(f"{PLURAL[of.what]} of {names[of.device]}", _passes_fact(of)),
            folded=True,
        )
        for of in rest
    )
    return replace(
        body, id="passes", title=_title(title, _passes_fact(first)), above=(Paragraph(note, "how"), *body.above), nav=PLURAL[first.what],
        folded=longest < MATTERS, parts=parts,
    )  # fmt: skip


def _passes_fact(of: Passes) -> str:
    median = of.passes[of.median].span_ns
    slow = [s for s in of.slow if s.longer_ns >= MATTERS * median]
    if not slow:
        spread = max(abs(p.span_ns - median) for p in of.passes) / max(median, 1)
        return f"{len(of.passes)} of {units.ms(median)}, all within {units.percent(spread)}"
    return f"{len(of.passes)}, median {units.ms(median)}, the slowest takes {units.ms(slow[0].longer_ns)} longer"


def _passes_of(of: Passes, names: Mapping[int, str], shown: Mapping[str, str], zero_ns: int) -> Section:
    items = tuple(Item(_slow(of, slow, shown), detail="report") for slow in of.slow)
    above = (Bullets(items),) if items else ()
    figure = Drawing(passes_figure(of, zero_ns))
    return Section(
        f"passes-{of.device}", above=above, figure=figure, tables=(_passes_table(of, names, zero_ns),), open="none"
    )


def _slow(of: Passes, slow: SlowPass, shown: Mapping[str, str]) -> str:
    causes = "; ".join(_excess(excess, shown) for excess in slow.excess[:TOLD])
    name = of.passes[slow.index].name
    name = name[:1].upper() + name[1:] if name.startswith(of.what) else name
    longer = f"{name} takes {units.ms(slow.longer_ns)} longer than the median {of.what}"
    return f"{longer}: {causes}." if causes else f"{longer}, spread over many parts."


def _excess(excess: Excess, shown: Mapping[str, str]) -> str:
    cause, _, call = excess.name.partition(": ")
    if excess.kind == "idle":
        what = WAITS.get(cause, "idle").format(call)
        more = ""
    elif excess.kind == "kernel":
        what = f"in {shown.get(excess.name, units.short_kernel(excess.name))}"
        more = f" ({excess.count} more of them)" if excess.count > 0 else ""
    else:
        what, more = f"in {OWNERS.get(excess.name, excess.name)}", ""
    return f"{units.ms(excess.ns)} more {what}{more}"


def _passes_table(of: Passes, names: Mapping[int, str], zero_ns: int) -> Table:
    """The ledger of each pass; of many passes the median and the slow ones."""
    numbers = range(len(of.passes))
    if len(of.passes) > MOST_ROWS:
        numbers = sorted({of.median, *(s.index for s in of.slow)})  # type: ignore[assignment]
    parts = [part for part in PARTS if any(part.ns(p) for p in of.passes)]
    median = of.passes[of.median].span_ns
    rows = tuple(
        (
            _pass_name(of, number), units.ms(of.passes[number].span_ns), _difference(of.passes[number].span_ns - median),
            *(units.ms(part.ns(of.passes[number])) for part in parts),
        )
        for number in numbers
    )  # fmt: skip
    slowest = of.slow[0].index if of.slow else None
    marked = next((row for row, number in enumerate(numbers) if number == slowest), None)
    header = (of.what, "length", "against the median", *(part.label for part in parts))
    caption = f"{PLURAL[of.what]} of {names[of.device]}"
    if len(rows) < len(of.passes):
        caption += f": the median and the slowest of {units.number(len(of.passes))} (moeprof analyze --json has all)"
    links = tuple(place(of.passes[n].start_ns, of.passes[n].end_ns, zero_ns) for n in numbers)
    return Table(caption, header, rows, marked=marked, detail="report", look=Look(links=links))


def _pass_name(of: Passes, number: int) -> str:
    return of.passes[number].name + (" (median)" if number == of.median else "")


def _difference(ns: int) -> str:
    return units.DASH if ns == 0 else units.signed_ms(ns)


# Kernels


def _kernels(analysis: Analysis, names: Mapping[int, str], shown: Mapping[str, str], main: int) -> Section:
    devices = sorted({k.device for k in analysis.kernels}, key=lambda d: (d != main, d))
    tables = [_families(analysis, devices, names)] if any(k.family for k in analysis.kernels) else []
    for number, device in enumerate(devices):
        detail: Detail = "summary" if number == 0 else "report"
        tables.append(replace(_kernel_table(analysis, device, names, shown), detail=detail))
    left = sum(k.device == main for k in analysis.kernels) - MAX_KERNELS
    note = (
        "Exposed: no other kernel runs beside it. Idle before: what the GPU waited for these kernels. Click a name to mark the kernel "
        "in the timeline, a header to sort."
    )
    note += f" {units.number(left)} more names with less time are in moeprof analyze --json." if left > 0 else ""
    title = _title("Kernels", _families_fact(analysis, main))
    return Section("kernels", title, note=note, tables=tuple(tables), open="lead", nav="Kernels")


def _spent(analysis: Analysis, device: int) -> int:
    return sum(k.total_ns for k in analysis.kernels if k.device == device)


def _families_fact(analysis: Analysis, device: int) -> str:
    whole = _spent(analysis, device)
    rows = [f for f in analysis.families if f.device == device][:TITLED]
    if not rows or not whole:
        return ""
    return (
        ", ".join(f"{FAMILIES.get(f.name, f.name)} {units.percent(f.total_ns / whole)}" for f in rows)
        + " of kernel time"
    )


def _families(analysis: Analysis, devices: list[int], names: Mapping[int, str]) -> Table:
    rows, colours = [], []
    for device in devices:
        whole = _spent(analysis, device)
        for f in (f for f in analysis.families if f.device == device):
            rows.append(
                (
                    FAMILIES.get(f.name, f.name), names[device], units.number(f.names), units.number(f.count), units.ms(f.total_ns),
                    units.percent(f.total_ns / whole if whole else None), units.ms(f.exposed_ns), units.ms(f.idle_before_ns),
                )
            )  # fmt: skip
            colours.append(colour_of(f.name))
    header = ("family", "device", "names", "count", "total", "share", "exposed", "idle before")
    table = Table(
        "Kernels by family", header, tuple(rows), detail="report", look=Look("share", tuple(colours), sorted_by="total")
    )
    return table if len(devices) > 1 else table.without("device")


def _kernel_table(analysis: Analysis, device: int, names: Mapping[int, str], shown: Mapping[str, str]) -> Table:
    kernels: list[Kernel] = sorted(
        (k for k in analysis.kernels if k.device == device), key=lambda k: (-k.total_ns, k.name)
    )
    whole = _spent(analysis, device)
    top = kernels[:MAX_KERNELS]
    rows = tuple(
        (
            shown[k.name], FAMILIES.get(k.family or "", units.DASH), units.number(k.count), units.ms(k.total_ns),
            units.percent(k.total_ns / whole if whole else None), units.us(k.median_ns),
            units.us(k.exposed_ns), units.us(k.idle_before_ns),
        )
        for k in top
    )  # fmt: skip
    look = Look("share", tuple(colour_of(k.family) for k in top), tuple(k.name for k in top), "total", marks=True)
    header = ("kernel", "family", "count", "total", "share", "median", "exposed", "idle before")
    return Table(
        f"Kernels of {names[device]}", header, rows, wide=("family", "exposed"), short=SHORT_KERNELS, look=look
    )


# Ranges


def _ranges(analysis: Analysis, shown: Mapping[str, str]) -> Section:
    nodes = analysis.range_tree
    families = {k.name: k.family or "compute" for k in analysis.kernels}
    top = [n for n in nodes if n.parent == 0][:2]
    fact = " and ".join(f"{_short(n.name)} {units.percent(n.gpu_ns / nodes[0].gpu_ns)}" for n in top) + " of GPU time"
    note = (
        "Width is GPU time by the range that launched the work; numbers and ids in names are folded (*). Click or press Enter to zoom, "
        "Escape shows all."
    )
    figure = Drawing(icicle(nodes, shown, families))
    return Section(
        "ranges",
        _title("Ranges", fact),
        note=note,
        figure=figure,
        tables=(_range_table(nodes),),
        open="none",
        nav="Ranges",
    )


def _short(name: str, limit: int = 40) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _range_table(nodes: tuple[RangeNode, ...]) -> Table:
    """Ranges below one another, each followed by those inside it."""
    below: dict[int, list[int]] = {}
    for number, node in enumerate(nodes):
        if node.parent is not None and node.kind != "operation":
            below.setdefault(node.parent, []).append(number)
    rows: list[tuple[str, ...]] = []

    def add(number: int, level: int) -> None:
        node = nodes[number]
        share = units.percent(node.gpu_ns / nodes[0].gpu_ns if nodes[0].gpu_ns else None)
        rows.append(("› " * level + _short(node.name, 80), units.number(node.instances), units.ms(node.gpu_ns), share))
        if level + 1 < DEEPEST:
            for child in below.get(number, ()):
                add(child, level + 1)

    for number in below.get(0, ()):
        add(number, 0)
    header = ("range", "instances", "GPU time", "share")
    return Table("Ranges by GPU time", header, tuple(rows[:MAX_RANGES]), detail="report", look=Look("share"))


# Why, copies, communication, launches, memory


def _causes(analysis: Analysis, names: Mapping[int, str]) -> Iterator[Section]:
    causes = [
        (c.total_ns, w, kind, label, c)
        for w in analysis.windows
        for kind, of, labelled in (("exposed copy", w.exposed_causes, CAUSES), ("idle", w.idle_causes, {}))
        for c in of
        for label in (labelled.get(c.cause, c.cause),)
        if c.total_ns >= LEAST_CAUSE * w.span_ns
    ]
    if not causes:
        return
    largest = sorted(causes, key=lambda row: (-row[0], row[1].device, row[4].what))[:MAX_CAUSES]
    rows = tuple(
        (
            f"{kind}: {label}", names[w.device], c.what, str(c.stream), units.number(c.count), units.ms(ns),
            units.percent(ns / w.span_ns if w.span_ns else None), units.us(c.longest_ns), c.try_,
        )
        for ns, w, kind, label, c in largest
    )  # fmt: skip
    header = ("cause", "device", "call", "stream", "count", "total", "share", "longest", "try")
    colours = tuple(_cause_colour(kind, c.cause) for _, _, kind, _, c in largest)
    table = Table(
        "Largest causes",
        header,
        rows,
        detail="report",
        wide=("try", "stream"),
        look=Look("share", colours, sorted_by="total"),
    )
    lost = max((w.ledger.idle_ns + w.ledger.exposed_copy_ns) / w.span_ns for w in analysis.windows if w.span_ns)
    yield Section(
        "causes", "Why devices are idle and copies exposed", note="The largest causes of all devices.", tables=(table,),
        open="lead", folded=lost < MATTERS, nav="Causes",
    )  # fmt: skip


def _cause_colour(kind: str, cause: str) -> str:
    return "own-copy" if kind == "exposed copy" else f"own-{cause}"


def _copies(analysis: Analysis, names: Mapping[int, str]) -> Iterator[Section]:
    if not any(w.copies for w in analysis.windows):
        return
    share = share_of_time(analysis, "exposed_copy_ns")
    by_kind = tuple(
        (
            f"{c.direction} {c.memory}", names[w.device], units.number(c.count), units.size(c.bytes or None), units.ms(c.busy_ns),
            units.percent(c.overlapped_ns / c.busy_ns if c.busy_ns else None), units.ms(c.exposed_ns), units.rate(c.throughput_gb_per_s),
            ", ".join(f"{CAUSES.get(k, k)} {units.ms(v)}" for k, v in c.why_exposed.items()),
        )
        for w in analysis.windows for c in w.copies
    )  # fmt: skip
    header = ("copies", "device", "count", "bytes", "busy", "hidden", "exposed", "GB/s", "why exposed")
    kinds = Table("Copies by direction and memory", header, by_kind, detail="report", wide=("why exposed",))
    by_size = tuple(
        (
            f"{c.direction} {c.memory}", names[c.device], _size_class(c), units.number(c.count), units.size(c.bytes or None),
            units.ms(c.busy_ns), units.ms(c.exposed_ns), units.rate(c.throughput_gb_per_s),
        )
        for c in analysis.copy_sizes
    )  # fmt: skip
    columns = ("copies", "device", "size", "count", "bytes", "busy", "exposed", "GB/s")
    sizes = Table("Copies by size", columns, by_size)
    tables = (kinds, sizes) if by_size else (kinds,)
    fact = f"{units.percent(share)} of the time only copies run"
    note = (
        "Copy time under kernels is hidden. The rest is exposed. Small copies reach no bandwidth: look at GB/s by size."
    )
    yield Section(
        "copies", _title("Copies", fact), note=note, tables=tables, open="short", folded=share < MATTERS, nav="Copies"
    )


def _size_class(of: CopySize) -> str:
    if of.to_bytes is None:
        return f"from {_binary(of.from_bytes)}"
    return f"{_binary(of.from_bytes)} to {_binary(of.to_bytes)}" if of.from_bytes else f"below {_binary(of.to_bytes)}"


def _binary(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"


def _communication(analysis: Analysis, names: Mapping[int, str]) -> Iterator[Section]:
    rows = tuple(
        (
            c.name, names[w.device], units.number(c.count), units.size(c.bytes), units.ms(c.busy_ns),
            units.percent(c.hidden_ns / c.busy_ns if c.busy_ns else None), units.ms(c.exposed_ns),
        )
        for w in analysis.windows for c in w.communication
    )  # fmt: skip
    if not rows:
        return
    share = share_of_time(analysis, "exposed_comm_ns")
    header = ("class", "device", "count", "bytes", "busy", "hidden", "exposed")
    table = Table("Communication", header, rows, detail="report")
    fact = f"{units.percent(share)} of the time only communication runs"
    note = "Communication time under compute kernels is hidden. The rest is exposed."
    yield Section(
        "communication", _title("Communication", fact), note=note, tables=(table,), open="short", folded=share < MATTERS, nav="Communication"
    )  # fmt: skip


def _launches(analysis: Analysis, names: Mapping[int, str], first: int) -> Iterator[Section]:
    windows = [w for w in analysis.windows if w.launch.kernels and w.launch.joined]
    if not windows:
        return
    main = next((w for w in windows if w.device == first), windows[0])
    rows = tuple(_launch_row(w, names) for w in windows)
    header = (
        "device", "kernels", "with a launch call", "launch call, median", "wait in the queue, median", "of", "delay, empty stream", "of",
        "graph launches", "kernels in graphs", "calls that wait",
    )  # fmt: skip
    table = Table("Launches", header, rows, detail="report")
    host = Table(
        f"CUDA calls of the host, {names[main.device]}", ("call", "kind", "count", "total"),
        tuple((c.name, c.kind, units.number(c.count), units.ms(c.total_ns)) for c in main.launch.calls[:MAX_CALLS]),
    )  # fmt: skip
    lost = max((w.idle.launch_ns + w.idle.dependency_ns) / w.span_ns for w in analysis.windows if w.span_ns)
    fact = f"a call takes {units.us(main.launch.api_ns_median)}" if main.launch.api_ns_median is not None else ""
    if main.launch.queue_ns_median is not None:
        fact += f", then the kernel waits {units.us(main.launch.queue_ns_median)}" if fact else ""
    note = (
        "A long wait in the queue is good: the host runs ahead. It costs time only where the stream was empty (delay)."
    )
    figure = Drawing(launch_drawing(main.launch)) if main.launch.api_ns_median is not None else None
    yield Section(
        "launches", _title("Launches", fact), note=note, figure=figure, tables=(table, *((host,) if host.rows else ())), open="lead",
        folded=lost < MATTERS, nav="Launches",
    )  # fmt: skip


def _launch_row(window: Window, names: Mapping[int, str]) -> tuple[str, ...]:
    launch = window.launch
    return (
        names[window.device], units.number(launch.kernels), units.number(launch.joined), units.us(launch.api_ns_median),
        units.us(launch.queue_ns_median), units.number(launch.queue_count), units.us(launch.latency_ns_median),
        units.number(launch.latency_count), units.number(launch.graph_launches), units.number(launch.kernels_in_graphs),
        units.number(launch.sync_calls),
    )  # fmt: skip


def _memory(analysis: Analysis, names: Mapping[int, str], zero_ns: int) -> Section:
    rows = tuple(
        (
            names.get(use.device, f"GPU {use.device}"), units.number(use.events), units.size(use.first_bytes), units.size(use.last_bytes),
            units.size(use.peak_bytes), units.ms(use.peak_at_ns - zero_ns), units.size(use.peak_reserved_bytes),
        )
        for use in analysis.memory
    )  # fmt: skip
    header = (
        "device",
        "allocations and frees",
        "at the beginning",
        "at the end",
        "peak",
        "peak at",
        "held by PyTorch, peak",
    )
    table = Table("Memory", header, rows, detail="report")
    most = max(analysis.memory, key=lambda use: (use.peak_bytes, -use.device))
    source = (
        "PyTorch's allocator"
        if most.source == "pytorch"
        else "CUDA (nsys knows no allocation from before the recording)"
    )
    figures = Markup("").join(memory_figure(use, zero_ns) for use in analysis.memory if use.points)
    note = f"As recorded from {source}. The area is in use; the line is held by the allocator."
    fact = f"peak {units.size(most.peak_bytes)}"
    return Section(
        "memory",
        _title("Memory", fact),
        above=(Paragraph(note, "how"),),
        figure=Drawing(figures),
        tables=(table,),
        nav="Memory",
    )
