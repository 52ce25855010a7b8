"""What other processes do on this machine's CPU while a phase is timed, and how much memory is left; Linux alone tells."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")  # of the kernel's clocks a second
PAGE = os.sysconf("SC_PAGE_SIZE")
PROC = Path("/proc")
SHORTEST_S = 0.1  # of a phase: the kernel counts in hundredths of a second
IDLE = (3, 4)  # fields of /proc/stat's first line: idle, waiting for input or output


@dataclass(frozen=True)
class Reading:
    """Seconds that all cores together were busy since the machine started, those of our own processes, and the time."""

    busy_s: float
    own_s: float
    at_s: float


def read(own: Collection[int], proc: Path = PROC) -> Reading | None:
    """A reading now (well below a millisecond); None where this system does not tell."""
    try:
        fields = [int(word) for word in (proc / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    busy = sum(value for index, value in enumerate(fields) if index not in IDLE)
    return Reading(busy / TICKS, sum(_process(pid, proc) for pid in own) / TICKS, time.monotonic())


def _process(pid: int, proc: Path) -> int:
    """Ticks of a process and its threads, in its own code and in the kernel; 0 where it has ended."""
    try:
        words = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(words[11]) + int(words[12])


def others_cores(before: Reading | None, after: Reading | None) -> float | None:
    """How many cores other processes kept busy between two readings; None where it cannot be told, or too short a time."""
    if before is None or after is None or after.at_s - before.at_s < SHORTEST_S:
        return None
    busy = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return max(busy, 0.0) / (after.at_s - before.at_s)


def available_bytes(proc: Path = PROC) -> int | None:
    """Memory that new processes could take; None where this system does not tell."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)
    except (OSError, IndexError, ValueError):
        return None


def has_room(pid: int, share: float, proc: Path = PROC) -> bool:
    """Whether the memory that is left would hold another process like ``pid`` within ``share`` of it."""
    try:
        pages = int((proc / str(pid) / "statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return False
    return pages * PAGE < share * (available_bytes(proc) or 0)


def cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
