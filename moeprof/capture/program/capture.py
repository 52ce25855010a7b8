"""The capture of a program: one run that traces it, then, if ncu counts, one more that counts its most expensive kernels."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from moeprof.capture import jobs
from moeprof.capture.child_processes import last_line
from moeprof.capture.commands import Launches, Nsys
from moeprof.capture.jobs import Job
from moeprof.capture.parts import Parts
from moeprof.capture.plan import PROGRAM, Plan
from moeprof.capture.profiling import Ended, missing
from moeprof.capture.program import live
from moeprof.capture.program.controls import NsysControl, TorchControl
from moeprof.capture.program.hot_kernels import choose
from moeprof.capture.program.interrupts import Interrupts
from moeprof.capture.program.output import STDERR, Output
from moeprof.capture.program.process import Outcome, ProgramProcess, Run
from moeprof.capture.program.window import Window
from moeprof.capture.progress import Progress
from moeprof.errors import CaptureError, MoeprofError, ToolError, UsageError, WorkloadError
from moeprof.machine import nvml
from moeprof.notes import note
from moeprof.storage.capture_folder import Store
from moeprof.storage.files import lines_of
from moeprof.worker.failures import how_it_ended

UNKNOWN_OPTION = re.compile(r"(?i)unrecogni[sz]ed|unknown option|illegal|invalid (value|argument|option)|ambiguous")
LIVE_TERMINAL_S, LIVE_LINES_S = 1.0, 10.0  # between two readings: on a terminal, and in a pipe or log
SIGNALLED = 128  # a shell's exit status of a process that a signal ended, less the signal


@dataclass
class ProgramCapture:
    """The runs of one program. ``problems`` collects what failed."""

    plan: Plan
    store: Store
    parts: Parts
    progress: Progress
    problems: list[MoeprofError]
    _traced: bool = field(init=False, default=False)  # what the first run recorded was looked at, kept or not

    def run(self) -> None:
        """Trace, then count."""
        self._check()
        counts = self.plan.counting is not None
        self.progress.phase(f"run {self.plan.name}", 1 + counts)
        with Interrupts() as interrupts:
            if self.plan.tracer != "none":
                self._trace(interrupts)
            if counts and not interrupts.received:
                self._count(interrupts)
        if self.problems:
            self.store.record(PROGRAM, status="failed", reason=self.problems[0].message)
        else:
            self.store.record(PROGRAM, status="ok")

    def _check(self) -> None:
        """There is a program, and something to do.

        Raises:
            UsageError: there is not.
        """
        if self.plan.tracer == "none" and self.plan.counting is None:
            raise UsageError("--tools none leaves nothing to record of a program", "give nsys, torch or ncu")
        word = self.plan.request.program[0]
        if shutil.which(word) is None and not (word.endswith(".py") and Path(word).is_file()):
            raise UsageError(f"there is no program {word!r}", "give its path, or a command that is on PATH")

    def _trace(self, interrupts: Interrupts) -> None:
        job = jobs.trace_of_program(self.plan, self.store)
        limits = self.plan.request.window
        limits_text = f", {limits}" if limits != Window() else ""
        self.progress.step(f"{job.tool} records {' '.join(self.plan.request.program)}{limits_text}")
        outcome = self._run(job, limits, interrupts, lambda: self._keep(job, None))
        self._describe(outcome)
        if outcome.recorded_s is None:
            self._failed(job, _too_short(outcome, limits))
        elif not self._traced:
            self._keep(job, outcome)
        self._judge(job, outcome)

    def _count(self, interrupts: Interrupts) -> None:
        assert self.plan.counting is not None
        launches = self._launches()
        job = jobs.count_of_program(self.plan, self.store, launches)
        what = "its first kernels" if launches is None else ", ".join(launches.names)
        self.progress.step(f"the program runs once more: ncu counts {what}")
        if self._traced:
            self.store.note(note("two-runs"))
        outcome = self._run(job, Window(), interrupts, lambda: None)
        self._kept(job, Ended(outcome.status, self._last_words(job)))

    def _launches(self) -> Launches | None:
        """The launches to count, from the trace; None without one."""
        assert self.plan.counting is not None
        part = self.store.variant(PROGRAM).part("trace")
        if part is None:
            return None
        return choose(self.store.folder / part.file, self.plan.counting.kernels)

    def _run(self, job: Job, window: Window, interrupts: Interrupts, recorded: Callable[[], None]) -> Outcome:
        """One run of the program under a tool, its output passed through."""
        request, log = self.plan.request, self.store.log(PROGRAM, job.tool)
        words = job.run.process
        assert isinstance(words, tuple)
        tool = job.run.tool.words if job.run.tool else ()
        run = Run(tool, words, window, request.limit_s, log)
        with Output(self._log(job, "out"), self._log(job, "err"), request.stdout_to) as output:
            process = ProgramProcess(run, output, interrupts, self._control(job, log), _teller(output, self.progress))
            watch = _Watch(output, self.progress, process, job)
            try:
                return process.wait(watch.look, recorded)
            finally:
                process.close()

    def _control(self, job: Job, log: Path) -> NsysControl | TorchControl | None:
        tool, report = job.run.tool, job.run.produces
        assert report is not None
        if isinstance(tool, Nsys) and tool.session is not None and self.plan.nsys is not None:
            return NsysControl(self.plan.nsys, tool.session.name, report, log)
        return TorchControl(report) if tool is None else None

    def _keep(self, job: Job, outcome: Outcome | None) -> None:
        """Keep the trace; ``outcome`` is None while the program still runs."""
        self._traced = True
        unknown = self._unknown_option(job)
        if unknown is not None:
            self._failed(job, unknown)
            return
        self._kept(job, Ended(0 if outcome is None else outcome.status, self._last_words(job)))

    def _unknown_option(self, job: Job) -> ToolError | None:
        """An option that nsys refused, by which it ends before it starts anything."""
        log, nsys = self.store.log(PROGRAM, job.tool), self.plan.nsys
        line = next((line for line in lines_of(log) if UNKNOWN_OPTION.search(line)), None) if nsys else None
        if line is None or nsys is None or (job.run.produces is not None and job.run.produces.is_file()):
            return None
        return ToolError(f"nsys {nsys.version} refused its options: {line.strip()[:200]}", "see: nsys profile --help")

    def _kept(self, job: Job, ended: Ended) -> None:
        try:
            self.parts.keep(job, ended)
            self.progress.step(f"{job.tool}: kept")
        except MoeprofError as error:
            self._failed(job, error)

    def _failed(self, job: Job, error: MoeprofError) -> None:
        self.problems.append(error)
        self.store.note(missing(job, error))
        self.progress.step(f"{job.tool} failed")

    def _describe(self, outcome: Outcome) -> None:
        """Notes on what was recorded."""
        window = self.plan.request.window
        if window != Window():
            self.store.note(note("recording-window", window=str(window)))
        if outcome.partial and outcome.recorded_s is not None:
            by = outcome.signal_name if outcome.why == "interrupted" else "the time limit"
            self.store.note(note("recording-partial", by=by, seconds=outcome.recorded_s))

    def _judge(self, job: Job, outcome: Outcome) -> None:
        """A program that failed by itself, or ran past its limit, is a problem; its trace was kept."""
        hint = "its trace was kept" if self.store.variant(PROGRAM).part("trace") else "read the logs"
        if outcome.why == "time limit":
            self.problems.append(
                WorkloadError(f"the program ran past its time limit of {self.plan.request.limit_s} s", hint)
            )
        elif not outcome.why and outcome.status > 0 and not self._refused(job):
            words = self._last_words(job)
            self.problems.insert(
                0,
                WorkloadError(f"the program ended with {status_text(outcome.status)}; it last printed: {words}", hint),
            )

    def _refused(self, job: Job) -> bool:
        """Whether the tool did not start the program at all."""
        return self._unknown_option(job) is not None

    def _log(self, job: Job, stream: str) -> Path:
        return self.store.log(PROGRAM, f"{job.tool}.{stream}")

    def _last_words(self, job: Job) -> str:
        """The last line that the program printed, else the tool."""
        logs = (self._log(job, "err"), self._log(job, "out"), self.store.log(PROGRAM, job.tool))
        return next((last_line(log) for log in logs if log.is_file() and log.read_bytes().strip()), "nothing")


def _teller(output: Output, progress: Progress) -> Callable[[str], None]:
    """Prints a line of ours where the status line was."""

    def tell(text: str) -> None:
        output.status("")
        progress.live(text)

    return tell


@dataclass
class _Watch:
    """Shows from time to time what the program does."""

    output: Output
    progress: Progress
    process: ProgramProcess
    job: Job
    _last: float = field(init=False, default_factory=time.monotonic)

    def look(self, elapsed_s: float) -> None:
        """Show a reading if it is time."""
        terminal = os.isatty(STDERR)
        if time.monotonic() - self._last < (LIVE_TERMINAL_S if terminal else LIVE_LINES_S):
            return
        self._last = time.monotonic()
        recorded = live.recorded_bytes(self.job.run.produces)
        reading = live.Reading(elapsed_s, nvml.activity(), recorded, self.process.state)
        if terminal:
            self.output.status(str(reading))
        else:
            self.progress.live(str(reading))


def _too_short(outcome: Outcome, window: Window) -> CaptureError:
    """Nothing was recorded."""
    return CaptureError(
        f"the program ended after {outcome.seconds:.1f} s, before recording began (--start-after {window.start_after_s:g})",
        "give a smaller --start-after",
    )


def status_text(status: int) -> str:
    """``exit status 3``; of a process that a signal ended its name as well, as a shell's status tells it."""
    if status > SIGNALLED:
        with contextlib.suppress(ValueError):
            return f"exit status {status}, {how_it_ended(SIGNALLED - status)}"
    return how_it_ended(status)


def planned(plan: Plan, store: Store) -> Iterator[tuple[str, Job]]:
    """The runs that a capture of this program consists of, with what each does; launches to count are known after the trace."""
    if plan.tracer != "none":
        job = jobs.trace_of_program(plan, store)
        yield f"{PROGRAM}: {job.tool}", job
    if plan.counting is not None:
        after = ", launches chosen from the trace" if plan.tracer != "none" else ""
        yield f"{PROGRAM}: ncu{after}", jobs.count_of_program(plan, store, None)
