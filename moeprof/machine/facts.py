"""The facts of this machine that decide which variants can run here."""

from __future__ import annotations

import os

from moeprof.machine import nvml
from moeprof.machine.launcher import RANKS_ON_CPU
from moeprof.workload.model import Machine


def facts() -> Machine:
    """This machine as NVML reports it, without importing torch."""
    gpus = nvml.gpus()
    first = gpus[0] if gpus else None
    return Machine(
        cuda=bool(gpus),
        gpus=len(gpus),
        gpu_name=first.name if first else None,
        compute_capability=first.compute_capability if first else None,
        linked=nvml.linked(),
        cpus=os.cpu_count() or 1,
        ranks=len(gpus) or RANKS_ON_CPU,
    )
