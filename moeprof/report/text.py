"""Analysis and Diff -> text for the terminal: the short form of the page. Colour only on a terminal (rich decides)."""

from __future__ import annotations

import os
import sys
from typing import Any

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from moeprof.analysis.model import Analysis
from moeprof.compare.variants import Diff
from moeprof.report import counters, tables, timed, worktables
from moeprof.report import format as fmt
from moeprof.report.figures import roofline
from moeprof.report.tables import Table
from moeprof.worker.nvtx import CLOCK, DOMAIN

WIDTH = 160  # of text that is not for a terminal
MAX_ROWS = 12
STYLES = {"FASTER": "bold green", "SLOWER": "bold red", "SAME": "bold", "UNCLEAR": "bold yellow"}


def analysis_text(analysis: Analysis) -> str:
    """Ledger, copies, launches, kernels, ranges, findings and notes of one trace."""
    source = analysis.source
    head = f"{source.path}: {source.producer or source.kind}" + (f", schema {source.schema}" if source.schema else "")
    parts: list[RenderableType] = [Text(head, style="bold"), rich_table(tables.windows(analysis.windows[:MAX_ROWS]))]
    if len(analysis.windows) > MAX_ROWS:
        parts.append(Text(f"... and {len(analysis.windows) - MAX_ROWS} more windows (--json has all)"))
    parts += [
        rich_table(t)
        for t in (
            _copies(analysis),
            _communication(analysis),
            _causes(analysis),
            _launches(analysis),
            _kernels(analysis),
            _ranges(analysis),
        )
        if t.rows
    ]
    parts += [
        Text.assemble((f"finding {f.id}", "bold"), f" ({f.where}): {f.claim}. Try: {f.try_}")
        for f in analysis.findings[:MAX_ROWS]
    ]
    parts += [Text(f"{n.severity}: {n.text}") for n in analysis.notes]
    return rendered(Group(*parts))


def counters_text(path: str, frame: pd.DataFrame, found: list[dict[str, Any]]) -> str:
    """Hardware counters of each kernel, and what ncu's rules estimate."""
    parts: list[RenderableType] = [
        Text(f"{path}: Nsight Compute (it serialises kernels: its times are not a timeline's)", style="bold")
    ]
    parts += [
        rich_table(t) for t in (counters.launches(frame, "Kernels in launch order"), counters.rules(found)) if t.rows
    ]
    return rendered(Group(*parts))


def diff_text(diff: Diff) -> str:
    """The verdict, the variants, the waterfall, the reasons and the warnings."""
    row = diff.row(diff.optimized)
    parts: list[RenderableType] = [Text(n.text, style="bold yellow") for n in diff.unlike]
    if row is not None and row.verdict is not None:
        parts.append(Text.assemble((row.verdict.word, STYLES[row.verdict.word]), "  ", diff.sentence))
    else:
        parts.append(Text(diff.sentence))
    where = [tables.waterfall(diff)] if diff.waterfall else _ledger(diff)
    shown = [_without_proof(tables.variants(diff)), *_verdicts(diff), *worktables.tables(diff), *where, *_counted(diff)]
    parts += [rich_table(t) for t in shown]
    parts += [Text(f"- {reason}") for reason in diff.reasons]
    parts += [Text(f"{n.severity}: {n.text}", style="yellow") for n in diff.notes if n.severity != "info"]
    parts += [Text(), Text("In words", style="italic"), Text(" ".join(diff.closing))] if diff.closing else []
    return rendered(Group(*parts))


def _ledger(diff: Diff) -> list[Table]:
    """The ledgers of all variants, where there are any."""
    return [tables.ledger(diff)] if any(r.ledger for r in diff.rows) else []


def _counted(diff: Diff) -> list[Table]:
    """Points of the roofline and counters of both sides, where there are any."""
    found = [roofline.table(diff.roofline)] if diff.roofline.points else []
    return found + ([counters.contrasted(diff.counted)] if diff.counted is not None else [])


def study_text(diff: Diff) -> str:
    """One capture without the contrast."""
    parts: list[RenderableType] = [
        rich_table(t) for t in (_without_proof(tables.variants(diff)), *_verdicts(diff), *worktables.tables(diff))
    ]
    parts += [rich_table(t) for t in _ledger(diff)]
    parts += [Text(f"- {reason}") for reason in diff.reasons]
    return rendered(Group(*parts))


def _verdicts(diff: Diff) -> list[Table]:
    found = timed.verdicts(diff)
    return [found] if found.rows else []


def _without_proof(table: Table) -> Table:
    return tables.without(table, "proof")


