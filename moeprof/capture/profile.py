"""Traces and counters of each variant: set up side by side, measured one at a time, validated, redacted, kept."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from moeprof.blaming import how_it_ended
from moeprof.capture import plan, ranks, redact, validate
from moeprof.capture.plan import Command, Request, Target
from moeprof.capture.processes import Child, end, error_of, failure_in, last_line, run
from moeprof.capture.progress import Progress
from moeprof.capture.store import Store
from moeprof.errors import CaptureError, MoeprofError, RankError, ToolError, WorkloadError
from moeprof.files import lines_of, of_rank
from moeprof.manifest import Part
from moeprof.notes import Note, note
from moeprof.tools import Tool
from moeprof.workload import DEFAULT_COUNTED

CPUS_FOR_SIDE_BY_SIDE = 4  # with fewer, several processes that set up only slow each other down
MEMORY_SHARE = 0.8  # of the GPU's memory that processes which set up side by side may take


@dataclass(frozen=True)
class Job:
    """One process of one variant, and what to do with what it leaves: ``finish(exit status, last words)``."""

    variant: str
    tool: str
    command: Command
    gate: Path | None
    result: Path
    finish: Callable[[int, str], None]


@dataclass
class Profile:
    """The profiling phase of one capture; ``problems`` collects what failed."""

    request: Request
    store: Store
    progress: Progress
    problems: list[MoeprofError]
    bytes_each: int = 0  # GPU memory of one variant's process; 0: not known

    def run(self, jobs: list[Job]) -> None:
        """Run the jobs, as many set up side by side as the machine has cores and the GPU has memory for."""
        self.progress.phase("profile", len(jobs))
        slots = self.slots(len(jobs))
        for first in range(0, len(jobs), slots):
            self._batch(jobs[first : first + slots], slots > 1)

    def slots(self, wanted: int) -> int:
        """How many processes may set up at once; each is taken to need what one needed in the clean phase."""
        if (os.cpu_count() or 1) < CPUS_FOR_SIDE_BY_SIDE * self.store.manifest.ranks:
            return 1
        before = next(iter(self.store.manifest.environment.gpus_before), None)
        if before is None or not before.memory_bytes or not self.bytes_each:
            return wanted
        free = MEMORY_SHARE * before.memory_bytes - (before.memory_used_bytes or 0)
        return max(1, min(wanted, int(free // self.bytes_each)))

    def _batch(self, jobs: list[Job], side_by_side: bool) -> None:
        """Set up together, measure one at a time.

        A tool that still writes its report does not hold back the next job: nothing of it is on the device any more.
        """
        children: list[Child | None] = []
        try:
            for job in jobs:
                children.append(Child(job.command, self._log(job)) if side_by_side and job.gate else None)
            for child, job in zip(children, jobs, strict=True):
                if child is not None:
                    child.wait_until(Path(f"{job.gate}.ready"))
            for index, job in enumerate(jobs):
                # in the list before it is waited for, so that an interrupt ends it too
                child = children[index] = children[index] or Child(job.command, self._log(job))
                self._measure(job, child)
                if not side_by_side:
                    self._kept(job, child)
            for child, job in zip(children, jobs, strict=True):
                if side_by_side:
                    self._kept(job, child)
        finally:
            for child in children:
                if child is not None:
                    end(child.process)

    def _log(self, job: Job) -> Path:
        return self.store.log(job.variant, job.tool)

    def _measure(self, job: Job, child: Child) -> None:
        """Let one job measure: it is over when it says so, its result is there or its process has ended."""
        child.restart_clock()
        if job.gate is not None:
            job.gate.touch()
            child.wait_until(job.result, Path(f"{job.gate}.over"))

    def _kept(self, job: Job, child: Child | None) -> None:
        """Keep what one job leaves; a failure is noted and the others go on."""
        assert child is not None
        try:
            job.finish(child.wait(), child.last_words())
            self.progress.step(f"{job.variant} {job.tool}")
        except MoeprofError as error:
            ranks.failed(self.store, job.variant, error)
            self.problems.append(type(error)(f"{job.variant}: {error.message}", error.hint))
            self.store.note(_missing(job, error))
            self.progress.step(f"{job.variant} {job.tool} failed")

    def trace_job(self, target: Target, tool: Tool | None) -> Job:
        """A trace by nsys, or by torch.profiler where ``tool`` is None."""
        name, scratch = target.variant, self.store.scratch
        gate, words = self._gate(name, "trace")
        result = scratch / f"{name}-trace.json"
        iterations = self.request.iterations
        words += target.watched(self.request, self.store.log(name, "torch" if tool is None else "nsys"))
        if tool is None:
            out = scratch / f"{name}-kineto.json"
            command = plan.torch_trace(self.request, target, result, out, words)
            return self._ranked(
                Job(name, "torch", command, gate, result, partial(self.keep_kineto, name, command, iterations)), target
            )
        report = scratch / f"{name}.nsys-rep"
        command = plan.nsys_trace(self.request, tool, target, result, report, words)
        keep = partial(self.keep_nsys, name, tool, command, iterations)
        return self._ranked(Job(name, "nsys", command, gate, result, keep), target)

    def _ranked(self, job: Job, target: Target) -> Job:
        """Of a variant with ranks: a rank that failed is told before whatever the tool says of it."""
        if target.ranks is None:
            return job

        def finish(status: int, said: str) -> None:
            about = ranks.traced(job.result)
            failure = None if about else failure_in(lines_of(self._log(job)))
            if failure is not None:
                raise error_of(failure)
            ranks.started(self.store, job.variant, about)
            job.finish(status, said)

        return replace(job, finish=finish)

    def count_job(self, target: Target, tool: Tool) -> Job:
        """Counters by ncu."""
        name, scratch = target.variant, self.store.scratch
        gate, words = self._gate(name, "count")
        result = scratch / f"{name}-count.json"
        command = plan.ncu_count(self.request, tool, target, result, scratch / f"{name}.csv", words)
        return Job(name, "ncu", command, gate, result, partial(self.keep_counters, name, command))

    def _gate(self, variant: str, kind: str) -> tuple[Path, tuple[str, ...]]:
        gate = self.store.scratch / f"{variant}-{kind}.gate"
        return gate, ("--gate", str(gate))

    def keep_nsys(
        self, name: str, tool: Tool, command: Command, iterations: int | None, status: int, said: str
    ) -> None:
        """Export, redact, validate and keep an nsys report."""
        report = command.produces
        assert report is not None
        if status < 0:
            raise WorkloadError(f"nsys was {how_it_ended(status)}", f"read {self.store.log(name, 'nsys')}")
        validate.report_exists(report, status, said)
        export = report.with_suffix(".sqlite")
        exported = run(plan.nsys_export(self.request, tool, report, export), self.store.log(name, "export"))
        if exported != 0 or not export.is_file():
            raise CaptureError(
                f"nsys export failed ({how_it_ended(exported)})", f"read {self.store.log(name, 'export')}"
            )
        kept = self.store.partial(f"{name}/trace.sqlite")
        lacking = validate.ranks(export, iterations, self.store.variant(name).ranks)
        redact.nsys_export(export, kept, os.environ)
        self._keep(name, kept, Part("trace", "nsys", f"{name}/trace.sqlite", command.argv, iterations or 0, "", 0))
        if self.request.keep_raw:
            shutil.copyfile(report, self.store.folder / name / "trace.nsys-rep")
        raw = "was kept as asked for (--keep-raw)" if self.request.keep_raw else "was not kept"
        self.store.note(note("redacted", file=f"{name}/trace.sqlite", raw=raw))
        if lacking is not None:
            raise lacking
        if status != 0:
            raise WorkloadError(
                f"the program ended with {how_it_ended(status)} under nsys; it last said: {said}", "its trace was kept"
            )

    def keep_kineto(self, name: str, command: Command, iterations: int | None, status: int, said: str) -> None:
        """Redact, validate and keep a trace of torch.profiler."""
        source = command.produces
        assert source is not None
        if status != 0 or not source.is_file():
            raise WorkloadError(
                f"the traced process ended with {how_it_ended(status)}; it last said: {said}",
                f"read {self.store.log(name, 'torch')}",
            )
        several = self.store.manifest.ranks > 1
        lacking = []
        for rank in range(self.store.manifest.ranks):
            part = Part(
                "trace", "torch", f"{name}/trace{f'.rank{rank}' if rank else ''}.json.gz", command.argv, iterations or 0,
                "", 0, rank if several else None,
            )  # fmt: skip
            try:
                self._keep_one(name, of_rank(source, rank), part)
            except CaptureError as error:
                if rank == 0:
                    raise
                lacking.append(
                    RankError(
                        f"rank {rank} of {self.store.manifest.ranks} ended without a trace: {error.message}",
                        error.hint,
                        rank,
                    )
                )
        for one in lacking:
            ranks.failed(self.store, name, one)
        if lacking:
            raise lacking[0]

    def _keep_one(self, name: str, source: Path, part: Part) -> None:
        """Redact, validate and keep one file of torch.profiler.

        Raises:
            CaptureError: it is not there or not whole.
        """
        if not source.is_file():
            raise CaptureError(f"it left no {source.name}", f"read the logs of {name}")
        kept = self.store.partial(part.file)
        try:
            redact.kineto_json(source, kept)
        except (ValueError, MoeprofError) as error:
            raise CaptureError(f"{source.name} is not whole ({error})", "capture again") from error
        validate.trace(kept, part.iterations or None)
        self._keep(name, kept, part)

    def _keep(self, name: str, kept: Path, part: Part) -> None:
        self._no_leak(kept)
        self.store.keep(name, kept, replace(part, argv=self._shown(part.argv)))

    def keep_counters(self, name: str, command: Command, status: int, said: str) -> None:
        """Validate, redact and keep ncu's table."""
        source = command.produces
        assert source is not None
        why = validate.refused_metric(source, said) if self.request.roofline else ""
        if why:
            self.store.note(note("no-flops", version=self.store.manifest.environment.ncu, why=why))
            command, log = plan.without_roofline(self.request, command), self.store.log(name, "ncu")
            status, said = run(command, log), last_line(log)
        counted = validate.counters(source, status, said)
        kept = self.store.partial(f"{name}/counters.csv")
        redact.ncu_csv(source, kept)
        self._keep(name, kept, Part("counters", "ncu", f"{name}/counters.csv", command.argv, 1, "", 0))
        if counted >= (self.request.ncu_kernels or DEFAULT_COUNTED):
            self.store.note(note("counters-partial", variant=name, counted=counted))

    def _shown(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """The command without this machine's paths: tools by their name, scratch files by theirs."""
        scratch, folder = f"{self.store.scratch}{os.sep}", f"{self.store.folder}{os.sep}"
        short = [word.replace(scratch, "").replace(folder, "") for word in argv]
        return tuple(Path(word).name if word in (argv[0], sys.executable) else word for word in short)

    def _no_leak(self, kept: Path) -> None:
        """A secret in a file that is to be kept stops it."""
        if redact.leaks(kept, redact.secrets(os.environ)):
            kept.unlink()
            raise ToolError(
                f"{kept.name} would hold the value of a secret variable", "report this as a bug; nothing was kept"
            )


def _missing(job: Job, error: MoeprofError) -> Note:
    if job.tool == "ncu":
        return note("no-ncu", why=f"{job.variant}: {error.message}")
    return note("no-trace", variant=job.variant, why=error.message)
