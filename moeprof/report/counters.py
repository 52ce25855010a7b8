"""Hardware counters as tables: one a variant, one row a kernel in launch order."""

from __future__ import annotations

from collections.abc import Callable

from moeprof.report import format as fmt
from moeprof.report.tables import Table
from moeprof.study import Study
from moeprof.trace.tables import COUNTERS

# metric -> (heading, how a value is shown); what each means is in moeprof/capture/plan.py
SHOWN_COUNTERS: dict[str, tuple[str, Callable[[float], str]]] = {
    "gpu__time_duration.sum": ("time under ncu", fmt.us),
    "dram__bytes.sum": ("DRAM bytes", fmt.size),
    "dram__bytes.sum.per_second": ("DRAM GB/s", lambda v: fmt.number(v / 1e9, 0)),
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": ("DRAM % of peak", fmt.number),
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": ("SM % of peak", fmt.number),
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active": ("tensor pipe %", fmt.number),
    "lts__t_sector_hit_rate.pct": ("L2 hit %", fmt.number),
    "sm__warps_active.avg.pct_of_peak_sustained_active": ("occupancy %", fmt.number),
    "launch__registers_per_thread": ("registers", lambda v: fmt.number(v, 0)),
}  # fmt: skip


def counters(study: Study) -> tuple[Table, ...]:
    """ncu's counters, one table a variant, one row a kernel in launch order."""
    found = []
    for variant in study.variants:
        frame = variant.counters
        if frame is None or not len(frame) or set(COUNTERS) - set(frame.columns):
            continue
        wide = frame.pivot_table(
            index=["launch", "kernel"], columns="metric", values="value", aggfunc="first", observed=True
        )
        shown = [m for m in SHOWN_COUNTERS if m in wide.columns]
        rows = [
            (fmt.short_kernel(str(kernel)), *(SHOWN_COUNTERS[m][1](row[m]) for m in shown))
            for (_, kernel), row in wide.sort_index().iterrows()
        ]
        header = ("kernel", *(SHOWN_COUNTERS[m][0] for m in shown))
        found.append(
            Table(f"{variant.record.name}: the first {len(rows)} kernels of one iteration", header, tuple(rows))
        )
    return tuple(found)
