"""The page of rankings of kernels: what costs an iteration its time."""

from __future__ import annotations

from collections.abc import Mapping

from moeprof import units
from moeprof.kernels.ranking import KernelCost, Ranking
from moeprof.report.page import Page, Paragraph, Section, Table

DRAM = "dram__throughput.avg.pct_of_peak_sustained_elapsed"
SM = "sm__throughput.avg.pct_of_peak_sustained_elapsed"
TENSOR = "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active"
OCCUPANCY = "sm__warps_active.avg.pct_of_peak_sustained_active"
COLUMN_OF = {
    "time": "time",
    "exposed": "exposed",
    "gap": "gap before",
    "launch": "in launch calls",
}  # what is ranked by
OPTIONAL = ("in launch calls", "gap before", "exposed", "grid", "block", "shared", "regs")  # the last goes first
NAME = 120  # characters of a kernel's name; a narrower screen shortens it further
COUNTED = ((DRAM, "DRAM %"), (SM, "SM %"), (TENSOR, "tensor %"), (OCCUPANCY, "occupancy %"))


def table(name: str, ranking: Ranking, by: str, top: int) -> Table:
    """The first ``top`` kernels; counters only where ncu gave some."""
    counted = any(k.counted for k in ranking.kernels)
    header = (
        "kernel",
        "grid",
        "block",
        "regs",
        "shared",
        "count",
        "time",
        "share",
        "exposed",
        "gap before",
        "in launch calls",
    )
    more = (*(label for _, label in COUNTED), "blocks limited by") if counted else ()
    caption = f"{name}: kernels of one window of {units.ms(ranking.span_ns)}, by {by} ({ranking.windows} windows)"
    rows = tuple(_row(k, ranking, counted) for k in ranking.kernels[:top])
    optional = tuple(name for name in OPTIONAL if name != COLUMN_OF[by])
    return Table(caption, (*header, *more), rows, detail="summary", optional=optional)


def _row(k: KernelCost, ranking: Ranking, counted: bool) -> tuple[str, ...]:
    cells = (
        units.short_kernel(k.name, NAME), units.shape(k.grid), units.shape(k.block), str(k.registers), units.size(k.shared_bytes),
        units.number(k.count, 1), units.us(k.time_ns), units.percent(k.time_ns / ranking.span_ns if ranking.span_ns else None), units.us(k.exposed_ns),
        units.us(k.gap_ns), "in a graph" if k.in_graph else units.us(k.launch_ns),
    )  # fmt: skip
    return cells + (
        (*(units.number(k.counters.get(metric)) for metric, _ in COUNTED), k.limiter or units.DASH) if counted else ()
    )


def page(rankings: Mapping[str, Ranking], by: str, top: int) -> Page:
    """A section for each variant: the table, what was left out, and what the counters rest on."""
    return Page("", "", tuple(_section(name, ranking, by, top) for name, ranking in rankings.items()))


def _section(name: str, ranking: Ranking, by: str, top: int) -> Section:
    left = len(ranking.kernels) - top
    lines = [f"... and {left} more (--top, --json)"] if left > 0 else []
    if ranking.covered is None:
        lines.append(
            "No counters: ncu did not run for this trace. A capture with ncu has them; moeprof doctor reports what is missing."
        )
    else:
        lines.append(
            f"Counters are ncu's, joined by name and launch shape: they cover {units.percent(ranking.covered)} of the kernel time."
        )
    below = tuple(Paragraph(line, detail="summary") for line in lines)
    return Section(f"kernels-{name}", tables=(table(name, ranking, by, top),), below=below)
