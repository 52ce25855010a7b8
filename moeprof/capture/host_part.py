"""A further host's part of a capture: the capture of its first rank follows rank 0's decisions, and keeps what its ranks leave.

What a run starts is what this host's own command line says. The part is a capture folder of its own, ``NAME.host1``, whose traces
are validated and redacted here; ``join`` makes one capture of all parts.
"""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from moeprof.capture import commands, ranks
from moeprof.capture.child_processes import Child, end
from moeprof.capture.hosts import Decision, PartReport, VariantFailure
from moeprof.capture.jobs import Job
from moeprof.capture.parts import Parts
from moeprof.capture.plan import Plan
from moeprof.capture.profiling import Ended
from moeprof.errors import CaptureError, MoeprofError, UsageError, WorkloadError
from moeprof.machine.launcher import Team
from moeprof.notes import note
from moeprof.storage.files import of_rank
from moeprof.storage.json import decode, encode
from moeprof.worker import failures, leader, processes
from moeprof.worker.channel import Channel, JsonStore
from moeprof.worker.clock_offset import Offset, throughout
from moeprof.worker.failures import RankError
from moeprof.worker.spec import Follower

LOOK_S = 1.0
QUIT_S = 8.0  # for ranks that were told to quit
REPORT_S = 3.0  # for a leader to be told of an end


@dataclass(frozen=True)
class Run:
    """A run of this host's ranks. ``clock``: the number of the measurement of clocks before it."""

    job: Job
    child: Child
    clock: int


