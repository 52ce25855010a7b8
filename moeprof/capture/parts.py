"""From what a job left to parts of the capture: checked, redacted, named in the manifest."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from moeprof.capture import commands, postprocess, ranks, redact, validate
from moeprof.capture.child_processes import failure_in, last_line, run
from moeprof.capture.jobs import Job
from moeprof.capture.plan import Plan
from moeprof.capture.postprocess import Anchors
from moeprof.capture.profiling import Ended
from moeprof.errors import CaptureError, MoeprofError, WorkloadError
from moeprof.machine.launcher import Team
from moeprof.machine.tools import EXPORT_TIMEOUT_S
from moeprof.notes import note
from moeprof.storage.capture_folder import Store
from moeprof.storage.files import lines_of, of_rank
from moeprof.storage.manifest import Part
from moeprof.worker.clock_offset import Offset
from moeprof.worker.failures import RankError, how_it_ended


@dataclass(frozen=True)
class Parts:
    """Keeps the parts of one capture that this host has."""

    plan: Plan
    store: Store

    @property
    def host(self) -> int:
        """The number of this host."""
        return self.plan.host

    def keep(self, job: Job, ended: Ended) -> None:
        """Keep what a job left.

        Raises:
            MoeprofError: nothing could be kept, or a part of it is missing and the rest was kept.
        """
        if job.tool == "ncu":
            self._keep_counters(job, ended)
        elif self.plan.team is None:
            self._keep_trace(job, ended, job.run.iterations, {})
        else:
            self._keep_ranks(job, ended)

    def _keep_ranks(self, job: Job, ended: Ended) -> None:
        """The trace of a variant with ranks. A rank that failed is reported before whatever the tool says."""
        processes = ended.traced or ranks.traced(job.result)
        failure = None if processes else failure_in(lines_of(self._log(job)))
        if failure is not None:
            raise failure.exception()
        ranks.started(self.store, job.name, processes)
        anchors = {process.rank: process.anchors for process in processes}
        try:
            self._keep_trace(job, ended, self.plan.request.iterations, anchors)
        except MoeprofError as error:
            if isinstance(error, RankError) or not self.host:
                raise
            raise postprocess.without_trace(self._team.first(self.host), self._team, error) from error
        finally:
            if self.host:
                ranks.clocked(self.store, job.name, self.host, *ended.clocks)

    def _keep_trace(self, job: Job, ended: Ended, iterations: int | None, anchors: Anchors) -> None:
        on_this_host = tuple(rank for rank in self.store.variant(job.name).ranks if rank.host == self.host)
        log = partial(self.store.log, job.name)
        limit_s = EXPORT_TIMEOUT_S if self.plan.workload is None else self.plan.request.timeout_s
        traced = postprocess.Run(
            job.name, iterations, limit_s, log, self._team, on_this_host, anchors, self.plan.request.window
        )
        if job.tool == "nsys":
            self._keep_nsys(job, ended, traced)
        else:
            self._keep_kineto(job, ended, traced)

    def _keep_nsys(self, job: Job, ended: Ended, traced: postprocess.Run) -> None:
        """Export, redact, validate and keep an nsys report."""
        stem = f"{job.name}/trace{f'.host{self.host}' if self.host else ''}"
        report, file = job.run.produces, f"{stem}.sqlite"
        assert report is not None and self.plan.nsys is not None
        partial_file = self.store.partial(file)
        try:
            checked = postprocess.nsys(traced, self.plan.nsys, report, partial_file, ended.status, ended.last_line)
        except postprocess.ExportError:
            self._keep_raw(report, stem)
            raise
        part = self._part(job, "trace", file, traced.iterations or 0)
        self.store.keep(job.name, partial_file, _placed(part, checked.zero))
        keep_raw = self.plan.request.keep_raw
        if keep_raw:
            shutil.copyfile(report, self.store.folder / f"{stem}.nsys-rep")
        raw = "was kept as asked for (--keep-raw)" if keep_raw else "was not kept"
        self.store.note(note("redacted", file=file, raw=raw))
        if checked.lacking is not None:
            raise checked.lacking

    def _keep_raw(self, report: Path, stem: str) -> None:
        """Keep a report of a program that could not be exported, as nsys wrote it: the run may have taken hours."""
        if self.plan.workload is None:
            file = f"{stem}.nsys-rep"
            shutil.copyfile(report, self.store.folder / file)
            self.store.note(note("raw-report", file=file))

    def _keep_kineto(self, job: Job, ended: Ended, traced: postprocess.Run) -> None:
        """Redact, validate and keep a trace of torch.profiler; each rank of this host has its own."""
        source, team = job.run.produces, self._team
        assert source is not None
        first = team.first(self.host)
        if (ended.status != 0 and self.plan.workload is not None) or not of_rank(source, first).is_file():
            raise WorkloadError(
                f"the traced process ended with {how_it_ended(ended.status)}; it last printed: {ended.last_line}",
                f"read {self._log(job)}",
            )
        lacking = []
        for rank in team.of_host(self.host):
            file = f"{job.name}/trace{f'.rank{rank}' if rank else ''}.json.gz"
            partial_file = self.store.partial(file)
            try:
                checked = postprocess.kineto(traced, of_rank(source, rank), partial_file, rank)
            except CaptureError as error:
                if rank == 0:
                    raise
                lacking.append(postprocess.without_trace(rank, team, error))
                continue
            part = self._part(job, "trace", file, traced.iterations or 0, rank if team.ranks > 1 else None)
            self.store.keep(job.name, partial_file, _placed(part, checked.zero))
            if checked.lacking is not None:
                raise checked.lacking
        for missing in lacking:
            ranks.failed(self.store, job.name, missing)
        if lacking:
            raise lacking[0]

    def _keep_counters(self, job: Job, ended: Ended) -> None:
        """Validate, redact and keep ncu's table. ncu runs again without the roofline's counters if it does not know one of them."""
        counting, source = self.plan.counting, job.run.produces
        assert source is not None and counting is not None
        status, last = ended.status, ended.last_line
        refused = validate.refused_metric(source, last) if counting.roofline else ""
        if refused:
            self.store.note(note("no-flops", version=counting.ncu.version, why=refused))
            job = replace(job, run=job.run.without_roofline())
            status, last = run(job.run.command, self._log(job)), last_line(self._log(job))
        counted = validate.counters(source, status, last)
        file = f"{job.name}/counters.csv"
        partial_file = self.store.partial(file)
        redact.ncu_csv(source, partial_file)
        postprocess.no_leak(partial_file)
        self.store.keep(job.name, partial_file, self._part(job, "counters", file, 1))
        if self.plan.workload is None:
            self.store.note(note("counters-of-program", counted=counted))
        elif counted >= counting.kernels:
            self.store.note(note("counters-partial", variant=job.name, counted=counted))

    def _part(
        self, job: Job, kind: Literal["trace", "counters"], file: str, iterations: int, rank: int | None = None
    ) -> Part:
        argv = commands.shown(
            job.run.command.argv, *(f(p) for p in (self.store.scratch, self.store.folder) for f in (Path.resolve, Path))
        )
        return Part(kind, job.tool, file, argv, iterations, "", 0, rank, self.host)

    @property
    def _team(self) -> Team:
        return self.plan.team or Team((1,))

    def _log(self, job: Job) -> Path:
        return self.store.log(job.name, job.tool)


def _placed(part: Part, zero: Offset | None) -> Part:
    """A part whose zero is known by its host's clock."""
    return part if zero is None else replace(part, zero_utc_ns=zero.ns, zero_uncertainty_ns=zero.uncertainty_ns)
