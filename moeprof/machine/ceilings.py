"""What this machine reaches at best: measured in a process of its own, remembered for a GPU, its driver and the version of torch.

The memory is ``$XDG_CACHE_HOME/moeprof/ceilings`` (``~/.cache`` by default); it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from moeprof.errors import CaptureError, ToolError
from moeprof.machine import tools
from moeprof.machine.load import cpu
from moeprof.storage.files import write_whole
from moeprof.storage.json import decode, dumps

TIMEOUT_S = 300
UNITS = {"_gb_per_s": "GB/s", "_tflop_per_s": "TFLOP/s", "_us": "us"}


@dataclass(frozen=True)
class Ceilings:
    """The ceilings of one device, when they were measured, and the SM clock in MHz before and after."""

    device: str
    driver: str
    torch: str
    at: str
    clock_before_mhz: int | None = None
    clock_after_mhz: int | None = None
    values: dict[str, float] = field(default_factory=dict)


def ceilings(fresh: bool = False) -> Ceilings:
    """Those that are remembered for this machine, or measured now (``fresh``: in any case).

    Raises:
        ToolError: torch is missing, or the measuring process failed.
    """
    try:
        torch = version("torch")
    except PackageNotFoundError as error:
        raise ToolError("ceilings need torch", "pip install 'moeprof[gpu]'") from error
    gpus = tools.gpus()
    device, driver = (gpus[0].name, gpus[0].driver or "unknown") if gpus else (cpu(), "none")
    path = _path(device, driver, torch)
    known = None if fresh else _remembered(path)
    return known or _measured(path, device, driver, torch)


def _path(*key: str) -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "moeprof" / "ceilings" / f"{hashlib.sha256(chr(0).join(key).encode()).hexdigest()[:24]}.json"


def _remembered(path: Path) -> Ceilings | None:
    with suppress(OSError, ValueError, CaptureError):
        return decode(Ceilings, json.loads(path.read_text(encoding="utf-8")))
    return None


def _measured(path: Path, device: str, driver: str, torch: str) -> Ceilings:
    before = _clock()
    kind = "cpu" if before is None and not tools.gpus() else "cuda"
    command = [sys.executable, "-P", "-m", "moeprof.workloads.common.ceilings", kind]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ToolError(
            f"the ceilings were not measured within {TIMEOUT_S} s", f"see: {' '.join(command[1:])}"
        ) from error
    if ran.returncode != 0:
        said = ran.stderr.strip().splitlines()
        raise ToolError(
            f"the ceilings could not be measured: {said[-1][:200] if said else 'no reason was given'}",
            f"see: python {' '.join(command[1:])}",
        )
    values = json.loads(ran.stdout.splitlines()[-1])
    found = Ceilings(device, driver, torch, datetime.now(UTC).isoformat(timespec="seconds"), before, _clock(), values)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, dumps(found))
    return found


def _clock() -> int | None:
    gpus = tools.gpus()
    return gpus[0].sm_clock_mhz if gpus else None


def text(found: Ceilings) -> str:
    """One line a ceiling."""
    clocks = f", SM clock {found.clock_before_mhz} to {found.clock_after_mhz} MHz" if found.clock_after_mhz else ""
    lines = [f"{found.device}, driver {found.driver}, torch {found.torch}, measured {found.at}{clocks}"]
    return "\n".join(lines + [f"  {name:28s} {value:10.4g} {_unit(name)}" for name, value in found.values.items()])


def _unit(name: str) -> str:
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")
