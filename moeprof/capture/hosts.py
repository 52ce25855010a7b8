"""A capture on several hosts, as rank 0's capture leads it. Every host runs the same command with the same plan (SPMD).

The hosts share the key-value store of their launcher's rendezvous. First each reports itself there and compares what all reported.
Then rank 0's capture publishes its decisions, in order; the captures of the other hosts follow them (``host_part``). Nothing that
comes through the store is run or names a path.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from moeprof import __version__
from moeprof.errors import MoeprofError, ToolError, UsageError
from moeprof.machine.launcher import Place, Team, rendezvous
from moeprof.storage.json import decode, encode
from moeprof.worker.channel import JsonStore, quiet_torch
from moeprof.worker.failures import Failure
from moeprof.worker.messages import Measured

CLOCK_S = 10.0  # for a host to begin its measurement of a clock: it may still be ending a run
READ_S = 5.0  # for the other hosts to read the last of what this one reported
LOOK_S = 0.2

T = TypeVar("T")


@dataclass(frozen=True)
class Hello:
    """What the capture of a host reports of itself. ``plan``: what was asked for, which all hosts must have alike; ``machine``: what
    they should have alike, by name. ``folder`` and ``capture_id`` are rank 0's. ``error``: why this host cannot take part."""

    rank: int
    local_ranks: int
    plan: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    folder: str = ""
    capture_id: str = ""
    error: str = ""
    hint: str = ""
    version: str = __version__


@dataclass(frozen=True)
class Decision:
    """What rank 0's capture has decided: to measure clocks, to start a run, that a run is over, that the capture is.

    Attributes:
        room: the run: "VARIANT-KIND".
        clock: the number of the measurement of clocks; of a run the one before it began, or after it was measured.
        ok: whether the run ended well; then its processes end by themselves. Of the capture: whether anything is kept.
        traced: the processes that ran under the profiler, of all hosts.
    """

    kind: Literal["clock", "start", "over", "end"]
    room: str = ""
    clock: int = 0
    ok: bool = True
    traced: tuple[Measured, ...] = ()


@dataclass(frozen=True)
class VariantFailure:
    """A rank that failed in a run of a variant."""

    variant: str
    failure: Failure


@dataclass(frozen=True)
class PartReport:
    """What a host reports once its part of the capture is whole: which of its ranks left no trace."""

    failures: tuple[VariantFailure, ...] = ()


def team_of(place: Place, environment: Mapping[str, str]) -> Team:
    """The ranks of all hosts and their store; each run has a prefix of its own, which begins with ``room``."""
    where = rendezvous(place.launcher, environment)
    return Team(place.layout, where.address, where.port, f"moeprof/{where.attempt}/room/")


