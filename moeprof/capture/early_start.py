"""Profiled processes that start early: they import while variants are built, then wait for their parameters.

Until then nothing of them is on the device, so that what is timed meanwhile is timed as if they were not there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from moeprof.capture.child_processes import Child, end
from moeprof.capture.commands import ToolRun
from moeprof.capture.jobs import Job
from moeprof.machine import load
from moeprof.storage.capture_folder import Store
from moeprof.worker.spec import params_text
from moeprof.worker.start_barrier import StartBarrier

PROCESS_BYTES = 1 << 30  # of memory that a process which imported takes


@dataclass
class EarlyStart:
    """The processes that were started early, each with the run that it waits to go on with."""

    store: Store
    _waiting: dict[tuple[str, str], tuple[ToolRun, Child]] = field(default_factory=dict)

    def start(self, jobs: list[Job]) -> None:
        """Start them all, if cores and memory suffice for them beside the variants that are built meanwhile; else none."""
        left = load.available_bytes()
        if (os.cpu_count() or 1) < len(jobs) or left is None or left < PROCESS_BYTES * len(jobs):
            return
        for job in jobs:
            run = job.run.holding(self._hold(job.name, job.tool).file)
            if run is not None:
                self._waiting[job.name, job.tool] = run, Child(run.command, self.store.log(job.name, job.tool))

    def settle(self) -> None:
        """Return once all of them wait: nothing of them is on the CPU either."""
        for (name, tool), (_, child) in self._waiting.items():
            child.wait_until(self._hold(name, tool).ready)

    def take(self, job: Job) -> Child | None:
        """The process that waits for this job, which now goes on; None if there is none, it has ended, or it has another spec."""
        run, child = self._waiting.pop((job.name, job.tool), (None, None))
        if child is None:
            return None
        hold = self._hold(job.name, job.tool)
        if child.process.poll() is not None or run != job.run.holding(hold.file) or job.run.target is None:
            end(child.process)
            return None
        child.restart_clock()
        hold.open(params_text(job.run.target.params))
        return child

    def close(self) -> None:
        """End those that were not taken."""
        for _, child in self._waiting.values():
            end(child.process)
        self._waiting.clear()

    def _hold(self, name: str, tool: str) -> StartBarrier:
        return StartBarrier(self.store.scratch / f"{name}-{tool}.hold")
