"""A further host's part of a capture: the capture of its first rank follows rank 0's decisions, and keeps what its ranks leave.

What a run starts is what this host's own command line says. The part is a capture folder of its own, ``NAME.host1``, whose traces
are validated and redacted here; ``join`` makes one capture of all parts.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from moeprof.capture import commands, ranks
from moeprof.capture.child_processes import Child, end
from moeprof.capture.commands import Nsys
from moeprof.capture.hosts import Decision, PartReport, VariantFailure
from moeprof.capture.profiling import Profile
from moeprof.errors import CaptureError, MoeprofError, UsageError, WorkloadError
from moeprof.machine.tools import Tool
from moeprof.notes import note
from moeprof.storage.files import of_rank
from moeprof.storage.json import decode, encode
from moeprof.worker import failures, leader, processes
from moeprof.worker.channel import Channel, JsonStore
from moeprof.worker.clock_offset import Offset, throughout
from moeprof.worker.failures import RankError
from moeprof.worker.spec import Follower, Target

LOOK_S = 1.0
QUIT_S = 8.0  # for ranks that were told to quit
REPORT_S = 3.0  # for a leader to be told of an end


@dataclass
class HostPart:
    """One further host while a capture runs. ``targets`` by the name of the run: "VARIANT-KIND"."""

    profile: Profile
    store: JsonStore
    targets: Mapping[str, Target]
    nsys: Tool | None
    failures: list[VariantFailure] = field(default_factory=list)
    _running: dict[str, Child] = field(default_factory=dict)  # by run, as all below
    _over: set[str] = field(default_factory=set)
    _began: dict[str, int] = field(default_factory=dict)  # the measurement of clocks before it
    _clocks: dict[int, Offset | None] = field(default_factory=dict)  # by the number of the measurement
    _watching: list[threading.Thread] = field(default_factory=list)
    _ahead: Offset = field(default_factory=lambda: Offset(0, 0))

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
            self._over.update(self._running)  # nobody is left to be told
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

    @property
    def host(self) -> int:
        """The number of this host."""
        return self.profile.host

    @property
    def first(self) -> int:
        """The first rank of this host."""
        return self.profile.team.first(self.host)

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
        elif decision.kind == "over" and decision.room in self._running:
            self._finish(decision)

    def _measure_clock(self, number: int) -> Offset | None:
        try:
            self._ahead = self.store.clock_offset(f"clock/{number}/{self.host}")
        except CaptureError:  # rank 0's capture gave up on it, and goes on without
            return None
        return self._ahead

    def _start(self, decision: Decision) -> None:
        """Start this host's first rank of a run, which starts the others.

        Raises:
            UsageError: this host's own command line has no such run.
        """
        room = decision.room
        if room not in self.targets:
            raise UsageError(f"rank 0 began the unknown run {room!r}", "give all hosts the same command line")
        self._began[room] = decision.clock
        child = self._running[room] = self._head(room, self.targets[room])
        self._watching.append(threading.Thread(target=self._watch, args=(room, child), daemon=True))
        self._watching[-1].start()

    def _head(self, room: str, target: Target) -> Child:
        profile, kind = self.profile, room.rpartition("-")[2]
        scratch, log = profile.store.scratch, profile.store.log(target.variant, kind)
        nsys = None
        if kind == "nsys" and self.nsys is not None:
            nsys = Nsys(self.nsys.path, scratch / f"{target.variant}.nsys-rep", True)
        timeout_s, out = leader.GROUP_FACTOR * profile.request.timeout_s, scratch / f"{target.variant}-kineto.json"
        follower = Follower(os.getpid(), timeout_s, self._ahead.ns, head=True, out=str(out))
        command = commands.head(profile.request, target, log, follower, nsys).command
        place = processes.environment(profile.team, self.first, profile.team.address, profile.team.port)
        return Child(replace(command, env=place, produces=command.produces or out), of_rank(log, self.first))

    def _watch(self, room: str, child: Child) -> None:
        """Report to the leader an end that nobody asked for."""
        status = child.process.wait()
        if room not in self._over:
            team = self.profile.team
            with suppress(Exception):  # nobody is left to be told
                channel = Channel.join(team.address, team.port, self.first, team.ranks, f"{team.room}{room}")
                channel.ahead_s = self._ahead.ns / 1e9
                channel.report(failures.death(self.first, status, child.last_words(), channel.now_s()))

    def _finish(self, decision: Decision) -> None:
        """End a run, or keep what its profiler saw."""
        child = self._running[decision.room]
        self._over.add(decision.room)
        try:
            if decision.traced:
                self._keep(decision, child)
            elif decision.ok:
                with suppress(subprocess.TimeoutExpired):
                    child.process.wait(QUIT_S)
        finally:
            end(child.process)
            del self._running[decision.room]

    def _keep(self, decision: Decision, child: Child) -> None:
        profile, variant = self.profile, self.targets[decision.room].variant
        profile.ran(variant, [process for process in decision.traced if process.host == self.host])
        try:
            status, last = child.wait(), child.last_words()
            iterations = profile.request.iterations
            if self.nsys is not None:
                profile.keep_nsys(variant, self.nsys, child.command, iterations, status, last)
            else:
                profile.keep_kineto(variant, child.command, iterations, status, last)
        except MoeprofError as error:
            self._fail(variant, error)
        self._record_clock(variant, self._clocks.get(self._began[decision.room]), self._clocks.get(decision.clock))

    def _fail(self, variant: str, error: MoeprofError) -> None:
        if not isinstance(error, RankError):
            what = f"ended without a trace: {error.message}"
            error = failures.untraced(self.first, self.profile.team.ranks, self.host, what, error.hint)
        ranks.failed(self.profile.store, variant, error)
        self.failures.append(VariantFailure(variant, error.failure))

    def _record_clock(self, variant: str, before: Offset | None, after: Offset | None) -> None:
        """How far this host's clock was ahead from before the run until after it; None if that, or the zero of a trace, is not known:
        then times of different hosts are not compared."""
        store = self.profile.store
        traces = [part for part in store.variant(variant).parts if part.kind == "trace"]
        clock: dict[str, int | None] = {"clock_offset_ns": None}
        if before is not None and after is not None and traces and all(t.zero_utc_ns is not None for t in traces):
            hull = throughout(before, after)
            clock = {
                "clock_offset_ns": hull.ns,
                "clock_uncertainty_ns": hull.uncertainty_ns,
                "clock_drift_ns": after.ns - before.ns,
            }
        elif traces:
            store.note(note("no-clock", variant=variant, hosts=str(self.host)))
        store.record(variant, ranks=tuple(replace(rank, **clock) for rank in store.variant(variant).ranks))  # type: ignore[arg-type]

    def _leave(self) -> None:
        """End what still runs; the leaders are told, as nobody asked for it."""
        for child in self._running.values():
            end(child.process)
        for thread in self._watching:
            thread.join(REPORT_S)