@dataclass(frozen=True)
class Meeting:
    """Where the captures of several hosts meet, and which host this one is."""

    store: JsonStore
    team: Team
    host: int
    timeout_s: float

    def exchange(self, prepare: Callable[[Hello | None], tuple[Hello, T]]) -> tuple[tuple[Hello, ...], T]:
        """Report this host, and return what every host reports, by host, and what ``prepare`` made. It takes rank 0's hello on the
        other hosts.

        Raises:
            MoeprofError: this host cannot take part.
            UsageError: ranks are not in blocks by host, or hosts were asked for different things.
            ToolError: a host did not come in time, or cannot take part.
        """
        try:
            hello, prepared = self._prepared(prepare)
            _say(self.store, self.host, hello)
            return self._compared(), prepared
        except MoeprofError:
            if self.host == 0:  # the store may end with this process
                wait_for(lambda: self.store.add("read", 0) >= self.store.add("hellos", 0), READ_S)
            raise

    def _prepared(self, prepare: Callable[[Hello | None], tuple[Hello, T]]) -> tuple[Hello, T]:
        first = _hello(self.store, 0, self.timeout_s) if self.host else None
        try:
            if self.host and first is None:
                raise self._absent([])
            return prepare(first)
        except MoeprofError as error:
            rank, ranks = self.team.first(self.host), self.team.layout[self.host]
            _say(self.store, self.host, Hello(rank, ranks, error=error.message, hint=error.hint))
            self._read()
            raise

    def _compared(self) -> tuple[Hello, ...]:
        until = time.monotonic() + self.timeout_s
        hosts = range(len(self.team.layout))
        hellos = [_hello(self.store, number, until - time.monotonic()) for number in hosts]
        present = sorted((hello for hello in hellos if hello is not None), key=lambda hello: hello.rank)
        self._read()
        if len(present) < len(hosts):
            raise self._absent(present)
        check_alike(self.team, present)
        return tuple(present)

    def _read(self) -> None:
        if self.host:
            self.store.add("read", 1)

    def _absent(self, present: Sequence[Hello]) -> ToolError:
        ranks = [hello.rank for hello in present]
        missing = [host for host in range(len(self.team.layout)) if self.team.first(host) not in ranks]
        first, last = self.team.first(missing[0]), self.team.first(missing[0] + 1) - 1
        where = f"{self.team.address}:{self.team.port} within {self.timeout_s:.0f} s"
        return ToolError(
            f"host {missing[0]} (ranks {first} to {last}) did not join at {where}",
            "start moeprof on every host; docs/howto/several_gpus.md says how",
        )


def meeting(place: Place, environment: Mapping[str, str], timeout_s: float) -> Meeting:
    """Where hosts meet: the launcher's store, which rank 0's capture keeps if the launcher does not.

    Raises:
        UsageError: nothing tells where.
        ToolError: the port is taken, or nobody answers there in time.
    """
    where = rendezvous(place.launcher, environment)
    team = team_of(place, environment)
    with quiet_torch():
        store = JsonStore.open(where.address, where.port, place.rank == 0 and not where.served, timeout_s)
    return Meeting(store.under(f"moeprof/{where.attempt}"), team, host_of(place), timeout_s)


def host_of(place: Place) -> int:
    """The number of this process's host, by its first rank."""
    return Team(place.layout).host(place.rank - place.local_rank)


def _say(store: JsonStore, host: int, hello: Hello) -> None:
    store.put(f"hello/{store.add('hellos', 1) if host else 0}", encode(hello))


def _hello(store: JsonStore, number: int, timeout_s: float) -> Hello | None:
    """That of rank 0's host, or the one that came as the ``number``th of the others."""
    value = store.get(f"hello/{number}", max(timeout_s, 0))
    return None if value is None else decode(Hello, value)


def check_alike(team: Team, hellos: Sequence[Hello]) -> None:
    """Whether every host can take part, is where its ranks say, and was asked for the same.

    Raises:
        ToolError: a host cannot take part.
        UsageError: hosts do not fit together.
    """
    for host, hello in enumerate(hellos):
        if hello.error:
            raise ToolError(f"host {host}: {hello.error}", hello.hint)
        if hello.rank != team.first(host):
            raise UsageError(
                f"rank {hello.rank} is the first of its host, {team.first(host)} was expected: ranks of a host must follow each other",
                "srun --distribution=block, or mpirun --map-by slot; hosts with different numbers of ranks need srun",
            )
        if hello.local_ranks != team.layout[host]:
            raise UsageError(
                f"host {host} has {hello.local_ranks} ranks, {team.layout[host]} were expected",
                "start as many on every host; srun alone tells that hosts differ",
            )
        theirs, ours = ({"version": h.version, **h.plan} for h in (hello, hellos[0]))
        for key in ours:
            if theirs.get(key) != ours[key]:
                raise UsageError(
                    f"host {host} has {key} {theirs.get(key)!r}, rank 0's host {ours[key]!r}",
                    "make hosts and command lines alike",
                )


