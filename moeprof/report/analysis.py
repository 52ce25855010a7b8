"""The pages of one trace and of ncu's counters: what ``moeprof analyze`` prints."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from moeprof import units
from moeprof.analysis.model import Analysis, Judged, Range, Window
from moeprof.report import counters, tables
from moeprof.report.narrative import finding as told
from moeprof.report.narrative.trace import answer, device_of
from moeprof.report.page import Block, Bullets, Fact, Facts, Item, Page, Paragraph, Section, Table, section
from moeprof.trace.tables import Device
from moeprof.worker.nvtx import CLOCK, DOMAIN

CPU = "CPU"  # the name of a device that is no GPU
MAX_ROWS = 12
MAX_FINDINGS = 4  # kinds of findings on one screen
OWNERS = (
    ("compute", "compute_ns"), ("comm", "exposed_comm_ns"), ("copies", "exposed_copy_ns"), ("migration", "exposed_migration_ns"),
    ("memset", "exposed_memset_ns"),
)  # fmt: skip
WAITS = (
    ("idle: host", "host_ns"), ("idle: launch", "launch_ns"), ("idle: sync", "sync_ns"), ("idle: dependency", "dependency_ns"), ("idle: edge", "edge_ns"),
)  # fmt: skip
OPTIONAL = ("span", "idle: edge", "memset", "migration")  # on a narrow screen the last goes first


@dataclass(frozen=True)
class Shown:
    """An analysis with what it is of: the ``name`` of its variant or file, and the devices of its trace."""

    name: str
    analysis: Analysis
    devices: tuple[Device, ...] = ()

    @property
    def cpus(self) -> frozenset[int]:
        """The devices that are no GPU."""
        return frozenset(d.index for d in self.devices if d.name == CPU)

    def device(self, index: int | None) -> str:
        """What a device is called."""
        return units.DASH if index is None else CPU if index in self.cpus else f"GPU {index}"


def summary(shown: Sequence[Shown], command: str, target: str) -> Page:
    """One screen: the answer, the ledger and the findings of one trace, or of each variant of a capture.

    Args:
        command: the command that printed it, which ``--all`` extends.
        target: what ``moeprof report`` makes a page of; "" where it makes none.
    """
    following = [Fact("All numbers:", "", f"{command} --all")]
    following += [Fact("Page:", "", f"moeprof report {target}")] if target else []
    sections = (
        *(s for of in shown for s in _answers(of, several=len(shown) > 1)),
        Section("ledger", " ", tables=_ledgers(shown)),
        *(s for of in shown for s in _found(of, MAX_FINDINGS if len(shown) == 1 else 1)),
        *(s for of in shown for s in _warnings(of)),
        Section("next", " ", above=(Facts(tuple(following)),)),
    )
    return Page("", "", sections)


def _answers(shown: Shown, several: bool) -> Iterator[Section]:
    """The answer in a sentence, what was recorded, and what of it was judged."""
    lead = f"{shown.name}: " if several else ""
    blocks = [Paragraph(f"{lead}{_headline(shown)}.", "headline", detail="summary")]
    if not several:
        blocks.append(Paragraph(recorded(shown), detail="summary"))
        judged = answer(shown.analysis, shown.cpus).judged
        blocks += [Paragraph(judged, detail="summary")] if judged and not _of_range(shown) else []
    yield Section("answer", above=tuple(blocks))


def _headline(shown: Shown) -> str:
    if not _of_range(shown):
        return answer(shown.analysis, shown.cpus).headline
    windows = shown.analysis.windows
    count = len({(w.range, w.instance) for w in windows})
    middle = units.ms(statistics.median(w.span_ns for w in windows))
    ranges = " and ".join(_named(r) for r in shown.analysis.ranges if r.gpu_ops and r.name == windows[0].range)
    name = ranges or str(windows[0].range)
    return f"{name}: {count} windows, {middle} at the median" if count > 1 else f"{name}: a window of {middle}"


def _named(of: Range) -> str:
    """A range with its domain."""
    return f"{of.domain}@{of.name}" if of.domain else of.name


def _of_range(shown: Shown) -> bool:
    """Whether the windows are the instances of a range."""
    return any(w.range is not None for w in shown.analysis.windows)


def recorded(shown: Shown) -> str:
    """What was recorded, on what, for how long, with what."""
    analysis = shown.analysis
    busy = {w.device for w in analysis.windows} | {k.device for k in analysis.kernels}
    models: dict[str, int] = {}
    for device in shown.devices:
        if device.name and device.index in busy:
            models[device.name] = models.get(device.name, 0) + 1
    span = max((w.end_ns for w in analysis.windows), default=0) - min((w.start_ns for w in analysis.windows), default=0)
    kernels = sum(k.count for k in analysis.kernels)
    facts = (
        Path(analysis.source.path).name, *(f"{count} x {model}" for model, count in models.items()), units.ms(span) if span else "",
        f"{units.number(kernels)} kernels", analysis.source.producer or analysis.source.kind,
    )  # fmt: skip
    return ", ".join(fact for fact in facts if fact)


def _ledgers(shown: Sequence[Shown]) -> tuple[Table, ...]:
    """A row for each variant, device and window, or judged part, which the answer and the findings are about."""
    rows, left = [], 0
    for of in shown:
        parts = of.analysis.windows if _of_range(of) else of.analysis.judged or of.analysis.windows
        devices = {part.device for part in parts}
        left += max(0, len(parts) - MAX_ROWS)
        for part in parts[:MAX_ROWS]:
            window = f"{part.range} {part.instance}" if isinstance(part, Window) and part.range is not None else ""
            device = of.device(part.device)
            names = [of.name] if len(shown) > 1 else []
            names += [window] if window else []
            names += [device] if len(devices) > 1 or not names else []
            rows.append((", ".join(names), *_owners(part)))
    header = ("", "span", *(name for name, _ in OWNERS), *(name for name, _ in WAITS))
    caption = "Who owned the time" + (f", the first {MAX_ROWS} windows of {left + MAX_ROWS}" if left else "")
    ledger = Table(caption, header, tuple(rows), detail="summary", optional=OPTIONAL)
    return (ledger,) if rows else ()


def _owners(part: Window | Judged) -> Iterator[str]:
    """The span and who owned it; the idle time by what the device waited for."""
    yield units.ms(part.span_ns)
    yield from (units.ms(getattr(part.ledger, key)) for _, key in OWNERS)
    yield from (units.ms(getattr(part.idle, key)) for _, key in WAITS)


def _found(shown: Shown, most: int) -> Iterator[Section]:
    """The findings, cause before consequence, each with what it gains at most."""
    findings = shown.analysis.findings
    if not findings:
        return
    names = {w.device: shown.device(w.device) for w in shown.analysis.windows}
    rows = []
    for number, f in enumerate(findings[:most], 1):
        passes = max(f.passes, 1)
        follows = " ".join(text for text in (told.follows(f, names), told.elsewhere(f, names)) if text)
        gain = units.ms(f.gain_ns / passes) if f.id not in told.TRUST else units.DASH
        share = units.percent(f.gain_share)
        rows.append((str(number), f.id, gain, share, shown.device(device_of(f)), f.claim, f.try_, follows))
    unit = " per pass" if findings[0].passes > 1 else ""
    header = ("no.", "finding", f"gain at most{unit}", "share", "on", "claim", "try", "also")
    table = Table("", header, tuple(rows), plain=True, detail="summary", sentences=("claim", "try", "also"))
    left = len(findings) - len(rows)
    more = (Paragraph(f"... and {left} more finding{'s' * (left != 1)} (--all)", detail="summary"),) if left else ()
    name = f" of {shown.name}" if most == 1 else ""
    title = f"Findings{name}: gains overlap, so do not add them" if len(rows) > 1 else f"Finding{name}"
    yield Section("findings", title, tables=(table,), below=more)


def _warnings(shown: Shown) -> Iterator[Section]:
    items = tuple(Item(n.text, n.severity, "summary") for n in shown.analysis.notes if n.severity != "info")
    if items:
        yield Section("notes", " ", below=(Bullets(items),))


def everything(shown: Shown) -> Page:
    """All numbers of one trace: ledger, copies, launches, kernels, ranges, findings and notes."""
    analysis = shown.analysis
    source = analysis.source
    schema = f", schema {source.schema}" if source.schema else ""
    left = len(analysis.windows) - MAX_ROWS
    more: tuple[Block, ...] = (
        (Paragraph(f"... and {left} more windows (--json has all)", detail="summary"),) if left > 0 else ()
    )
    details = (
        copies_table(analysis), communication_table(analysis), causes_table(analysis), launches_table(analysis), _kernels(analysis), ranges_table(analysis),
    )  # fmt: skip
    noted = Bullets(tuple(Item(n.text, n.severity, "summary") for n in analysis.notes))
    sections = (
        *_answers(shown, several=False),
        Section("ledger", " ", tables=_ledgers((shown,)), below=more),
        *_found(shown, len(analysis.findings)),
        *(section(f"table-{place}", " ", "", None, (t,), "summary") for place, t in enumerate(details) if t.rows),
        Section("notes", " ", below=(noted,)),
    )
    return Page(f"{shown.name}: {source.producer or source.kind}{schema}", "", sections)


def counters_page(path: str, frame: pd.DataFrame, rules: list[dict[str, Any]]) -> Page:
    """Hardware counters of each kernel, and what ncu's rules estimate."""
    title = f"{path}: Nsight Compute (it serialises kernels: its times are not a timeline's)"
    shown = (counters.launches(frame, "Kernels in launch order"), counters.rules(rules))
    return Page(title, "", (section("counters", "", "", None, shown, "summary"),))


