"""Hardware counters as tables: one per variant, one row per kernel in launch order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from moeprof import units
from moeprof.compare.counters import Counter, CounterComparison
from moeprof.kernels.warp_states import Stalls, steps
from moeprof.loaded.capture import Capture
from moeprof.machine.ncu_metrics import WARP_STATES
from moeprof.report.page import Table
from moeprof.trace.tables import COUNTERS

# metric -> (heading, how a value is shown); what each means is in moeprof/capture/plan.py
SHOWN_COUNTERS: dict[str, tuple[str, Callable[[float], str]]] = {
    "gpu__time_duration.sum": ("time under ncu", units.us),
    "dram__bytes.sum": ("DRAM bytes", units.size),
    "dram__bytes.sum.per_second": ("DRAM GB/s", lambda v: units.number(v / 1e9, 0)),
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": ("DRAM % of peak", units.number),
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": ("SM % of peak", units.number),
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active": ("tensor pipe %", units.number),
    "lts__t_sector_hit_rate.pct": ("L2 hit %", lambda v: "≥ 100" if v > 100 else units.number(v)),
    "sm__warps_active.avg.pct_of_peak_sustained_active": ("occupancy %", units.number),
    "launch__registers_per_thread": ("registers", lambda v: units.number(v, 0)),
}  # fmt: skip
SHOWN_SHARE = 0.02  # of a warp's life, in at least one variant, from which a state is shown
DETAILS = {  # the details page's names of the same
    "Duration": "gpu__time_duration.sum",
    "DRAM Throughput": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "Compute (SM) Throughput": "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "L2 Hit Rate": "lts__t_sector_hit_rate.pct",
    "Achieved Occupancy": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "Registers Per Thread": "launch__registers_per_thread",
}
SHOWN_COUNTERS |= {detail: SHOWN_COUNTERS[metric] for detail, metric in DETAILS.items()}


def compared(comparison: CounterComparison) -> Table:
    """The counters of both sides, the row that changed most marked."""
    marked = None if comparison.moved is None else comparison.most
    rows = [
        (f"{row.label}, {row.scope}", units.amount(row.kind, row.before), units.amount(row.kind, row.after), _change(row) + (" ◂ most" if i == marked else ""))
        for i, row in enumerate(comparison.counters)
    ]  # fmt: skip
    caption = f"Counted: {comparison.coverage[0]} of {comparison.before}, {comparison.coverage[1]} of {comparison.after}; the longest are {' and '.join(dict.fromkeys(units.short_kernel(n) for n in comparison.longest))}"
    return Table(caption, ("counter", comparison.before, comparison.after, "change"), tuple(rows), marked=marked)


def title(comparison: CounterComparison) -> str:
    """Names the row that changed most."""
    row = comparison.moved
    if row is None:
        return f"Counters of {comparison.before} and {comparison.after}: much alike"
    return f"Counters: {row.label} of the {row.scope} goes from {units.amount(row.kind, row.before)} to {units.amount(row.kind, row.after)}"


def _change(row: Counter) -> str:
    """A share's change in points, any other in percent of what it was."""
    if row.before is None or row.after is None:
        return units.DASH
    if row.kind == "share":
        return f"{100 * (row.after - row.before):+.1f} points".replace("-", "−")
    return units.DASH if not row.before else f"{100 * (row.after / row.before - 1):+.1f} %".replace("-", "−")


def counters(capture: Capture) -> tuple[Table, ...]:
    """ncu's counters, one table per variant, one row per kernel in launch order."""
    tables = []
    for variant in capture.variants:
        frame = variant.counters
        if frame is None or not len(frame) or set(COUNTERS) - set(frame.columns):
            continue
        counted = frame["launch"].nunique()
        tables.append(launches(frame, f"{variant.record.name}: the first {counted} kernels of one iteration"))
    return tuple(tables)


def stalled(stalls: tuple[Stalls, ...]) -> tuple[Table, ...]:
    """Why the warps of each variant's longest kernel wait, and what shrank from one variant to the next."""
    if not stalls:
        return ()
    states = sorted(
        {state for variant in stalls for state in variant.shares},
        key=lambda state: -max(variant.shares.get(state, 0.0) for variant in stalls),
    )
    rows = [
        (f"{state}: {WARP_STATES.get(state, '-')}", *(units.percent(variant.shares.get(state)) for variant in stalls))
        for state in states if max(variant.shares.get(state, 0.0) for variant in stalls) >= SHOWN_SHARE
    ]  # fmt: skip
    shrunk = [
        (f"{s.before} to {s.after}", s.state, units.percent(s.share_before), units.percent(s.share_after))
        for s in steps(stalls)
    ]
    return (
        Table("Share of a warp's life in each state", ("state", *(f"{variant.variant}: {units.short_kernel(variant.kernel, 24)}" for variant in stalls)), tuple(rows)),
        Table("The wait that shrank most", ("from, to", "state", "before", "after"), tuple(shrunk)),
    )  # fmt: skip


def launches(frame: pd.DataFrame, caption: str) -> Table:
    """One row per kernel of a COUNTERS table, with the metrics that are known here."""
    wide = frame.pivot_table(
        index=["launch", "kernel"], columns="metric", values="value", aggfunc="first", observed=True
    )
    shown = [m for m in SHOWN_COUNTERS if m in wide.columns]
    rows = [
        (units.short_kernel(str(kernel)), *(SHOWN_COUNTERS[m][1](row[m]) for m in shown))
        for (_, kernel), row in wide.sort_index().iterrows()
    ]
    return Table(caption, ("kernel", *(SHOWN_COUNTERS[m][0] for m in shown)), tuple(rows))


def rules(records: list[dict[str, Any]]) -> Table:
    """ncu's rules with an estimated speed-up, the largest first; each rule once per kernel name."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for rule in sorted((r for r in records if r["speedup_percent"]), key=lambda r: -r["speedup_percent"]):
        best.setdefault((rule["kernel"], rule["rule"]), rule)
    rows = [
        (units.short_kernel(r["kernel"]), r["rule"], f"{r['speedup_percent']:.0f} %", r["description"])
        for r in best.values()
    ]
    return Table("What ncu's rules estimate", ("kernel", "rule", "speed-up", "why"), tuple(rows), plain=True)
