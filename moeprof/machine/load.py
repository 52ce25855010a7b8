"""What other processes do on this machine's CPU while a phase is timed, and how much memory is left."""

from __future__ import annotations

import platform
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import psutil

SHORTEST_S = 0.1  # of a phase: the kernel counts in hundredths of a second
BUSY = ("user", "nice", "system", "irq", "softirq", "steal")  # of psutil.cpu_times; idle and iowait are not


@dataclass(frozen=True)
class Reading:
    """Seconds that all cores together were busy since the machine started, those of our own processes, and the time."""

    busy_s: float
    own_s: float
    at_s: float


def read(own_pids: Collection[int]) -> Reading | None:
    """A reading now (below a millisecond); None if this system does not report it."""
    try:
        times = psutil.cpu_times()
    except (OSError, psutil.Error):
        return None
    busy_s = sum(getattr(times, name, 0.0) for name in BUSY)
    return Reading(busy_s, sum(_process_s(pid) for pid in own_pids), time.monotonic())


def _process_s(pid: int) -> float:
    """Seconds of a process and its threads, in its own code and in the kernel; 0 if it has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except (OSError, psutil.Error):
        return 0.0
    return float(times.user + times.system)


def others_cores(before: Reading | None, after: Reading | None) -> float | None:
    """How many cores other processes kept busy between two readings; None if it is not known, or the time is too short."""
    if before is None or after is None or after.at_s - before.at_s < SHORTEST_S:
        return None
    busy_s = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return max(busy_s, 0.0) / (after.at_s - before.at_s)


def available_bytes() -> int | None:
    """Memory that new processes could take; None if this system does not report it."""
    try:
        return int(psutil.virtual_memory().available)
    except (OSError, psutil.Error):
        return None


def has_room(pid: int, share: float) -> bool:
    """Whether another process like ``pid`` fits within ``share`` of the memory that is left."""
    try:
        resident_bytes = psutil.Process(pid).memory_info().rss
    except (OSError, psutil.Error):
        return False
    return bool(resident_bytes < share * (available_bytes() or 0))


def cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