def copies_table(analysis: Analysis) -> Table:
    rows = [
        (
            _where(w.range, w.instance, w.device), f"{c.direction} {c.memory}", units.number(c.count), units.size(c.bytes or None), units.ms(c.busy_ns),
            units.percent(c.overlapped_ns / c.busy_ns if c.busy_ns else None), units.ms(c.exposed_ns), units.number(c.throughput_gb_per_s),
            ", ".join(f"{tables.CAUSES.get(k, k)} {units.ms(v)}" for k, v in c.why_exposed.items()),
        )
        for w in analysis.windows[:MAX_ROWS] for c in w.copies
    ]  # fmt: skip
    return Table(
        "Copies",
        ("window", "copies", "count", "bytes", "busy", "hidden", "exposed", "GB/s", "why exposed"),
        tuple(rows),
        sentences=("why exposed",),
    )


def communication_table(analysis: Analysis) -> Table:
    rows = [
        (
            _where(w.range, w.instance, w.device), c.name, units.number(c.count), units.size(c.bytes), units.ms(c.busy_ns),
            units.percent(c.hidden_ns / c.busy_ns if c.busy_ns else None), units.ms(c.exposed_ns),
        )
        for w in analysis.windows[:MAX_ROWS] for c in w.communication
    ]  # fmt: skip
    return Table("Communication", ("window", "class", "count", "bytes", "busy", "hidden", "exposed"), tuple(rows))


