"""Capture and Comparison -> tables of text: the numbers of every figure, for the page and for the terminal."""

from __future__ import annotations

import shlex

from moeprof import units
from moeprof.compare.row import Row
from moeprof.compare.variants import Comparison
from moeprof.kernels.roofline import Roof
from moeprof.loaded.capture import Capture
from moeprof.report.figures.style import IDLE, LEDGER
from moeprof.report.page import Table

MAX_KERNELS = 12
CAUSES = {
    "pageable": "pageable memory", "same_stream": "in the stream of the kernels", "nothing_to_overlap": "no compute left to hide under",
    "engine_busy": "copy engine busy", "issued_late": "issued after the compute had ended", "dependency": "waits for an event",
    "legacy_default_stream": "ordered by the legacy default stream", "sync_between": "the host waited for it first",
}  # fmt: skip


def variants(comparison: Comparison) -> Table:
    """Time, interval, ratio, fraction of the limit, efficiency and proof of each variant."""
    header = (
        "variant",
        "time",
        "verdict",
        "speed-up",
        "interval",
        "of the limit",
        "proof",
        "95 % interval (ms)",
        "overlap efficiency",
    )
    rows = tuple(_variant(r, comparison) for r in comparison.rows)
    optional = ("95 % interval (ms)", "overlap efficiency")
    table = Table("Variants, timed clean", header, rows, detail="summary", wide=("proof",), optional=optional)
    return table if any(r.efficiency is not None for r in comparison.rows) else table.without("overlap efficiency")


def _variant(row: Row, comparison: Comparison) -> tuple[str, ...]:
    if row.time_ns is None:
        state = {"skipped": f"SKIPPED: {row.reason}", "failed": f"FAILED: {row.reason}"}.get(row.status, row.status)
        return (row.name, units.DASH, state, *(units.DASH,) * 3, _proof(row), units.DASH, units.DASH)
    verdict = row.verdict
    word = verdict.word if verdict else ("reference" if row.name == comparison.baseline else units.DASH)
    return (
        row.name,
        units.ms(row.time_ns.value),
        word,
        units.times(verdict.speedup.value) if verdict else units.DASH,
        units.between(verdict.speedup) if verdict else units.DASH,
        units.percent(row.limit_ratio),
        _proof(row),
        units.between(row.time_ns, 1e-6),
        units.DASH if row.efficiency is None else f"{row.efficiency:.3f}",
    )


def _proof(row: Row) -> str:
    """The proof in a word."""
    return units.DASH if row.proof_ok is None else "✓ proven" if row.proof_ok else "✗ wrong result"


def proofs(comparison: Comparison) -> Table:
    """What each variant's result was checked for, and how far it was off."""
    rows = tuple((r.name, _proof(r), r.proof) for r in comparison.rows if r.proof)
    return Table("Proofs", ("variant", "result", "what was checked"), rows, plain=True)


def limit(comparison: Comparison) -> str:
    """The model of the limit, with its numbers, in words; empty without one."""
    if comparison.roof is not None:
        return _roofline_limit(comparison.roof)
    if comparison.limit is None:
        return ""
    pipeline = comparison.limit
    return (
        f"Limit: {pipeline.stages} stages of compute c = {units.us(pipeline.compute_ns)} and transfer x = {units.us(pipeline.transfer_ns)} (both from the baseline's "
        f"traced iteration, where compute and copies do not overlap, c : x = {pipeline.compute_to_transfer:.2f}) take at least max(L c + x, c + L x) = {units.ms(pipeline.ideal_ns)}."
    )


def _roofline_limit(roof: Roof) -> str:
    how = "or" if roof.pieces is None else f"overlapped in {roof.pieces} pieces, the first and the last exposed, with"
    text = (
        f"Limit: {roof.flops / 1e9:,.1f} useful GFLOP at {units.rate(roof.tflop_per_s)} TFLOP/s ({roof.flops_ceiling}) {how} {units.size(roof.bytes_moved)} "
        f"at {roof.gb_per_s:,.0f} GB/s ({roof.bytes_ceiling}), both measured in this run, take at least {units.ms(roof.ideal_ns)}: {roof.bound} decide."
    )
    if roof.yardstick_tflop_per_s is not None:
        text += f" Yardstick: {roof.yardstick} {units.rate(roof.yardstick_tflop_per_s)} TFLOP/s, a library on the bare work."
    return text


