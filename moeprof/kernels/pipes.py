"""Which pipes of the SM a kernel keeps busy, and how its schedulers fare."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from moeprof.kernels.counters import picked
from moeprof.machine import ncu_metrics as ncu

BUSY = re.compile(r"^sm__pipe_(\w+)_cycles_active\.avg\.pct_of_peak_sustained_active$")
ISSUED = re.compile(r"^sm__inst_executed_pipe_(\w+)\.avg\.pct_of_peak_sustained_active$")
METRICS = (
    *(f"sm__inst_executed_pipe_{name}.{ncu.PEAK_ACTIVE}" for name in ("alu", "fma", "lsu", "xu", "uniform")),
    ncu.TENSOR_PIPE,
)
SCHEDULER = {
    "active_warps": ncu.ACTIVE_WARPS,
    "eligible_warps": ncu.ELIGIBLE_WARPS,
    "issued_per_cycle": ncu.ISSUED,
    "no_eligible_percent": ncu.NO_ELIGIBLE,
    "cycles_per_instruction": ncu.CYCLES_PER_INSTRUCTION,
}


@dataclass(frozen=True)
class Pipe:
    """A pipe's busy cycles and its instructions, each in percent of what it can sustain while the SM is active."""

    name: str
    busy_percent: float | None
    issued_percent: float | None

    @property
    def percent(self) -> float:
        """The higher of the two."""
        return max(self.busy_percent or 0.0, self.issued_percent or 0.0)


@dataclass(frozen=True)
class Scheduler:
    """Of one scheduler on average: warps, those that could issue, instructions a cycle, cycles in which none could; and the cycles
    that a warp spends between two of its instructions."""

    active_warps: float | None = None
    eligible_warps: float | None = None
    issued_per_cycle: float | None = None
    no_eligible_percent: float | None = None
    cycles_per_instruction: float | None = None


def pipes(values: Mapping[str, float]) -> tuple[Pipe, ...]:
    """The pipes that worked, the busiest first."""
    busy = {match[1]: value for metric, value in values.items() if (match := BUSY.match(metric))}
    issued = {match[1]: value for metric, value in values.items() if (match := ISSUED.match(metric))}
    every = [Pipe(name, busy.get(name), issued.get(name)) for name in sorted({*busy, *issued})]
    return tuple(sorted((pipe for pipe in every if pipe.percent), key=lambda pipe: -pipe.percent))


def scheduler(values: Mapping[str, float]) -> Scheduler:
    """From the counters of one kernel, metric -> value in base units."""
    return Scheduler(**picked(values, SCHEDULER))
