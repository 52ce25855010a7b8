"""The fastest that this machine reaches: measured in a child process, and cached for a GPU, its driver and the version of torch."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from moeprof.errors import CaptureError, ToolError
from moeprof.machine import nvml
from moeprof.machine.load import cpu
from moeprof.storage import cache
from moeprof.storage.json import decode, encode

CACHE = "ceilings"
TIMEOUT_S = 300


@dataclass(frozen=True)
class Ceilings:
    """The ceilings of one device by name, when they were measured, and the SM clock in MHz before and after."""

    device: str
    driver: str
    torch: str
    at: str
    clock_before_mhz: int | None = None
    clock_after_mhz: int | None = None
    values: dict[str, float] = field(default_factory=dict)


def ceilings(fresh: bool = False) -> Ceilings:
    """The ceilings of this machine: cached ones, or measured now. ``fresh`` always measures.

    Raises:
        ToolError: torch is missing, or the measurement failed.
    """
    try:
        torch = version("torch")
    except PackageNotFoundError as error:
        raise ToolError("ceilings need torch", "pip install 'moeprof[gpu]'") from error
    gpus = nvml.gpus()
    device, driver = (gpus[0].name, gpus[0].driver or "unknown") if gpus else (cpu(), "none")
    name = cache.digest(device, driver, torch)
    cached = None if fresh else _cached(name)
    if cached:
        return cached
    measured = _measured(device, driver, torch)
    cache.write(CACHE, name, encode(measured))
    return measured


def _cached(name: str) -> Ceilings | None:
    with suppress(CaptureError):
        return decode(Ceilings, cache.read(CACHE, name))
    return None


def _measured(device: str, driver: str, torch: str) -> Ceilings:
    before = _clock_mhz()
    kind = "cuda" if nvml.gpus() else "cpu"
    command = [sys.executable, "-P", "-m", "moeprof.workloads.common.ceilings", kind]
    rerun = f"see: python {' '.join(command[1:])}"
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"the ceilings were not measured within {TIMEOUT_S} s", rerun) from error
    if child.returncode != 0:
        messages = child.stderr.strip().splitlines()
        reason = messages[-1][:200] if messages else "no reason was given"
        raise ToolError(f"the ceilings could not be measured: {reason}", rerun)
    values = json.loads(child.stdout.splitlines()[-1])
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Ceilings(device, driver, torch, now, before, _clock_mhz(), values)


def _clock_mhz() -> int | None:
    gpus = nvml.gpus()
    return gpus[0].sm_clock_mhz if gpus else None
