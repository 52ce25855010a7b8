"""The captures of several hosts, which all run the same plan by the same code (SPMD). Where rank 0's capture decides, ``Hosts.decide``
returns that on every host, by the key-value store of their launcher. Nothing that comes through the store is run or names a path.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from moeprof.capture.child_processes import last_line
from moeprof.errors import CaptureError, MoeprofError, ToolError, UsageError, WorkloadError
from moeprof.machine.launcher import Place, Team, rendezvous
from moeprof.storage.json import decode
from moeprof.worker import failures
from moeprof.worker.channel import JsonStore, quiet_torch
from moeprof.worker.clock_offset import Offset
from moeprof.worker.messages import ErrorReply, Measured

CLOCK_S = 10.0  # for a host to begin its measurement of a clock: it may still be ending a run
READ_S = 5.0  # for the other hosts to read the last of what this one decided
LOOK_S = 0.5

T = TypeVar("T")


@dataclass(frozen=True)
class Beginning:
    """The capture that rank 0's host begins. ``plan``: what all hosts must have alike; ``machine``: what they should, by name."""

    folder: str = ""
    capture_id: str = ""
    plan: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What rank 0's capture decides: which capture begins, which variants are traced, how many at once, which processes ran under the
    profiler; or that the capture is over (``kept``: whether anything remains), or why there is none (``error``)."""

    begin: Beginning = Beginning()
    variants: tuple[str, ...] = ()
    slots: int = 0
    traced: tuple[Measured, ...] = ()
    kept: bool | None = None
    error: ErrorReply | None = None


@dataclass(frozen=True)
class Report:
    """What another host reports: at first what its machine has otherwise, at last its problems; or the one for which it takes no part."""

    host: int
    differs: str = ""
    problems: tuple[ErrorReply, ...] = ()


class Over(Exception):
    """Rank 0's capture is over; ``args`` has whether anything of it is kept."""


