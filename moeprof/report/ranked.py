"""A ranking of kernels as text for the terminal."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from moeprof.kernels.ranking import KernelCost, Ranking
from moeprof.report import format as fmt
from moeprof.report.tables import Table
from moeprof.report.text import rendered, rich_table

DRAM = "dram__throughput.avg.pct_of_peak_sustained_elapsed"
SM = "sm__throughput.avg.pct_of_peak_sustained_elapsed"
TENSOR = "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active"
OCCUPANCY = "sm__warps_active.avg.pct_of_peak_sustained_active"
COUNTED = ((DRAM, "DRAM %"), (SM, "SM %"), (TENSOR, "tensor %"), (OCCUPANCY, "occupancy %"))


def table(name: str, found: Ranking, by: str, top: int) -> Table:
    """The first ``top`` kernels; counters only where ncu gave some."""
    counted = any(k.counted for k in found.kernels)
    header = (
        "kernel",
        "grid",
        "block",
        "regs",
        "shared",
        "count",
        "time",
        "of it",
        "exposed",
        "gap before",
        "in launch calls",
    )
    more = (*(label for _, label in COUNTED), "blocks limited by") if counted else ()
    caption = f"{name}: kernels of one window of {fmt.ms(found.span_ns)}, by {by} ({found.windows} windows)"
    return Table(caption, (*header, *more), tuple(_row(k, found, counted) for k in found.kernels[:top]))


def _row(k: KernelCost, found: Ranking, counted: bool) -> tuple[str, ...]:
    cells = (
        fmt.short_kernel(k.name, 36), shape(k.grid), shape(k.block), str(k.registers), fmt.size(k.shared_bytes),
        fmt.number(k.count, 1), fmt.us(k.time_ns), fmt.percent(k.time_ns / found.span_ns if found.span_ns else None), fmt.us(k.exposed_ns),
        fmt.us(k.gap_ns), "in a graph" if k.in_graph else fmt.us(k.launch_ns),
    )  # fmt: skip
    return cells + (
        (*(fmt.number(k.counters.get(metric)) for metric, _ in COUNTED), k.limiter or fmt.DASH) if counted else ()
    )


def shape(sizes: tuple[int, int, int]) -> str:
    """2x66; trailing ones say nothing."""
    kept = [n for i, n in enumerate(sizes) if i == 0 or any(m != 1 for m in sizes[i:])]
    return "x".join(map(str, kept))


def text(name: str, found: Ranking, by: str, top: int) -> str:
    """The table, what was left out, and what the counters rest on."""
    lines = []
    if len(found.kernels) > top:
        lines.append(Text(f"... and {len(found.kernels) - top} more (--top, --json)"))
    if found.covered is None:
        lines.append(
            Text(
                "No counters: ncu did not run for this trace. A capture with ncu has them; moeprof doctor says what is missing."
            )
        )
    else:
        lines.append(
            Text(
                f"Counters are ncu's, joined by name and launch shape: they cover {fmt.percent(found.covered)} of the kernel time."
            )
        )
    return rendered(Group(rich_table(table(name, found, by, top)), *lines))
