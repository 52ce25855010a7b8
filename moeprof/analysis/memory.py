"""Device memory over time, from the allocations that a trace has."""

from __future__ import annotations

import numpy as np

from moeprof.analysis.intervals import Times
from moeprof.analysis.model import MemoryPoint, MemoryUse
from moeprof.trace import Trace

MOST_POINTS = 400  # of a device; thinned ones keep the largest value of each stretch of time


def memory_use(trace: Trace) -> tuple[MemoryUse, ...]:
    """The memory of each device over time; empty where the trace has no allocations.

    nsys records changes: what was allocated before the recording is not known, so that its use starts at 0 or, where more is
    freed than was allocated, as low as keeps it from falling below 0.
    """
    table = trace.memory
    uses = []
    for device in sorted(set(table["device"])):
        rows = table[table["device"] == device]
        times, change = rows["time_ns"].to_numpy(), rows["bytes"].to_numpy()
        total, reserved = rows["allocated_bytes"].to_numpy(), rows["reserved_bytes"].to_numpy()
        known = bool((total >= 0).all())
        if not known:
            total = np.cumsum(change)
            total = total - min(int(total.min()), 0)
        held = reserved if (reserved >= 0).all() else None
        chosen = _thinned(total)
        points = tuple(
            MemoryPoint(int(times[i]), int(total[i]), None if held is None else int(held[i])) for i in chosen
        )
        peak, first = int(np.argmax(total)), int(total[0] - change[0])
        uses.append(
            MemoryUse(
                int(device), "pytorch" if known else "cuda", len(rows), first,
                int(total[-1]), max(int(total[peak]), first), int(times[peak if total[peak] >= first else 0]), None if held is None else int(held.max()), points,
            )
        )  # fmt: skip
    return tuple(uses)


def _thinned(values: Times) -> Times:
    """Rows to keep: all, or the first, the last and the largest of each of MOST_POINTS equal stretches."""
    count = len(values)
    if count <= MOST_POINTS:
        return np.arange(count)
    stretches = np.array_split(np.arange(count), MOST_POINTS - 2)
    largest = [int(rows[np.argmax(values[rows])]) for rows in stretches]
    return np.unique([0, *largest, count - 1])
