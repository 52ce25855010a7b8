"""What a program does now: how long it runs, how busy the GPUs are, how large its recording has grown."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from moeprof import units
from moeprof.capture.program.process import marked
from moeprof.machine.nvml import Activity

MOST_GPUS = 4  # named one by one


@dataclass(frozen=True)
class Reading:
    """One reading; ``recorded_bytes`` is None if the tool's file is not known; ``state`` says what is unusual."""

    elapsed_s: float
    gpus: tuple[Activity, ...]
    recorded_bytes: int | None
    state: str

    def __str__(self) -> str:
        parts = [f"{self.elapsed_s:.0f} s", *_gpus(self.gpus)]
        if self.recorded_bytes is not None:
            parts.append(f"recorded {units.size(self.recorded_bytes)}")
        if self.state:
            parts.append(self.state)
        return ", ".join(parts)


def _gpus(gpus: Sequence[Activity]) -> list[str]:
    if len(gpus) <= MOST_GPUS:
        return [str(gpu) for gpu in gpus]
    busy = [gpu.busy_percent for gpu in gpus if gpu.busy_percent is not None]
    power = [gpu.power_w for gpu in gpus if gpu.power_w is not None]
    share = f" {sum(busy) / len(busy):.0f} % busy ({min(busy)} to {max(busy)})" if busy else ""
    return [f"{len(gpus)} GPUs{share}" + (f", {sum(power):.0f} W" if power else "")]


def recorded_bytes(report: Path | None) -> int | None:
    """How large the recording is: of the report if it is there, else of the files that nsys writes now; None if neither is."""
    if report is not None and report.is_file():
        return report.stat().st_size
    sizes = []
    for process in marked():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name().startswith("nsys"):
                files = [Path(file.path) for file in process.open_files()]
                sizes += [file.stat().st_size for file in files if file.suffix in (".qdstrm", ".nsys-rep")]
    return sum(sizes) if sizes else None
