"""Traces and counters of each variant: set up side by side, measured one at a time, validated, redacted, kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from moeprof.capture import commands, postprocess, ranks, redact, validate
from moeprof.capture.child_processes import Child, end, failure_in, last_line, run
from moeprof.capture.commands import Files, Request, ToolRun
from moeprof.capture.hosts import Hosts
from moeprof.capture.jobs import Early, Job
from moeprof.capture.progress import Progress
from moeprof.errors import CaptureError, MoeprofError, WorkloadError
from moeprof.machine.command import Command
from moeprof.machine.launcher import Team
from moeprof.machine.tools import Tool
from moeprof.notes import Note, note
from moeprof.storage.capture_folder import Store
from moeprof.storage.files import lines_of, of_rank
from moeprof.storage.manifest import Part
from moeprof.worker.clock_offset import Offset
from moeprof.worker.failures import RankError, how_it_ended
from moeprof.worker.messages import Measured
from moeprof.worker.spec import Target
from moeprof.worker.start_barrier import StartBarrier
from moeprof.workload.model import DEFAULT_COUNTED

CPUS_FOR_SIDE_BY_SIDE = 4  # with fewer, several processes that set up only slow each other down
MEMORY_SHARE = 0.8  # of the GPU's memory that processes which set up side by side may take


@dataclass
class Profile:
    """The profiling phase of one capture; ``problems`` collects what failed."""

    request: Request
    store: Store
    progress: Progress
    problems: list[MoeprofError]
    bytes_each: int = 0  # GPU memory of one variant's process; 0: not known
    team: Team = field(default_factory=lambda: Team((1,)))
    hosts: Hosts | None = None  # the others, where rank 0's capture leads several
    host: int = 0
    early: Early = field(init=False)
    _after: dict[str, int] = field(default_factory=dict)  # by room: the measurement of clocks once the run was measured
    _anchors: dict[str, postprocess.Anchors] = field(default_factory=dict)  # by variant

    def __post_init__(self) -> None:
        self.early = Early(self.store)

    def run(self, jobs: list[Job]) -> None:
        """Run the jobs, as many set up side by side as the machine has cores and the GPU has memory for."""
        self.progress.phase("profile", len(jobs))
        slots = self.slots(len(jobs))
        for first in range(0, len(jobs), slots):
            self._batch(jobs[first : first + slots], slots > 1)

    def slots(self, wanted: int) -> int:
        """How many processes may set up at once; each is taken to need what one needed in the clean phase."""
        if (os.cpu_count() or 1) < CPUS_FOR_SIDE_BY_SIDE * self.team.layout[self.host]:
            return 1
        before = next(iter(self.store.manifest.environment.gpus_before), None)
        if before is None or not before.memory_bytes or not self.bytes_each:
            return wanted
        free = MEMORY_SHARE * before.memory_bytes - (before.memory_used_bytes or 0)
        return max(1, min(wanted, int(free // self.bytes_each)))

    def _batch(self, jobs: list[Job], side_by_side: bool) -> None:
        """Set up together, measure one at a time.

        A tool that still writes its report does not hold back the next job: nothing of it is on the device any more. What was traced
        is kept while ncu counts, which no work of the host disturbs.
        """
        children: list[Child | None] = []
        waiting: list[tuple[Child, Job]] = []  # measured and not kept
        try:
            for job in jobs:
                children.append(self._started(job) if side_by_side and job.gate else None)
            for child, job in zip(children, jobs, strict=True):
                if child is not None and job.gate is not None:
                    child.wait_until(job.gate.ready)
            for index, job in enumerate(jobs):
                # in the list before it is waited for, so that an interrupt ends it too
                child = children[index] = children[index] or self._started(job)
                self._begin(job, child)
                if job.tool == "ncu":
                    self._keep_all(waiting)
                self._measured(job, child)
                waiting.append((child, job))
                if not side_by_side:
                    self._keep_all(waiting)
            self._keep_all(waiting)
        finally:
            for child in children:
                if child is not None:
                    end(child.process)

    def _log(self, job: Job) -> Path:
        return self.store.log(job.variant, job.tool)

    def _started(self, job: Job) -> Child:
        """A job's process, and beside it that of every other host."""
        clock = self.hosts.measure_clocks() if self.hosts else 0
        child = self.early.take(job) or Child(job.run.command, self._log(job))
        if self.hosts:
            self.hosts.start(child.process, self._log(job).stem, job.result, clock)
        return child

    def _begin(self, job: Job, child: Child) -> None:
        """Let one job measure."""
        child.restart_clock()
        if job.gate is not None:
            job.gate.open()

    def _measured(self, job: Job, child: Child) -> None:
        """Return once it is over: it says so, its result is there or its process has ended."""
        if job.gate is not None:
            child.wait_until(job.result, job.gate.over)
        if self.hosts:
            self._after[self._log(job).stem] = self.hosts.measure_clocks()

    def _keep_all(self, waiting: list[tuple[Child, Job]]) -> None:
        """Keep what each left, and forget them."""
        while waiting:
            self._kept(*waiting.pop(0))

    def _kept(self, child: Child, job: Job) -> None:
        """Keep what one job leaves; a failure is noted and the others go on."""
        try:
            job.finish(child.wait(), child.last_words())
            self.progress.step(f"{job.variant} {job.tool}")
        except MoeprofError as error:
            ranks.failed(self.store, job.variant, error)
            self.problems.append(of_variant(job.variant, error))
            self.store.note(_missing(job, error))
            self.progress.step(f"{job.variant} {job.tool} failed")

    def trace_job(self, target: Target, tool: Tool | None) -> Job:
        """A trace by nsys, or by torch.profiler where ``tool`` is None."""
        name, scratch = target.variant, self.store.scratch
        gate, result = self._gate(name, "trace"), scratch / f"{name}-trace.json"
        iterations = self.request.iterations
        if tool is None:
            files = Files(scratch / f"{name}-kineto.json", result, gate.file)
            run_ = commands.torch_trace(self.request, target, self.store.log(name, "torch"), files)
            return self._ranked(
                Job(name, "torch", run_, gate, result, partial(self.keep_kineto, name, run_.command, iterations)),
                target,
            )
        files = Files(scratch / f"{name}.nsys-rep", result, gate.file)
        run_ = commands.nsys_trace(self.request, tool, target, self.store.log(name, "nsys"), files)
        keep = partial(self.keep_nsys, name, tool, run_.command, iterations)
        return self._ranked(Job(name, "nsys", run_, gate, result, keep), target)

    def _ranked(self, job: Job, target: Target) -> Job:
        """Of a variant with ranks: a rank that failed is told before whatever the tool says of it."""
        if target.team is None:
            return job

        def finish(status: int, said: str) -> None:
            processes = ranks.traced(job.result)
            failure = None if processes else failure_in(lines_of(self._log(job)))
            if failure is not None:
                raise failure.exception()
            if self.hosts and processes:
                room = self._log(job).stem
                self.hosts.keep(room, self._after[room], processes)
            self.ran(job.variant, processes)
            job.finish(status, said)

        return replace(job, finish=finish)

    def ran(self, variant: str, processes: Sequence[Measured]) -> None:
        """These processes ran a variant under the profiler."""
        ranks.started(self.store, variant, processes)
        self._anchors[variant] = {process.rank: process.anchors for process in processes}

    def count_job(self, target: Target, tool: Tool) -> Job:
        """Counters by ncu."""
        name, scratch = target.variant, self.store.scratch
        gate, result = self._gate(name, "count"), scratch / f"{name}-count.json"
        files = Files(scratch / f"{name}.csv", result, gate.file)
        run_ = commands.ncu_count(self.request, tool, target, self.store.log(name, "ncu"), files)
        return Job(name, "ncu", run_, gate, result, partial(self.keep_counters, name, run_))

    def _gate(self, variant: str, kind: str) -> StartBarrier:
        return StartBarrier(self.store.scratch / f"{variant}-{kind}.gate")

    def keep_nsys(
        self, name: str, tool: Tool, command: Command, iterations: int | None, status: int, said: str
    ) -> None:
        """Export, redact, validate and keep an nsys report."""
        stem = f"{name}/trace{f'.host{self.host}' if self.host else ''}"
        report, file = command.produces, f"{stem}.sqlite"
        assert report is not None
        kept = self.store.partial(file)
        found = postprocess.nsys(self._run(name, iterations), tool, report, kept, status, said)
        self._keep(
            name,
            kept,
            _placed(Part("trace", "nsys", file, command.argv, iterations or 0, "", 0, host=self.host), found.zero),
        )
        if self.request.keep_raw:
            shutil.copyfile(report, self.store.folder / f"{stem}.nsys-rep")
        raw = "was kept as asked for (--keep-raw)" if self.request.keep_raw else "was not kept"
        self.store.note(note("redacted", file=file, raw=raw))
        if found.lacking is not None:
            raise found.lacking
        if status != 0:
            raise WorkloadError(
                f"the program ended with {how_it_ended(status)} under nsys; it last said: {said}", "its trace was kept"
            )

    def keep_kineto(self, name: str, command: Command, iterations: int | None, status: int, said: str) -> None:
        """Redact, validate and keep a trace of torch.profiler, of each rank of this host one."""
        source, team = command.produces, self.team
        assert source is not None
        first = team.first(self.host)
        if status != 0 or not of_rank(source, first).is_file():
            raise WorkloadError(
                f"the traced process ended with {how_it_ended(status)}; it last said: {said}",
                f"read {self.store.log(name, 'torch')}",
            )
        run_ = self._run(name, iterations)
        lacking = []
        for rank in team.of_host(self.host):
            file = f"{name}/trace{f'.rank{rank}' if rank else ''}.json.gz"
            kept = self.store.partial(file)
            try:
                found = postprocess.kineto(run_, of_rank(source, rank), kept, rank)
            except CaptureError as error:
                if rank == first == 0:
                    raise
                lacking.append(postprocess.without_trace(rank, team, error))
                continue
            own = rank if team.ranks > 1 else None
            part = Part("trace", "torch", file, command.argv, iterations or 0, "", 0, own, self.host)
            self._keep(name, kept, _placed(part, found.zero))
        for one in lacking:
            ranks.failed(self.store, name, one)
        if lacking:
            raise lacking[0]

    def _run(self, name: str, iterations: int | None) -> postprocess.Run:
        """The traced run of a variant on this host."""
        here = tuple(rank for rank in self.store.variant(name).ranks if rank.host == self.host)
        anchors = self._anchors.get(name, {})
        return postprocess.Run(self.request, name, iterations, partial(self.store.log, name), self.team, here, anchors)

    def _keep(self, name: str, kept: Path, part: Part) -> None:
        self.store.keep(
            name, kept, replace(part, argv=commands.shown(part.argv, self.store.scratch, self.store.folder))
        )

    def keep_counters(self, name: str, run_: ToolRun, status: int, said: str) -> None:
        """Validate, redact and keep ncu's table."""
        source = run_.produces
        assert source is not None
        why = validate.refused_metric(source, said) if self.request.roofline else ""
        if why:
            self.store.note(note("no-flops", version=self.store.manifest.environment.ncu, why=why))
            run_, log = run_.without_roofline(), self.store.log(name, "ncu")
            status, said = run(run_.command, log), last_line(log)
        counted = validate.counters(source, status, said)
        kept = self.store.partial(f"{name}/counters.csv")
        redact.ncu_csv(source, kept)
        postprocess.no_leak(kept)
        self._keep(name, kept, Part("counters", "ncu", f"{name}/counters.csv", run_.command.argv, 1, "", 0))
        if counted >= (self.request.ncu_kernels or DEFAULT_COUNTED):
            self.store.note(note("counters-partial", variant=name, counted=counted))


def of_variant(variant: str, error: MoeprofError) -> MoeprofError:
    """The same error, whose message begins with the variant."""
    if isinstance(error, RankError):
        return RankError(error.failure, f"{variant}: ")
    return type(error)(f"{variant}: {error.message}", error.hint)


def _placed(part: Part, zero: Offset | None) -> Part:
    """A part whose zero is known by its host's clock."""
    return part if zero is None else replace(part, zero_utc_ns=zero.ns, zero_uncertainty_ns=zero.uncertainty_ns)


def _missing(job: Job, error: MoeprofError) -> Note:
    if job.tool == "ncu":
        return note("no-ncu", why=f"{job.variant}: {error.message}")
    return note("no-trace", variant=job.variant, why=error.message)