def waterfall(comparison: Comparison) -> Table:
    """The steps of the waterfall, before and after."""
    rows = [
        (b.label, units.ms(b.before_ns), units.ms(b.after_ns), units.signed_ms(b.delta_ns))
        for b in comparison.waterfall
    ]
    total = [sum(getattr(b, key) for b in comparison.waterfall) for key in ("before_ns", "after_ns", "delta_ns")]
    rows.append(("sum", units.ms(total[0]), units.ms(total[1]), units.signed_ms(total[2])))
    return Table(
        "Waterfall", ("category", str(comparison.baseline), str(comparison.optimized), "difference"), tuple(rows)
    )


def ledger(comparison: Comparison) -> Table:
    """The ledger of each variant, idle by its cause."""
    rows = [r for r in comparison.rows if r.ledger is not None]
    lines = []
    for part, keys in (("ledger", LEDGER), ("idle", IDLE)):
        for label, key, _ in keys:
            values = [getattr(getattr(r, part), key) for r in rows]
            if any(values):
                lines.append((label, *(units.ms(v) for v in values)))
    lines.append(
        (
            "GPU work (not idle)",
            *(units.ms(r.gpu_work_ns) for r in rows),
        )
    )
    lines.append(
        (
            "waits for the host",
            *(units.ms(r.host_wait_ns if r.idle else None) for r in rows),
        )
    )
    lines.append(("traced iteration", *(units.ms(r.traced_ns) for r in rows)))
    lines.append(("traced / clean", *(units.times(r.traced_ratio) for r in rows)))
    lines.append(("compute against the baseline's", *(units.times(r.compute_ratio) for r in rows)))
    return Table("Ledger of one iteration", ("category", *(r.name for r in rows)), tuple(lines))


def copies(comparison: Comparison) -> Table:
    """Copies by variant, direction and memory, with the causes of what is exposed."""
    header = ("variant", "copies", "count", "bytes", "busy", "hidden", "exposed", "GB/s", "why exposed")
    rows = [
        (
            r.name, f"{c.direction} {c.memory}", units.number(c.count), units.size(c.bytes or None), units.ms(c.busy_ns),
            units.percent(c.overlapped_ns / c.busy_ns if c.busy_ns else None), units.ms(c.exposed_ns), units.number(c.throughput_gb_per_s),
            "; ".join(f"{CAUSES.get(k, k)} {units.ms(v)}" for k, v in c.why_exposed.items()) or units.DASH,
        )
        for r in comparison.rows for c in r.copies
    ]  # fmt: skip
    return Table("Copies of one iteration", header, tuple(rows))


def link(comparison: Comparison, ceiling: float | None) -> Table:
    """Throughput over the link against its ceiling."""
    rows = [
        (
            r.name,
            units.number(r.link_gb_per_s),
            units.number(ceiling),
            units.percent(r.link_ratio),
            units.percent(r.link_busy_ratio),
        )
        for r in comparison.rows
        if r.link_gb_per_s
    ]
    header = ("variant", "GB/s", "measured ceiling GB/s", "of the ceiling", "busy, of the iteration")
    return Table("Link", header, tuple(rows))


def launches(comparison: Comparison) -> Table:
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
    for r in comparison.rows:
        n = r.launch
        if n is not None:
            rows.append((
                r.name, units.number(r.calls), units.ms(r.call_ns), units.number(n.kernels), units.number(n.kernels_in_graphs), units.number(n.graph_launches),
                units.us(n.api_ns_median), f"{units.us(n.queue_ns_median)} ({n.queue_count})", f"{units.us(n.latency_ns_median)} ({n.latency_count})",
                units.number(n.sync_calls),
            ))  # fmt: skip
    return Table("Launches of one iteration", header, tuple(rows))


def calls(comparison: Comparison) -> Table:
    """CUDA calls of one iteration by name."""
    rows = [
        (r.name, c.name, units.number(c.count), units.ms(c.total_ns))
        for r in comparison.rows
        if r.launch
        for c in r.launch.calls
    ]
    return Table("CUDA calls of one iteration", ("variant", "call", "count", "total"), tuple(rows))


def kernels(capture: Capture) -> tuple[Table, ...]:
    """The kernels of each variant over its traced iterations."""
    tables = []
    for variant in capture.variants:
        if variant.iterations is not None and variant.iterations.kernels:
            rows = [
                (
                    k.name,
                    units.number(k.count),
                    units.ms(k.total_ns),
                    units.us(k.median_ns),
                    units.us(k.min_ns),
                    units.us(k.max_ns),
                )
                for k in variant.iterations.kernels[:MAX_KERNELS]
            ]
            tables.append(
                Table(
                    f"Kernels of {variant.record.name}, all traced iterations",
                    ("kernel", "count", "total", "median", "min", "max"),
                    tuple(rows),
                )
            )
    return tuple(tables)


