"""Capture and Diff -> tables of text: the numbers of every figure, for the page and for the terminal."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from moeprof.analysis.model import Window
from moeprof.compare.row import Row
from moeprof.compare.variants import Diff
from moeprof.loaded.capture import Capture
from moeprof.report import format as fmt
from moeprof.report.figures.style import IDLE, LEDGER

MAX_KERNELS = 12
CAUSES = {
    "pageable": "pageable memory", "same_stream": "in the stream of the kernels", "nothing_to_overlap": "no compute left to hide under",
    "engine_busy": "copy engine busy", "issued_late": "issued after the compute had ended", "dependency": "waits for an event",
    "legacy_default_stream": "ordered by the legacy default stream", "sync_between": "the host waited for it first",
}  # fmt: skip


SENTENCE = 40  # characters of a cell from which it is no number


@dataclass(frozen=True)
class Table:
    """A caption, a header and rows of text; the first column is text, the others are numbers unless ``plain``; ``marked`` is
    the row to look at first."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    plain: bool = False
    marked: int | None = None

    @property
    def prose(self) -> frozenset[int]:
        """The columns but the first that hold sentences, which read from the left."""
        return frozenset(place for row in self.rows for place, cell in enumerate(row) if place and len(cell) > SENTENCE)


def variants(diff: Diff) -> Table:
    """Time, interval, ratio, fraction of the limit, efficiency and proof of each variant."""
    header = (
        "variant",
        "time",
        "95 % interval (ms)",
        "speed-up",
        "interval",
        "verdict",
        "of the limit",
        "overlap efficiency",
        "proof",
    )
    found = Table("Variants, timed clean", header, tuple(_variant(r, diff) for r in diff.rows))
    return found if any(r.efficiency is not None for r in diff.rows) else without(found, "overlap efficiency")


def without(table: Table, name: str) -> Table:
    """The table without one column."""
    at = table.header.index(name)
    kept = tuple(row[:at] + row[at + 1 :] for row in (table.header, *table.rows))
    return Table(table.caption, kept[0], kept[1:], table.plain)


def _variant(row: Row, diff: Diff) -> tuple[str, ...]:
    if row.time_ns is None:
        state = {"skipped": f"SKIPPED: {row.reason}", "failed": f"FAILED: {row.reason}"}.get(row.status, row.status)
        return (row.name, *(fmt.DASH,) * 4, state, fmt.DASH, fmt.DASH, row.proof or fmt.DASH)
    found = row.verdict
    word = found.word if found else ("reference" if row.name == diff.baseline else fmt.DASH)
    return (
        row.name,
        fmt.ms(row.time_ns.value),
        fmt.between(row.time_ns, 1e-6),
        fmt.times(found.speedup.value) if found else fmt.DASH,
        fmt.between(found.speedup) if found else fmt.DASH,
        word,
        fmt.percent(row.limit_ratio),
        fmt.DASH if row.efficiency is None else f"{row.efficiency:.3f}",
        row.proof or fmt.DASH,
    )


def limit(diff: Diff) -> str:
    """The model of the limit, with its numbers, in words."""
    if diff.limit is None:
        return ""
    found = diff.limit
    return (
        f"Limit: {found.stages} stages of compute c = {fmt.us(found.compute_ns)} and transfer x = {fmt.us(found.transfer_ns)} (both from the baseline's "
        f"traced iteration, where each runs alone and the other unit rests, c : x = {found.compute_ns / found.transfer_ns:.2f}) take at least max(L c + x, c + L x) = {fmt.ms(found.ideal_ns)}."
    )


def waterfall(diff: Diff) -> Table:
    """The steps of the waterfall, before and after."""
    rows = [(b.label, fmt.ms(b.before_ns), fmt.ms(b.after_ns), fmt.signed_ms(b.delta_ns)) for b in diff.waterfall]
    total = [sum(getattr(b, key) for b in diff.waterfall) for key in ("before_ns", "after_ns", "delta_ns")]
    rows.append(("sum", fmt.ms(total[0]), fmt.ms(total[1]), fmt.signed_ms(total[2])))
    return Table("Waterfall", ("category", str(diff.baseline), str(diff.optimized), "difference"), tuple(rows))


def ledger(diff: Diff) -> Table:
    """The ledger of each variant, idle by its cause."""
    rows = [r for r in diff.rows if r.ledger is not None]
    lines = []
    for part, keys in (("ledger", LEDGER), ("idle", IDLE)):
        for label, key, _ in keys:
            values = [getattr(getattr(r, part), key) for r in rows]
            if any(values):
                lines.append((label, *(fmt.ms(v) for v in values)))
    lines.append(
        (
            "GPU work (not idle)",
            *(fmt.ms(r.traced_ns - r.ledger.idle_ns if r.traced_ns and r.ledger else None) for r in rows),
        )
    )
    lines.append(
        (
            "waits for the host",
            *(fmt.ms(r.idle.launch_ns + r.idle.sync_ns + r.idle.host_ns if r.idle else None) for r in rows),
        )
    )
    lines.append(("traced iteration", *(fmt.ms(r.traced_ns) for r in rows)))
    lines.append(("traced / clean", *(fmt.times(r.traced_ratio) for r in rows)))
    lines.append(("compute against the baseline's", *(fmt.times(r.compute_ratio) for r in rows)))
    return Table("Ledger of one iteration", ("category", *(r.name for r in rows)), tuple(lines))