@dataclass
class Hosts:
    """All hosts, as the capture of one of them sees them; 0 is rank 0's. ``reports``: what the others reported at first, to that one."""

    store: JsonStore
    team: Team
    place: Place
    timeout_s: float
    reports: dict[int, Report] = field(default_factory=dict)
    _decisions: int = 0
    _ahead_ns: int = 0  # of this host's clock
    _runs: dict[Path, subprocess.Popen[Any]] = field(default_factory=dict)  # by log, of a host that is not rank 0's
    _watching: list[threading.Thread] = field(default_factory=list)  # the leaders of runs, on rank 0's host
    _mute: set[int] = field(default_factory=set)  # hosts that did not measure their clocks

    @classmethod
    def open(cls, place: Place, environment: Mapping[str, str], timeout_s: float) -> Hosts:
        """By the launcher's store, which rank 0's capture keeps if the launcher does not.

        Raises:
            UsageError: nothing tells where it is.
            ToolError: the port is taken, or nobody answers there in time.
        """
        where, team = rendezvous(place.launcher, environment), place.team(environment)
        with quiet_torch():
            store = JsonStore.open(team.address, team.port, place.rank == 0 and not where.served, timeout_s)
        return cls(store.under(team.room), team, place, timeout_s)

    @property
    def others(self) -> range:
        """The numbers of the hosts that are not rank 0's."""
        return range(1, len(self.team.layout))

    def decide(self, ours: Decision, timeout_s: float = float("inf")) -> Decision:
        """Rank 0's decision: ``ours`` on its host. All hosts make all decisions, in one order.

        Raises:
            Over: rank 0's capture is over.
            MoeprofError: there is no capture, that of rank 0 is gone, or did not decide in time.
        """
        self._decisions += 1
        key, until = f"decision/{self._decisions}", time.monotonic() + timeout_s
        if not self.place.host:
            self.store.put(key, ours)
            return ours
        try:
            while (value := self.store.get(key, LOOK_S)) is None:
                self._report_ended()
                if time.monotonic() > until:
                    raise self._absent(0)
        except ConnectionError as error:
            hint = "read its output; the ranks of this host were ended"
            raise WorkloadError("the capture of rank 0 is gone", hint) from error
        decision = decode(Decision, value)
        if decision.error is not None:
            raise decision.error.exception()
        if decision.kept is not None:
            raise Over(decision.kept)
        return decision

    def agree(self, prepare: Callable[[Beginning | None], tuple[Beginning, T]]) -> tuple[Beginning, T]:
        """What rank 0's host begins, once all take part, and what ``prepare`` made of it (of None there).

        Raises:
            MoeprofError: a host, which may be this one, did not come in time, cannot take part or does not fit. All report that.
        """
        try:
            theirs = self.decide(Decision(), self.timeout_s).begin if self.place.host else None
            ours, prepared = prepare(theirs)
            if theirs is None:
                theirs = self.decide(Decision(ours)).begin
                self._take_hellos()
            else:
                check_alike(self.place, ours.plan, theirs.plan)
                self.store.append("hello", Report(self.place.host, differences(ours.machine, theirs.machine)))
            self.decide(Decision(), self.timeout_s + READ_S)
        except MoeprofError as error:
            self._refuse(ErrorReply.of(error))
            raise
        return theirs, prepared

    def _take_hellos(self) -> None:
        until = time.monotonic() + self.timeout_s
        while missing := [host for host in self.others if host not in self.reports]:
            value = self.store.get(f"hello/{len(self.reports) + 1}", until - time.monotonic())
            if value is None:
                raise self._absent(missing[0])
            report = decode(Report, value)
            if report.problems:
                raise report.problems[0].exception(f"host {report.host}: ")
            self.reports[report.host] = report

    def _refuse(self, error: ErrorReply) -> None:
        with suppress(ConnectionError):
            if self.place.host:
                self.store.append("hello", Report(self.place.host, problems=(error,)))
                self.store.add("read", 1)
                return
            if not self._decisions:  # an error of this host itself
                error = replace(error, error=f"host 0: {error.error}")
            self.decide(Decision(error=error))
            until = time.monotonic() + READ_S  # the store may end with this process
            while self.store.add("read", 0) < len(self.others) and time.monotonic() < until:
                time.sleep(LOOK_S / 10)

    def _absent(self, host: int) -> ToolError:
        ranks, where = self.team.of_host(host), f"{self.team.address}:{self.team.port}"
        return ToolError(
            f"host {host} (ranks {ranks[0]} to {ranks[-1]}) did not join at {where} within {self.timeout_s:.0f} s",
            "start moeprof on every host; docs/howto/several_hosts.md says how",
        )

    def measure_clock(self) -> Offset | None:
        """How far this host's clock is ahead of that of rank 0's host; None if it could not be measured."""
        self.decide(Decision())
        name = f"clock/{self._decisions}"
        if not self.place.host:
            for host in self.others:
                if host not in self._mute and not self.store.answer_clock(f"{name}/{host}", CLOCK_S):
                    self._mute.add(host)
            return Offset(0, 0)
        try:
            offset = self.store.clock_offset(f"{name}/{self.place.host}")
        except CaptureError:  # rank 0's capture gave up on it, and goes on without
            return None
        self._ahead_ns = offset.ns
        self.store.put(f"ahead/{self.place.host}", offset.ns)
        return offset

    def started(self, process: subprocess.Popen[Any], log: Path, result: Path | None = None) -> None:
        """A run has begun here. On all hosts it is over when its leader ends: well if that succeeds or left its ``result``."""

        def watch() -> None:
            ok = process.wait() == 0 or (result is not None and result.is_file())
            self.store.put(f"{log.stem}/over", ok)

        if self.place.host:
            self._runs[log] = process
        else:
            self._watching.append(threading.Thread(target=watch, daemon=True))
            self._watching[-1].start()

    def _report_ended(self) -> None:
        """Report to the leader of a run that its processes on this host failed, as the parent of ranks does only if it can."""
        first, now_s = self.team.first(self.place.host), time.time() - self._ahead_ns / 1e9
        for log in [log for log, process in self._runs.items() if process.poll()]:
            death = failures.death(first, self._runs.pop(log).returncode, last_line(log), now_s)
            self.store.under(log.stem).append("failure", replace(death, dragged=False))

    def finish(self, kept: bool, timeout_s: float) -> dict[int, Report]:
        """The capture is over: what each other host reports of its part, without those that do not in time."""
        for thread in self._watching:
            thread.join(READ_S)
        self.decide(Decision(kept=kept))
        until = time.monotonic() + timeout_s
        reports = {host: self.store.get(f"part/{host}", until - time.monotonic()) for host in self.others}
        return {host: decode(Report, report) for host, report in reports.items() if report is not None}

    def leave(self, report: Report | None) -> None:
        """This host's part is whole (``report``), or its capture ends before that of rank 0."""
        with suppress(ConnectionError):
            self._report_ended()
            self.store.put(f"part/{self.place.host}", report)


def check_alike(place: Place, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Whether a host fits to that of rank 0.

    Raises:
        UsageError: it was asked for something else, or its ranks are not in a block.
    """
    if differ := differences(ours, theirs):
        hint = "make hosts and command lines alike; hosts with different numbers of ranks need srun"
        raise UsageError(f"hosts differ: {differ}", hint)
    firsts = [Team(place.layout).first(host) for host in range(1, place.hosts)]
    if place.first not in firsts:
        raise UsageError(
            f"rank {place.first} is the first of its host, {' or '.join(map(str, firsts))} was expected: "
            "ranks of a host must follow each other", "srun --distribution=block, or mpirun --map-by slot",
        )  # fmt: skip


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What a host has otherwise than that of rank 0, in words."""
    keys = [key for key in sorted({*ours, *theirs}, key=str.lower) if ours.get(key) != theirs.get(key)]
    return "; ".join(f"{key} {ours.get(key, 'none')}, {theirs.get(key, 'none')} on rank 0's host" for key in keys)


def part_folder(beside: Path, name: str, host: int) -> Path:
    """Where a host keeps its part of the capture ``name``.

    Raises:
        UsageError: the name is not that of a folder beside ``beside``.
    """
    if not re.fullmatch(r"\w[\w.+-]*", name):
        hint = "give -o a name of letters, digits, dots and dashes"
        raise UsageError(f"rank 0's host names the capture {name!r}", hint)
    return beside.with_name(f"{name}.host{host}")
