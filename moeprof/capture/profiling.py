"""The profiling phase: processes set up side by side, measure one at a time, and what each leaves is kept meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from moeprof.capture import ranks
from moeprof.capture.child_processes import Child, end
from moeprof.capture.early_start import EarlyStart
from moeprof.capture.hosts import Decision, Hosts
from moeprof.capture.jobs import Job
from moeprof.capture.progress import Progress
from moeprof.errors import MoeprofError
from moeprof.notes import Note, note
from moeprof.storage.capture_folder import Store
from moeprof.worker.clock_offset import Offset
from moeprof.worker.failures import RankError
from moeprof.worker.messages import Measured

CPUS_FOR_SIDE_BY_SIDE = 4  # with fewer, several processes that set up only slow each other down
MEMORY_SHARE = 0.8  # of the GPU's memory that processes which set up side by side may take


@dataclass(frozen=True)
class Ended:
    """How a job's process ended: its exit status (negative: a signal) and its last line. Of several hosts also the processes that
    ran, and this host's clock before and after."""

    status: int
    last_line: str
    traced: tuple[Measured, ...] = ()
    clocks: tuple[Offset | None, ...] = (None, None)


@dataclass
class Profiling:
    """The jobs of one capture. ``keep`` makes parts of what a job left; ``problems`` collects what failed."""

    store: Store
    progress: Progress
    problems: list[MoeprofError]
    keep: Callable[[Job, Ended], None]
    hosts: Hosts | None = None  # all of them, where there are several
    local_ranks: int = 1
    process_bytes: int = 0  # GPU memory of one variant's process; 0: not known
    early: EarlyStart = field(init=False)
    _clocks: dict[Path, tuple[Offset | None, ...]] = field(default_factory=dict)  # of several hosts, by a job's result

    def __post_init__(self) -> None:
        self.early = EarlyStart(self.store)

    def run(self, jobs: list[Job]) -> None:
        """Run the jobs, as many set up side by side as the machine has cores and the GPU has memory for."""
        self.progress.phase("profile", len(jobs))
        slots = self.slots(len(jobs))
        slots = slots if self.hosts is None else self.hosts.decide(Decision(slots=slots)).slots
        for first in range(0, len(jobs), slots):
            self._batch(jobs[first : first + slots], slots > 1)

    def slots(self, wanted: int) -> int:
        """How many processes may set up at once; each is taken to need what one needed in the clean phase."""
        if (os.cpu_count() or 1) < CPUS_FOR_SIDE_BY_SIDE * self.local_ranks:
            return 1
        before = next(iter(self.store.manifest.environment.gpus_before), None)
        if before is None or not before.memory_bytes or not self.process_bytes:
            return wanted
        free = MEMORY_SHARE * before.memory_bytes - (before.memory_used_bytes or 0)
        return max(1, min(wanted, int(free // self.process_bytes)))

    def _batch(self, jobs: list[Job], side_by_side: bool) -> None:
        """Set up together, measure one at a time.

        A tool that still writes its report does not hold back the next job: nothing of it is on the device any more. What was traced
        is kept while ncu counts, which no work of the host disturbs.
        """
        children: list[Child | None] = []
        measured: list[tuple[Child, Job]] = []  # and not kept yet
        try:
            for job in jobs:
                children.append(self._start(job) if side_by_side and job.gate else None)
            for child, job in zip(children, jobs, strict=True):
                if child is not None and job.gate is not None and self._leads:
                    child.wait_until(job.gate.ready)
            for index, job in enumerate(jobs):
                # in the list before it is waited for, so that an interrupt ends it too
                child = children[index] = children[index] or self._start(job)
                self._open(job, child)
                if job.tool == "ncu":
                    self._keep_all(measured)
                self._wait_measured(job, child)
                measured.append((child, job))
                if not side_by_side:
                    self._keep_all(measured)
            self._keep_all(measured)
        finally:
            for child in children:
                if child is not None:
                    end(child.process)

    def _start(self, job: Job) -> Child:
        """A job's process."""
        self._measure_clock(job)
        log = self.store.log(job.name, job.tool)
        child = self.early.take(job) or Child(job.run.command, log)
        if self.hosts:
            self.hosts.started(child.process, log, job.result)
        return child

    def _measure_clock(self, job: Job) -> None:
        if self.hosts:
            self._clocks[job.result] = (*self._clocks.get(job.result, ()), self.hosts.measure_clock())

    @property
    def _leads(self) -> bool:
        """Whether this is rank 0's host: the others follow by its decisions."""
        return self.hosts is None or not self.hosts.place.host

    def _open(self, job: Job, child: Child) -> None:
        """Let one job measure."""
        child.restart_clock()
        if job.gate is not None:
            job.gate.open()

    def _wait_measured(self, job: Job, child: Child) -> None:
        """Return once it has left the device: it says so, its result is there or its process has ended."""
        if job.gate is not None and self._leads:
            child.wait_until(job.result, job.gate.over)
        self._measure_clock(job)

    def _keep_all(self, measured: list[tuple[Child, Job]]) -> None:
        """Keep what each left, and forget them."""
        while measured:
            self._keep(*measured.pop(0))

    def _keep(self, child: Child, job: Job) -> None:
        """Keep what one job left; a failure is noted and the others go on."""
        traced: tuple[Measured, ...] = ()
        if self.hosts:
            if self._leads:
                child.wait_until(job.result)
            traced = self.hosts.decide(Decision(traced=ranks.traced(job.result))).traced
            if not traced and not self._leads:  # it failed, as rank 0's host reports
                return
        try:
            self.keep(job, Ended(child.wait(), child.last_words(), traced, self._clocks.get(job.result, (None, None))))
            self.progress.step(f"{job.name} {job.tool}")
        except MoeprofError as error:
            ranks.failed(self.store, job.name, error)
            self.problems.append(_of_variant(job.name, error))
            self.store.note(missing(job, error))
            self.progress.step(f"{job.name} {job.tool} failed")


def _of_variant(variant: str, error: MoeprofError) -> MoeprofError:
    """The same error, whose message begins with the variant."""
    if isinstance(error, RankError):
        return RankError(error.failure, f"{variant}: ")
    return type(error)(f"{variant}: {error.message}", error.hint)


def missing(job: Job, error: MoeprofError) -> Note:
    """The note on a part that a job did not leave."""
    if job.tool == "ncu":
        return note("no-ncu", why=f"{job.name}: {error.message}")
    return note("no-trace", variant=job.name, why=error.message)
