"""Speed of light: how near the busiest units come to their peak, and the DRAM's share by its definition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moeprof.kernels.counters import picked
from moeprof.machine import ncu_metrics as ncu
from moeprof.machine.ncu_metrics import DRAM_CLOCK, DRAM_PEAK

FIELDS = {
    "duration_ns": ncu.DURATION,
    "sm_percent": ncu.SM_THROUGHPUT,
    "memory_percent": ncu.MEMORY_THROUGHPUT,
    "l1_percent": ncu.L1_THROUGHPUT,
    "l2_percent": ncu.L2_THROUGHPUT,
    "dram_percent": ncu.GPU_DRAM_THROUGHPUT,
    "dram_bytes_per_s": ncu.DRAM_BYTES_PER_S,
}
METRICS = (*FIELDS.values(), DRAM_PEAK, DRAM_CLOCK)
HIGH, LOW = (
    80.0,
    60.0,
)  # ncu's own rule SOLBottleneck: above the first a unit is at its limit, below the second latency is


@dataclass(frozen=True)
class SpeedOfLight:
    """Shares of each unit's sustained peak, in percent, as ncu reports them; the duration is ncu's (serialised, caches flushed).

    ``dram_formula_percent``: bytes per second / (peak bytes per cycle x DRAM cycles a second), which ``dram_percent`` must equal.
    """

    duration_ns: float | None = None
    sm_percent: float | None = None
    memory_percent: float | None = None
    l1_percent: float | None = None
    l2_percent: float | None = None
    dram_percent: float | None = None
    dram_bytes_per_s: float | None = None
    dram_peak_bytes_per_s: float | None = None
    dram_formula_percent: float | None = None

    @property
    def verdict(self) -> str | None:
        """The verdict of ncu's rule SOLBottleneck; None where SM or memory was not counted."""
        if self.sm_percent is None or self.memory_percent is None:
            return None
        most, unit = max((self.sm_percent, "the SMs"), (self.memory_percent, "memory"))
        if most >= HIGH:
            return f"{unit} at {most:.1f} % of peak: near the limit of the hardware, so do less work there"
        if most < LOW:
            return "neither SMs nor memory above 60 % of peak: latency, see what warps wait for"
        return f"{unit} at {most:.1f} % of peak: the busiest, with room left"


def speed_of_light(values: Mapping[str, float]) -> SpeedOfLight:
    """From the counters of one kernel, metric -> value in base units."""
    given = picked(values, FIELDS)
    if given["dram_percent"] is None:
        given["dram_percent"] = values.get(ncu.DRAM_THROUGHPUT)
    peak = dram_peak(values)
    rate = given["dram_bytes_per_s"]
    formula = 100 * rate / peak if peak and rate is not None else None
    return SpeedOfLight(**given, dram_peak_bytes_per_s=peak, dram_formula_percent=formula)


def dram_peak(values: Mapping[str, float]) -> float | None:
    """Bytes a second at most: bytes per cycle times the memory's clock, which ncu's percentage of peak is of (checked on an H100 and an
    H200)."""
    peak, clock = values.get(DRAM_PEAK), values.get(DRAM_CLOCK)
    return None if peak is None or clock is None else peak * clock