def unlike(hellos: Sequence[Hello]) -> dict[int, str]:
    """What hosts have otherwise than rank 0's, in words, by host; they run all the same."""
    ours, words = hellos[0].machine, {}
    for host, hello in enumerate(hellos[1:], 1):
        theirs = hello.machine
        apart = [key for key in sorted({*ours, *theirs}, key=str.lower) if ours.get(key) != theirs.get(key)]
        if apart:
            words[host] = "; ".join(f"{key} {theirs.get(key, 'none')}, here {ours.get(key, 'none')}" for key in apart)
    return words


def part_folder(beside: Path, name: str, host: int) -> Path:
    """Where a host keeps its part of the capture ``name``.

    Raises:
        UsageError: the name is not that of a folder beside ``beside``.
    """
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise UsageError(
            f"rank 0's host names the capture {name!r}", "give -o a name of letters, digits, dots and dashes"
        )
    return beside.with_name(f"{name}.host{host}")


@dataclass
class Hosts:
    """The other hosts of a capture, as rank 0's capture leads them. ``hellos`` has what each reported, rank 0's first."""

    team: Team
    store: JsonStore
    hellos: tuple[Hello, ...]
    _rooms: dict[str, threading.Thread] = field(default_factory=dict)
    _over: set[str] = field(default_factory=set)
    _mute: set[int] = field(default_factory=set)  # hosts that did not measure their clocks
    _clocks: int = 0

    def __post_init__(self) -> None:
        self.measure_clocks()

    def _publish(self, decision: Decision) -> None:
        self.store.put(f"decision/{self.store.add('decisions', 1)}", encode(decision))

    def measure_clocks(self) -> int:
        """Let every other host measure its clock against this one's; the number of the measurement."""
        self._clocks += 1
        self._publish(Decision("clock", clock=self._clocks))
        for host in range(1, len(self.team.layout)):
            if host not in self._mute and not self.store.answer_clock(f"clock/{self._clocks}/{host}", CLOCK_S):
                self._mute.add(host)
        return self._clocks

    def start(self, process: subprocess.Popen[Any], room: str, result: Path | None = None, clock: int = 0) -> None:
        """Every host starts its ranks of a run, which ``process`` leads. They are over when it ends, or where it left its ``result``
        once ``keep`` is called."""
        self._publish(Decision("start", room, clock))
        self._rooms[room] = threading.Thread(target=self._watch, args=(process, room, result), daemon=True)
        self._rooms[room].start()

    def _watch(self, process: subprocess.Popen[Any], room: str, result: Path | None) -> None:
        ok = process.wait() == 0
        if result is None or not result.is_file():
            self._end(room, Decision("over", room, ok=ok))

    def keep(self, room: str, clock: int, traced: tuple[Measured, ...]) -> None:
        """Every host keeps what its ranks left of a run under a profiler."""
        self._end(room, Decision("over", room, clock, True, traced))

    def _end(self, room: str, decision: Decision) -> None:
        if room not in self._over:
            self._over.add(room)
            self._publish(decision)

    def finish(self, ok: bool, timeout_s: float) -> dict[int, PartReport]:
        """The capture is over: what each other host reports of its part; those that do not in time are left out. With ``ok`` False
        nothing is kept anywhere."""
        for thread in self._rooms.values():
            thread.join(READ_S)
        self._publish(Decision("end", ok=ok))
        until, reports = time.monotonic() + timeout_s, {}
        for host in range(1, len(self.team.layout)):
            wait_for(lambda host=host: self.store.has(f"part/{host}") or self._left(host), until - time.monotonic())  # type: ignore[misc]
            value = self.store.get(f"part/{host}", 0)
            if value is not None:
                reports[host] = decode(PartReport, value)
        return reports

    def _left(self, host: int) -> bool:
        """Whether the capture of a host has ended before the end."""
        return any(self.store.has(f"{place}left/{host}") for place in ("", *(f"room/{room}/" for room in self._rooms)))


def wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether the condition holds in time."""
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= until:
            return False
        time.sleep(LOOK_S)
    return True