@dataclass
class HostPart:
    """One further host while a capture runs. ``store`` has rank 0's decisions."""

    plan: Plan
    parts: Parts
    store: JsonStore
    failures: list[VariantFailure] = field(default_factory=list)
    _runs: dict[str, Run] = field(default_factory=dict)  # those that are not over, by name: "VARIANT-KIND"
    _over: set[str] = field(default_factory=set)
    _clocks: dict[int, Offset | None] = field(default_factory=dict)  # by the number of the measurement
    _ahead: Offset = field(default_factory=lambda: Offset(0, 0))
    _watching: list[threading.Thread] = field(default_factory=list)

    @property
    def host(self) -> int:
        """The number of this host."""
        return self.parts.host

    @property
    def team(self) -> Team:
        """The ranks of all hosts."""
        assert self.plan.team is not None
        return self.plan.team

    @property
    def first(self) -> int:
        """The first rank of this host."""
        return self.team.first(self.host)

    def follow(self) -> bool:
        """Do what rank 0's capture decides until it decides that the capture is over; whether anything of it is kept. Nothing that was
        started outlives this.

        Raises:
            WorkloadError: rank 0's capture is gone.
        """
        number, decision = 0, Decision("start")
        try:
            while decision.kind != "end":
                number += 1
                decision = self._decision(number)
                self._do(decision)
            return decision.ok
        except ConnectionError as error:
            self._over.update(self._runs)  # nobody is left to be told
            raise WorkloadError(
                "the capture of rank 0 is gone", "read its output; the ranks of this host were ended"
            ) from error
        except BaseException:
            with suppress(ConnectionError):
                self.store.put(f"left/{self.host}", 0)
            raise
        finally:
            self._leave()

    def report(self) -> None:
        """This host's part is whole."""
        self.store.put(f"part/{self.host}", encode(PartReport(tuple(self.failures))))

    def _decision(self, number: int) -> Decision:
        value: Any = None
        while value is None:
            value = self.store.get(f"decision/{number}", LOOK_S)
        return decode(Decision, value)

    def _do(self, decision: Decision) -> None:
        if decision.kind == "clock":
            self._clocks[decision.clock] = self._measure_clock(decision.clock)
        elif decision.kind == "start":
            self._start(decision)
        elif decision.kind == "over" and decision.room in self._runs:
            self._finish(decision)

    def _measure_clock(self, number: int) -> Offset | None:
        try:
            self._ahead = self.store.clock_offset(f"clock/{number}/{self.host}")
        except CaptureError:  # rank 0's capture gave up on it, and goes on without
            return None
        return self._ahead

    def _start(self, decision: Decision) -> None:
        """Start this host's first rank of a run, which starts the others."""
        room = decision.room
        job, log = self._job(room)
        place = processes.environment(self.team, self.first, self.team.address, self.team.port)
        child = Child(replace(job.run.command, env=place), of_rank(log, self.first))
        self._runs[room] = Run(job, child, decision.clock)
        self._watching.append(threading.Thread(target=self._watch, args=(room, child), daemon=True))
        self._watching[-1].start()

    def _job(self, room: str) -> tuple[Job, Path]:
        """This host's process of a run, and the log of rank 0 beside which its ranks write theirs.

        Raises:
            UsageError: this host's own command line has no such run.
        """
        variant, _, kind = room.rpartition("-")
        if kind not in ("clean", "twin", self.plan.tracer) or variant not in self.plan.targets:
            raise UsageError(f"rank 0 began the unknown run {room!r}", "give all hosts the same command line")
        store, request = self.parts.store, self.plan.request
        log, out = store.log(variant, kind), store.scratch / f"{variant}-kineto.json"
        report = store.scratch / f"{variant}.nsys-rep" if kind == "nsys" else None
        timeout_s = leader.GROUP_FACTOR * request.timeout_s
        follower = Follower(os.getpid(), timeout_s, self._ahead.ns, head=True, out=str(out))
        run = commands.head(self.plan, self.plan.targets[variant], log, follower, report)
        tool = "nsys" if kind == "nsys" else "torch"
        return Job(variant, tool, replace(run, produces=report or out), None, Path()), log  # type: ignore[arg-type]

    def _watch(self, room: str, child: Child) -> None:
        """Report to the leader an end that nobody asked for."""
        status = child.process.wait()
        if room not in self._over:
            with suppress(MoeprofError, ConnectionError):  # nobody is left to be told
                where = self.team.address, self.team.port, self.first, self.team.ranks, f"{self.team.room}{room}"
                channel = Channel.join(*where)
                channel.ahead_s = self._ahead.ns / 1e9
                channel.report(failures.death(self.first, status, child.last_words(), channel.now_s()))

    def _finish(self, decision: Decision) -> None:
        """End a run, or keep what its profiler saw."""
        run = self._runs[decision.room]
        self._over.add(decision.room)
        try:
            if decision.traced:
                self._keep(decision, run)
            elif decision.ok:
                with suppress(subprocess.TimeoutExpired):
                    run.child.process.wait(QUIT_S)
        finally:
            end(run.child.process)
            del self._runs[decision.room]

    def _keep(self, decision: Decision, run: Run) -> None:
        ranks_here = self.team.of_host(self.host)
        here = [replace(process, host=self.host) for process in decision.traced if process.rank in ranks_here]
        try:
            self.parts.keep_trace(run.job, Ended(run.child.wait(), run.child.last_words()), here)
        except MoeprofError as error:
            self._fail(run.job.name, error)
        self._record_clock(run.job.name, self._clocks.get(run.clock), self._clocks.get(decision.clock))

    def _fail(self, variant: str, error: MoeprofError) -> None:
        if not isinstance(error, RankError):
            what = f"ended without a trace: {error.message}"
            error = failures.untraced(self.first, self.team.ranks, self.host, what, error.hint)
        ranks.failed(self.parts.store, variant, error)
        self.failures.append(VariantFailure(variant, error.failure))

    def _record_clock(self, variant: str, before: Offset | None, after: Offset | None) -> None:
        """How far this host's clock was ahead from before the run until after it; None if that, or the zero of a trace, is not known:
        then times of different hosts are not compared."""
        store = self.parts.store
        traces = [part for part in store.variant(variant).parts if part.kind == "trace"]
        clock: dict[str, int | None] = {"clock_offset_ns": None}
        if before is not None and after is not None and traces and all(t.zero_utc_ns is not None for t in traces):
            hull, drift_ns = throughout(before, after), after.ns - before.ns
            clock = {
                "clock_offset_ns": hull.ns, "clock_uncertainty_ns": hull.uncertainty_ns, "clock_drift_ns": drift_ns,
            }  # fmt: skip
        elif traces:
            store.note(note("no-clock", variant=variant, hosts=str(self.host)))
        entries = tuple(replace(rank, **clock) for rank in store.variant(variant).ranks)  # type: ignore[arg-type]
        store.record(variant, ranks=entries)

    def _leave(self) -> None:
        """End what still runs; the leaders are told, as nobody asked for it."""
        for run in self._runs.values():
            end(run.child.process)
        for thread in self._watching:
            thread.join(REPORT_S)