def copies(diff: Diff) -> Table:
    """Copies by variant, direction and memory, with the causes of what is exposed."""
    header = ("variant", "copies", "count", "bytes", "busy", "hidden", "exposed", "GB/s", "why exposed")
    rows = [
        (
            r.name, f"{c.direction} {c.memory}", fmt.number(c.count), fmt.size(c.bytes or None), fmt.ms(c.busy_ns),
            fmt.percent(c.overlapped_ns / c.busy_ns if c.busy_ns else None), fmt.ms(c.exposed_ns), fmt.number(c.throughput_gb_per_s),
            "; ".join(f"{CAUSES.get(k, k)} {fmt.ms(v)}" for k, v in c.why_exposed.items()) or fmt.DASH,
        )
        for r in diff.rows for c in r.copies
    ]  # fmt: skip
    return Table("Copies of one iteration", header, tuple(rows))


def link(diff: Diff, ceiling: float | None) -> Table:
    """Throughput over the link against its ceiling."""
    rows = [
        (
            r.name,
            fmt.number(r.link_gb_per_s),
            fmt.number(ceiling),
            fmt.percent(r.link_ratio),
            fmt.percent(r.link_busy_ratio),
        )
        for r in diff.rows
        if r.link_gb_per_s
    ]
    header = ("variant", "GB/s", "measured ceiling GB/s", "of the ceiling", "busy, of the iteration")
    return Table("Link", header, tuple(rows))


def launches(diff: Diff) -> Table:
    """Launch numbers of each variant's iteration."""
    header = (
        "variant",
        "CUDA calls",
        "time in calls",
        "kernels",
        "in graphs",
        "graph launches",
        "launch call A, median",
        "queue Q, median (count)",
        "latency, median (count)",
        "synchronises",
    )
    rows = []
    for r in diff.rows:
        n = r.launch
        if n is not None:
            rows.append((
                r.name, fmt.number(r.calls), fmt.ms(r.call_ns), fmt.number(n.kernels), fmt.number(n.kernels_in_graphs), fmt.number(n.graph_launches),
                fmt.us(n.api_ns_median), f"{fmt.us(n.queue_ns_median)} ({n.queue_count})", f"{fmt.us(n.latency_ns_median)} ({n.latency_count})",
                fmt.number(n.sync_calls),
            ))  # fmt: skip
    return Table("Launches of one iteration", header, tuple(rows))


def calls(diff: Diff) -> Table:
    """CUDA calls of one iteration by name."""
    rows = [
        (r.name, c.name, fmt.number(c.count), fmt.ms(c.total_ns)) for r in diff.rows if r.launch for c in r.launch.calls
    ]
    return Table("CUDA calls of one iteration", ("variant", "call", "count", "total"), tuple(rows))


def kernels(study: Capture) -> tuple[Table, ...]:
    """The kernels of each variant over its traced iterations."""
    found = []
    for variant in study.variants:
        if variant.iterations is not None and variant.iterations.kernels:
            rows = [
                (
                    k.name,
                    fmt.number(k.count),
                    fmt.ms(k.total_ns),
                    fmt.us(k.median_ns),
                    fmt.us(k.min_ns),
                    fmt.us(k.max_ns),
                )
                for k in variant.iterations.kernels[:MAX_KERNELS]
            ]
            found.append(
                Table(
                    f"Kernels of {variant.record.name}, all traced iterations",
                    ("kernel", "count", "total", "median", "min", "max"),
                    tuple(rows),
                )
            )
    return tuple(found)


def environment(study: Capture) -> Table:
    """Hardware, software and parameters of a capture."""
    m, e = study.manifest, study.manifest.environment
    gpus = ", ".join(f"{g.name}, driver {g.driver or '-'}" for g in e.gpus_before) or "none"
    params = ", ".join(f"{k}={v}" for k, v in m.params.items())
    rows = [
        ("captured", m.created), ("workload", f"{m.name}, preset {m.preset or '-'}"), ("parameters", params or fmt.DASH),
        ("GPU", gpus), ("CPU", f"{e.cpu}, {e.cpus} cores"), ("torch", f"{e.torch or '-'}, CUDA {e.cuda or '-'}"),
        ("nsys", e.nsys or fmt.DASH), ("ncu", e.ncu or fmt.DASH), ("Python", e.python), ("system", e.platform),
        ("ceilings", ", ".join(f"{k} {v:.2f}" for k, v in m.ceilings.items()) or fmt.DASH), ("checkout", m.git or fmt.DASH),
        ("moeprof", e.moeprof),
    ]  # fmt: skip
    return Table("Environment", ("what", "value"), tuple(rows), plain=True)


def commands(study: Capture) -> Table:
    """The exact command that made each part."""
    rows = [(f"{v.record.name}, {p.tool}", shlex.join(p.argv)) for v in study.variants for p in v.record.parts]
    return Table("Commands", ("part", "command"), tuple(rows), plain=True)


def windows(found: tuple[Window, ...]) -> Table:
    """The ledger of any windows, for ``moeprof analyze``."""
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
            str(w.device), "whole trace" if w.range is None else f"{w.range} {w.instance}", fmt.ms(w.span_ns),
            *(fmt.ms(getattr(w.ledger, key)) for _, key, _ in LEDGER), fmt.ms(w.ledger.idle_ns),
            *(fmt.ms(getattr(w.idle, key)) for _, key, _ in IDLE),
        )
        for w in found
    ]  # fmt: skip
    return Table("Time ledger", header, tuple(rows))