def work_tables(comparison: Comparison) -> tuple[Table, ...]:
    """What the variants achieve and the figures that they report, where there are any."""
    return tuple(table for table in (work(comparison), own_figures(comparison)) if table.rows)


def work(comparison: Comparison) -> Table:
    """What each variant achieves, moves and launches; a column that is empty for all is left out."""
    rows = [r for r in comparison.rows if r.work is not None or _figures(r)]
    header = (
        "variant", "TFLOP/s, useful", "GB/s, declared", "of the limit", "of the yardstick", "kernels per iteration", "declared bytes", "DRAM bytes by ncu",
    )  # fmt: skip
    cells = [(row.name, *_achieved(row)) for row in rows]
    filled = [i for i in range(len(header)) if i == 0 or any(row[i] != units.DASH for row in cells)]
    cut = tuple(tuple(row[i] for i in filled) for row in cells)
    return Table("Work of one iteration", tuple(header[i] for i in filled), cut if len(filled) > 1 else ())


def own_figures(comparison: Comparison) -> Table:
    """The figures that the variants report, one row per figure, one column per variant."""
    variants = {row.name: figures for row in comparison.rows if (figures := _figures(row))}
    names = dict.fromkeys(name for figures in variants.values() for name in figures)
    rows = tuple((name, *(figures.get(name, units.DASH) for figures in variants.values())) for name in names)
    return Table("Figures that the variants report", ("figure", *variants), rows)


def _achieved(row: Row) -> tuple[str, ...]:
    work = row.work
    if work is None:
        return (units.DASH,) * 7
    moved = units.size(work.dram_bytes)
    if work.counted and work.dram_bytes is None:
        moved = f"{work.counted} of {work.kernels or units.DASH} kernels counted"
    return (
        units.rate(work.tflop_per_s), units.number(work.gb_per_s, 0), units.percent(row.limit_ratio), units.percent(work.yardstick_ratio),
        units.number(work.kernels), units.size(work.declared_bytes), moved,
    )  # fmt: skip


def _figures(row: Row) -> dict[str, str]:
    """The single figures and words of a variant."""
    figures = {}
    for name, value in row.facts.items():
        if not isinstance(value, tuple):
            figures[name] = (
                value
                if isinstance(value, str)
                else units.number(value, 0 if value == int(value) and value >= 10 else 2)
            )
    return figures


def series(comparison: Comparison) -> dict[str, dict[str, tuple[float, ...]]]:
    """Lists of figures by name, then by variant."""
    lists: dict[str, dict[str, tuple[float, ...]]] = {}
    for row in comparison.rows:
        for name, value in row.facts.items():
            if isinstance(value, tuple):
                lists.setdefault(name, {})[row.name] = value
    return lists


def listed(name: str, lists: dict[str, tuple[float, ...]]) -> Table:
    """A list of figures, a column per variant."""
    length = max(map(len, lists.values()))
    rows = [
        (str(i), *(units.number(v[i], 0) if i < len(v) else units.DASH for v in lists.values())) for i in range(length)
    ]
    return Table(name, ("number", *lists), tuple(rows))


def environment(capture: Capture) -> Table:
    """Hardware, software and parameters of a capture."""
    m, e = capture.manifest, capture.manifest.environment
    gpus = ", ".join(f"{g.name}, driver {g.driver or '-'}" for g in e.gpus_before) or "none"
    params = ", ".join(f"{k}={v}" for k, v in m.params.items())
    rows = [
        ("captured", m.created), ("workload", f"{m.name}, preset {m.preset or '-'}"), ("parameters", params or units.DASH),
        ("GPU", gpus), ("CPU", f"{e.cpu}, {e.cpus} cores"), ("torch", f"{e.torch or '-'}, CUDA {e.cuda or '-'}"),
        ("nsys", e.nsys or units.DASH), ("ncu", e.ncu or units.DASH), ("Python", e.python), ("system", e.platform),
        ("ceilings", ", ".join(f"{k} {v:.2f}" for k, v in m.ceilings.items()) or units.DASH), ("checkout", m.git or units.DASH),
        ("moeprof", e.moeprof),
    ]  # fmt: skip
    return Table("Environment", ("what", "value"), tuple(rows), plain=True)


def commands(capture: Capture) -> Table:
    """The exact command that made each part."""
    rows = [(f"{v.record.name}, {p.tool}", shlex.join(p.argv)) for v in capture.variants for p in v.record.parts]
    return Table("Commands", ("part", "command"), tuple(rows), plain=True)