def _copies(analysis: Analysis) -> Table:
    rows = [
        (
            _where(w.range, w.instance, w.device), f"{c.direction} {c.memory}", fmt.number(c.count), fmt.size(c.bytes or None), fmt.ms(c.busy_ns),
            fmt.percent(c.overlapped_ns / c.busy_ns if c.busy_ns else None), fmt.ms(c.exposed_ns), fmt.number(c.throughput_gb_per_s),
            ", ".join(f"{tables.CAUSES.get(k, k)} {fmt.ms(v)}" for k, v in c.why_exposed.items()),
        )
        for w in analysis.windows[:MAX_ROWS] for c in w.copies
    ]  # fmt: skip
    return Table(
        "Copies",
        ("window", "copies", "count", "bytes", "busy", "hidden", "exposed", "GB/s", "why exposed"),
        tuple(rows),
    )


def _communication(analysis: Analysis) -> Table:
    rows = [
        (
            _where(w.range, w.instance, w.device), c.name, fmt.number(c.count), fmt.size(c.bytes), fmt.ms(c.busy_ns),
            fmt.percent(c.hidden_ns / c.busy_ns if c.busy_ns else None), fmt.ms(c.exposed_ns),
        )
        for w in analysis.windows[:MAX_ROWS] for c in w.communication
    ]  # fmt: skip
    return Table("Communication", ("window", "class", "count", "bytes", "busy", "hidden", "exposed"), tuple(rows))


def _causes(analysis: Analysis) -> Table:
    """The largest causes of exposed copies and of idle time."""
    found = [
        (c.total_ns, kind, label, _where(w.range, w.instance, w.device), c)
        for w in analysis.windows[:MAX_ROWS]
        for kind, causes, names in (("exposed copy", w.exposed_causes, tables.CAUSES), ("idle", w.idle_causes, {}))
        for c in causes
        for label in (names.get(c.cause, c.cause),)
    ]
    largest = sorted(found, key=lambda row: -row[0])[:MAX_ROWS]
    rows = [
        (
            where,
            kind,
            label,
            c.what,
            str(c.stream),
            fmt.number(c.count),
            fmt.ms(c.total_ns),
            fmt.us(c.longest_ns),
            c.try_,
        )
        for _, kind, label, where, c in largest
    ]
    header = ("window", "time", "cause", "call", "stream", "count", "total", "longest", "try")
    return Table("Why", header, tuple(rows))


def _launches(analysis: Analysis) -> Table:
    rows = [
        (
            _where(w.range, w.instance, w.device), fmt.number(w.launch.kernels), fmt.number(w.launch.joined), fmt.us(w.launch.api_ns_median),
            f"{fmt.us(w.launch.queue_ns_median)} ({w.launch.queue_count})", f"{fmt.us(w.launch.latency_ns_median)} ({w.launch.latency_count})",
            fmt.number(w.launch.graph_launches), fmt.number(w.launch.kernels_in_graphs), fmt.number(w.launch.sync_calls),
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
        (fmt.short_kernel(k.name), str(k.device), fmt.number(k.count), fmt.ms(k.total_ns), fmt.us(k.median_ns))
        for k in sorted(analysis.kernels, key=lambda k: -k.total_ns)[:MAX_ROWS]
    ]
    return Table("Kernels", ("kernel", "device", "count", "total", "median"), tuple(rows))


def _ranges(analysis: Analysis) -> Table:
    """The ranges but for those that tie a trace of several hosts to their clocks: nothing runs in them."""
    told = [r for r in analysis.ranges if (r.domain, r.name) != (DOMAIN, CLOCK)]
    rows = [
        (
            f"{r.domain}@{r.name}" if r.domain else r.name,
            fmt.number(r.instances),
            fmt.ms(r.host_ns),
            fmt.ms(r.gpu_span_ns),
            fmt.number(r.gpu_ops),
        )
        for r in told[:MAX_ROWS]
    ]
    return Table("NVTX ranges", ("range", "instances", "host time", "GPU projection", "launch calls"), tuple(rows))


def table_text(table: Table) -> str:
    """One table."""
    return rendered(rich_table(table))


def rich_table(table: Table) -> RichTable:
    """A table for the terminal."""
    shown = RichTable(
        title=table.caption, title_justify="left", title_style="italic", header_style="bold", box=None, pad_edge=False
    )
    for index, name in enumerate(table.header):
        shown.add_column(name, justify="left" if index == 0 or table.plain else "right", overflow="fold")
    for number, row in enumerate(table.rows):
        shown.add_row(*(Text(cell) for cell in row), style="bold" if number == table.marked else None)
    return shown


def rendered(renderable: RenderableType) -> str:
    """Text as wide as the terminal, or WIDTH columns without colour where stdout is none."""
    terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    console = Console(
        width=None if sys.stdout.isatty() else WIDTH,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        file=None,
    )
    with console.capture() as captured:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
