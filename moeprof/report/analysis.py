"""The pages of one trace and of ncu's counters: what ``moeprof analyze`` prints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from moeprof import units
from moeprof.analysis.model import Analysis, Window
from moeprof.report import counters, tables
from moeprof.report.figures.style import IDLE, LEDGER
from moeprof.report.page import Block, Bullets, Item, Page, Paragraph, Section, Table, section
from moeprof.worker.nvtx import CLOCK, DOMAIN

MAX_ROWS = 12


def page(analysis: Analysis) -> Page:
    """Ledger, copies, launches, kernels, ranges, findings and notes of one trace."""
    source = analysis.source
    title = f"{source.path}: {source.producer or source.kind}" + (f", schema {source.schema}" if source.schema else "")
    left = len(analysis.windows) - MAX_ROWS
    more: tuple[Block, ...] = (
        (Paragraph(f"... and {left} more windows (--json has all)", detail="summary"),) if left > 0 else ()
    )
    ledger = replace(_windows(analysis.windows[:MAX_ROWS]), detail="summary")
    details = (
        copies_table(analysis), communication_table(analysis), causes_table(analysis), launches_table(analysis), _kernels(analysis), ranges_table(analysis),
    )  # fmt: skip
    findings = tuple(
        Paragraph(f"finding {f.id} ({f.where}): {f.claim}. Try: {f.try_}", detail="summary")
        for f in analysis.findings[:MAX_ROWS]
    )
    noted = Bullets(tuple(Item(n.text, n.severity, "summary") for n in analysis.notes))
    sections = (
        Section("ledger", tables=(ledger,), below=more),
        section("details", "", "", None, details, "summary"),
        Section("findings", above=findings, below=(noted,)),
    )
    return Page(title, "", sections)


def counters_page(path: str, frame: pd.DataFrame, rules: list[dict[str, Any]]) -> Page:
    """Hardware counters of each kernel, and what ncu's rules estimate."""
    title = f"{path}: Nsight Compute (it serialises kernels: its times are not a timeline's)"
    shown = (counters.launches(frame, "Kernels in launch order"), counters.rules(rules))
    return Page(title, "", (section("counters", "", "", None, shown, "summary"),))


def _windows(windows: tuple[Window, ...]) -> Table:
    header = (
        "device",
        "range",
        "span",
        "compute",
        "exp. comm",
        "exp. copy",
        "exp. migr.",
        "exp. memset",
        "idle",
        "launch",
        "sync",
        "host",
        "depend.",
        "edge",
    )
    rows = [
        (
            str(w.device), "whole trace" if w.range is None else f"{w.range} {w.instance}", units.ms(w.span_ns),
            *(units.ms(getattr(w.ledger, key)) for _, key, _ in LEDGER), units.ms(w.ledger.idle_ns),
            *(units.ms(getattr(w.idle, key)) for _, key, _ in IDLE),
        )
        for w in windows
    ]  # fmt: skip
    return Table("Time ledger", header, tuple(rows))


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
    return Table("Why", header, tuple(rows))


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
            f"{r.domain}@{r.name}" if r.domain else r.name,
            units.number(r.instances),
            units.ms(r.host_ns),
            units.ms(r.gpu_span_ns),
            units.number(r.gpu_ops),
        )
        for r in ranges[:MAX_ROWS]
    ]
    return Table("NVTX ranges", ("range", "instances", "host time", "GPU projection", "launch calls"), tuple(rows))
