"""Occupancy of a kernel: the warps that its launch allows, those that were there, and what allows no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moeprof.kernels.counters import picked
from moeprof.machine import ncu_metrics as ncu

FIELDS = {
    "theoretical_percent": ncu.THEORETICAL_OCCUPANCY,
    "achieved_percent": ncu.ACHIEVED_OCCUPANCY,
    "registers": ncu.REGISTERS,
    "shared_bytes": "launch__shared_mem_per_block",
    "waves": ncu.WAVES,
}
LIMITS = {
    "barriers": "barriers",
    "blocks": "blocks an SM can hold",
    "registers": "registers",
    "shared_mem": "shared memory",
    "warps": "warps an SM can hold",
}
METRICS = (*FIELDS.values(), *(f"{ncu.OCCUPANCY_LIMIT}{name}" for name in LIMITS if name != "barriers"))


@dataclass(frozen=True)
class Occupancy:
    """Shares of the warps that an SM can hold, in percent. ``limits``: blocks an SM that each resource allows; ``limiters``: those
    that allow the fewest. ``registers`` a thread, ``shared_bytes`` a block, ``waves`` of blocks an SM."""

    theoretical_percent: float | None = None
    achieved_percent: float | None = None
    registers: float | None = None
    shared_bytes: float | None = None
    waves: float | None = None
    limits: dict[str, float] = field(default_factory=dict)
    limiters: tuple[str, ...] = ()


def occupancy(values: Mapping[str, float]) -> Occupancy:
    """From the counters of one kernel, metric -> value in base units."""
    limits = {
        LIMITS.get(name, name): value
        for metric, value in values.items()
        if metric.startswith(ncu.OCCUPANCY_LIMIT) and (name := metric.removeprefix(ncu.OCCUPANCY_LIMIT))
    }
    fewest = min(limits.values(), default=None)
    return Occupancy(
        **picked(values, FIELDS),
        limits=limits,
        limiters=tuple(sorted(name for name, blocks in limits.items() if blocks == fewest)),
    )
