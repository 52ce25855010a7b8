"""Counters by kernel: launch by launch, or launches of one grid and block together, each metric as the median over them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

DURATION = "gpu__time_duration.sum"
PEAK_ELAPSED = "avg.pct_of_peak_sustained_elapsed"
# (name on ncu's details page, base unit) -> the metric: what a details page alone can tell; its values are rounded
LABELS: dict[tuple[str, str], str] = {
    ("Duration", "ns"): DURATION,
    ("Compute (SM) Throughput", "%"): f"sm__throughput.{PEAK_ELAPSED}",
    ("Memory Throughput", "%"): f"gpu__compute_memory_throughput.{PEAK_ELAPSED}",
    ("Memory Throughput", "byte/s"): "dram__bytes.sum.per_second",
    ("DRAM Throughput", "%"): f"gpu__dram_throughput.{PEAK_ELAPSED}",
    ("L1/TEX Cache Throughput", "%"): "l1tex__throughput.avg.pct_of_peak_sustained_active",
    ("L2 Cache Throughput", "%"): f"lts__throughput.{PEAK_ELAPSED}",
    ("L1/TEX Hit Rate", "%"): "l1tex__t_sector_hit_rate.pct",
    ("L2 Hit Rate", "%"): "lts__t_sector_hit_rate.pct",
    ("Theoretical Occupancy", "%"): "sm__maximum_warps_per_active_cycle_pct",
    ("Achieved Occupancy", "%"): "sm__warps_active.avg.pct_of_peak_sustained_active",
    ("Block Limit Barriers", "block"): "launch__occupancy_limit_barriers",
    ("Block Limit SM", "block"): "launch__occupancy_limit_blocks",
    ("Block Limit Registers", "block"): "launch__occupancy_limit_registers",
    ("Block Limit Shared Mem", "block"): "launch__occupancy_limit_shared_mem",
    ("Block Limit Warps", "block"): "launch__occupancy_limit_warps",
    ("Registers Per Thread", "register/thread"): "launch__registers_per_thread",
    ("Waves Per SM", ""): "launch__waves_per_multiprocessor",
    ("Active Warps Per Scheduler", "warp"): "smsp__warps_active.avg.per_cycle_active",
    ("Eligible Warps Per Scheduler", "warp"): "smsp__warps_eligible.avg.per_cycle_active",
    ("Issued Warp Per Scheduler", ""): "smsp__issue_active.avg.per_cycle_active",
    ("No Eligible", "%"): "smsp__issue_inst0.avg.pct_of_peak_sustained_active",
    ("Warp Cycles Per Issued Instruction", "cycle"): "smsp__average_warp_latency_per_inst_issued.ratio",
}


@dataclass(frozen=True)
class Counted:
    """A kernel of one launch shape. ``launches``: ncu's ordinals; ``values``: metric -> its median over them, in ``units``."""

    name: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    device: int
    launches: tuple[int, ...]
    values: dict[str, float]
    units: dict[str, str]


def launches(frame: pd.DataFrame | None) -> list[tuple[str, dict[str, float]]]:
    """(kernel, its counters by metric) of every launch of a COUNTERS table, in order; none without a table."""
    if frame is None or not len(frame):
        return []
    return [
        (str(rows["kernel"].iloc[0]), dict(zip(rows["metric"].astype(str), rows["value"].astype(float), strict=True)))
        for _, rows in frame.groupby("launch", observed=True)
    ]


def counted(frame: pd.DataFrame, pattern: str) -> tuple[Counted, ...]:
    """The kernels of a COUNTERS table whose name the regular expression finds, the longest in all its launches first."""
    table = named(frame)
    table = table[table["kernel"].astype(str).map(lambda name: re.search(pattern, name) is not None)]
    keys = [table[column].astype(str) for column in ("kernel", "grid", "block")]
    found = [
        _one(str(name), str(grid), str(block), group) for (name, grid, block), group in table.groupby(keys, sort=True)
    ]
    return tuple(sorted(found, key=lambda c: -c.values.get(DURATION, 0.0) * len(c.launches)))


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with the metrics of a details page under their own names; a raw page's are as they were."""
    metrics = [
        LABELS.get((metric, unit), metric)
        for metric, unit in zip(frame["metric"].astype(str), frame["unit"].astype(str), strict=True)
    ]
    return frame.assign(metric=metrics)


def _one(name: str, grid: str, block: str, group: pd.DataFrame) -> Counted:
    per = group.groupby("metric", sort=True)
    return Counted(
        name=name,
        grid=_numbers(grid),
        block=_numbers(block),
        device=int(group["device"].iloc[0]),
        launches=tuple(sorted({int(n) for n in group["launch"]})),
        values={str(metric): float(value) for metric, value in per["value"].median().items()},
        units={str(metric): str(unit) for metric, unit in per["unit"].first().items()},
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text))


def picked(values: Mapping[str, float], fields: Mapping[str, str]) -> dict[str, float | None]:
    """Field -> the value of its metric; None where it was not counted."""
    return {field: values.get(metric) for field, metric in fields.items()}
