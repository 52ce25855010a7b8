"""One profiled process as a job, and how such processes start early: they import while variants are built, then wait for parameters.

Until then nothing of them is on the device, so that what is timed meanwhile is timed as if they were not there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from moeprof.capture.child_processes import Child, end
from moeprof.capture.commands import ToolRun
from moeprof.machine import load
from moeprof.storage.capture_folder import Store
from moeprof.worker.spec import params_text
from moeprof.worker.start_barrier import StartBarrier

EACH_BYTES = 1 << 30  # of memory that a process which imported takes


@dataclass(frozen=True)
class Job:
    """One process of one variant, and what to do with what it leaves: ``finish(exit status, last words)``."""

    variant: str
    tool: str
    run: ToolRun
    gate: StartBarrier | None
    result: Path
    finish: Callable[[int, str], None]


@dataclass
class Early:
    """The processes that were started early, each with the run that it waits to go on with."""

    store: Store
    _held: dict[tuple[str, str], tuple[ToolRun, Child]] = field(default_factory=dict)

    def start(self, jobs: list[Job]) -> None:
        """Start them all, where cores and memory hold them beside what is built meanwhile; else none."""
        left = load.available_bytes()
        if (os.cpu_count() or 1) < len(jobs) or left is None or left < EACH_BYTES * len(jobs):
            return
        for job in jobs:
            held = job.run.holding(self._hold(job.variant, job.tool).file)
            if held is not None:
                log = self.store.log(job.variant, job.tool)
                self._held[job.variant, job.tool] = held, Child(held.command, log)

    def settle(self) -> None:
        """Return once all of them wait: nothing of them is on the CPU either."""
        for (variant, tool), (_, child) in self._held.items():
            child.wait_until(self._hold(variant, tool).ready)

    def take(self, job: Job) -> Child | None:
        """The process that waits for this job, told to go on; None where there is none, it has ended, or was to do another thing."""
        held, child = self._held.pop((job.variant, job.tool), (None, None))
        if child is None:
            return None
        hold = self._hold(job.variant, job.tool)
        if child.process.poll() is not None or held != job.run.holding(hold.file):
            end(child.process)
            return None
        child.restart_clock()
        hold.open(params_text(job.run.params))
        return child

    def close(self) -> None:
        """End those that were not taken."""
        for _, child in self._held.values():
            end(child.process)
        self._held.clear()

    def _hold(self, variant: str, tool: str) -> StartBarrier:
        return StartBarrier(self.store.scratch / f"{variant}-{tool}.hold")
