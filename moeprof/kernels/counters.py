"""Counters by kernel: launch by launch, or launches of one grid and block together, each metric as the median over them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from moeprof.machine import ncu_metrics as ncu
from moeprof.machine.ncu_metrics import DURATION

# (name on ncu's details page, base unit) -> the metric. A details page contains only these, rounded
LABELS: dict[tuple[str, str], str] = {
    ("Duration", "ns"): DURATION,
    ("Compute (SM) Throughput", "%"): ncu.SM_THROUGHPUT,
    ("Memory Throughput", "%"): ncu.MEMORY_THROUGHPUT,
    ("Memory Throughput", "byte/s"): ncu.DRAM_BYTES_PER_S,
    ("DRAM Throughput", "%"): ncu.GPU_DRAM_THROUGHPUT,
    ("L1/TEX Cache Throughput", "%"): ncu.L1_THROUGHPUT,
    ("L2 Cache Throughput", "%"): ncu.L2_THROUGHPUT,
    ("L1/TEX Hit Rate", "%"): ncu.L1_HIT_RATE,
    ("L2 Hit Rate", "%"): ncu.L2_HIT_RATE,
    ("Theoretical Occupancy", "%"): ncu.THEORETICAL_OCCUPANCY,
    ("Achieved Occupancy", "%"): ncu.ACHIEVED_OCCUPANCY,
    ("Block Limit Barriers", "block"): f"{ncu.OCCUPANCY_LIMIT}barriers",
    ("Block Limit SM", "block"): f"{ncu.OCCUPANCY_LIMIT}blocks",
    ("Block Limit Registers", "block"): f"{ncu.OCCUPANCY_LIMIT}registers",
    ("Block Limit Shared Mem", "block"): f"{ncu.OCCUPANCY_LIMIT}shared_mem",
    ("Block Limit Warps", "block"): f"{ncu.OCCUPANCY_LIMIT}warps",
    ("Registers Per Thread", "register/thread"): ncu.REGISTERS,
    ("Waves Per SM", ""): ncu.WAVES,
    ("Active Warps Per Scheduler", "warp"): ncu.ACTIVE_WARPS,
    ("Eligible Warps Per Scheduler", "warp"): ncu.ELIGIBLE_WARPS,
    ("Issued Warp Per Scheduler", ""): ncu.ISSUED,
    ("No Eligible", "%"): ncu.NO_ELIGIBLE,
    ("Warp Cycles Per Issued Instruction", "cycle"): ncu.CYCLES_PER_INSTRUCTION,
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
    kernels = [
        _one(str(name), str(grid), str(block), group) for (name, grid, block), group in table.groupby(keys, sort=True)
    ]
    return tuple(sorted(kernels, key=lambda c: -c.values.get(DURATION, 0.0) * len(c.launches)))


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