def causes_table(analysis: Analysis) -> Table:
    """The largest causes of exposed copies and of idle time."""
    all_causes = [
        (c.total_ns, kind, label, _where(w.range, w.instance, w.device), c)
        for w in analysis.windows[:MAX_ROWS]
        for kind, causes, names in (("exposed copy", w.exposed_causes, tables.CAUSES), ("idle", w.idle_causes, {}))
        for c in causes
        for label in (names.get(c.cause, c.cause),)
    ]
    largest = sorted(all_causes, key=lambda row: -row[0])[:MAX_ROWS]
    rows = [
        (
            where,
            kind,
            label,
            c.what,
            str(c.stream),
            units.number(c.count),
            units.ms(c.total_ns),
            units.us(c.longest_ns),
            c.try_,
        )
        for _, kind, label, where, c in largest
    ]
    header = ("window", "time", "cause", "call", "stream", "count", "total", "longest", "try")
    return Table("Why", header, tuple(rows), sentences=("try",))


def launches_table(analysis: Analysis) -> Table:
    rows = [
        (
            _where(w.range, w.instance, w.device), units.number(w.launch.kernels), units.number(w.launch.joined), units.us(w.launch.api_ns_median),
            f"{units.us(w.launch.queue_ns_median)} ({w.launch.queue_count})", f"{units.us(w.launch.latency_ns_median)} ({w.launch.latency_count})",
            units.number(w.launch.graph_launches), units.number(w.launch.kernels_in_graphs), units.number(w.launch.sync_calls),
        )
        for w in analysis.windows[:MAX_ROWS]
    ]  # fmt: skip
    header = (
        "window",
        "kernels",
        "joined",
        "A median",
        "Q median (n)",
        "latency (n)",
        "graph launches",
        "in graphs",
        "syncs",
    )
    return Table("Launches", header, tuple(rows))


def _where(name: str | None, instance: int | None, device: int) -> str:
    return f"device {device}" if name is None else f"{name} {instance}, device {device}"


def _kernels(analysis: Analysis) -> Table:
    rows = [
        (units.short_kernel(k.name), str(k.device), units.number(k.count), units.ms(k.total_ns), units.us(k.median_ns))
        for k in sorted(analysis.kernels, key=lambda k: -k.total_ns)[:MAX_ROWS]
    ]
    return Table("Kernels", ("kernel", "device", "count", "total", "median"), tuple(rows))


def ranges_table(analysis: Analysis) -> Table:
    """The ranges but for those that tie a trace of several hosts to their clocks: nothing runs in them."""
    ranges = [r for r in analysis.ranges if (r.domain, r.name) != (DOMAIN, CLOCK)]
    rows = [
        (
            _named(r),
            units.number(r.instances),
            units.ms(r.host_ns),
            units.ms(r.gpu_span_ns),
            units.number(r.gpu_ops),
        )
        for r in ranges[:MAX_ROWS]
    ]
    return Table("NVTX ranges", ("range", "instances", "host time", "GPU projection", "launch calls"), tuple(rows))
