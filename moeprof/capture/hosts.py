"""The further hosts of a capture, as rank 0's sees them: they join, run their part of each variant, and send what it left.

Each is asked by letter (``moeprof.worker.host_link``) and does what its own command line says; ``capture.further`` is the other end.
"""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from moeprof import __version__
from moeprof.capture.host_heartbeat import Beats
from moeprof.errors import CaptureError, MoeprofError, RankError, ToolError, UsageError, said_of
from moeprof.machine.launcher import Team
from moeprof.worker.channel import Channel
from moeprof.worker.clock_offset import Offset
from moeprof.worker.failures import Cause
from moeprof.worker.host_coordinator import requests
from moeprof.worker.host_link import Post
from moeprof.worker.host_rendezvous import Meeting

CLOCK_S = 30.0  # for a host to take its turn: it may still be ending a run
LOGS_S = 15.0  # for a host to end its part of a run and send its logs
BYE_S = 5.0
LOOK_S = 1.0
HELLO = "hello"


def welcome(rank: int) -> str:
    """Where the capture of the first rank of a host finds whether it may take part."""
    return f"welcome/{rank}"


@dataclass
class Hosts:
    """The hosts that ``team`` runs on. With one there is nobody to talk to, and nothing here does anything."""

    team: Team
    logs: Path = Path()
    post: Post | None = None
    timeout_s: float = 0
    unlike: dict[int, str] = field(default_factory=dict)  # by further host: what it has otherwise than this one
    _lost: dict[int, str] = field(default_factory=dict)
    _rooms: dict[str, threading.Thread] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    _number: int = 0
    _beats: Beats | None = None

    @property
    def further(self) -> range:
        """The hosts but this one."""
        return range(1, len(self.team.layout))

    def join(self, token: str, mine: dict[str, Any]) -> None:
        """Wait for all hosts, and see that they are as this one (``mine``: what it would say of itself).

        Raises:
            ToolError: the port is taken, or a host did not come in time.
            UsageError: ranks are not in blocks by host, or hosts were asked for different things.
        """
        if not self.further:
            return
        self.post = Post(Meeting(self.team.address, self.team.port, token), True, self.timeout_s)
        found = self._hellos()
        try:
            _alike(self.team, mine, found)
        except MoeprofError as error:
            self._answer(dict.fromkeys(found, said_of(error)))
            raise
        self.unlike = _unlike(mine, {self.team.host(rank): said for rank, said in found.items()})
        self._answer({rank: {"host": self.team.host(rank)} for rank in found})
        self._beats = Beats(self.post.again(), 0, self.further, self._silent)

    def _hellos(self) -> dict[int, dict[str, Any]]:
        """What each further host says of itself, by its first rank."""
        assert self.post is not None
        found: dict[int, dict[str, Any]] = {}
        until = time.monotonic() + self.timeout_s
        for number in self.further:
            said = self.post.take(f"{HELLO}/{number}", max(until - time.monotonic(), 0.1))
            if said is None:
                raise ToolError(
                    _absent(self.team, found, self.timeout_s),
                    "start moeprof on every host; docs/howto/several_hosts.md says how",
                )
            found[int(said["rank"])] = said
        return found

    def _answer(self, answers: dict[int, dict[str, Any]]) -> None:
        assert self.post is not None
        for rank, said in answers.items():
            self.post.send(welcome(rank), said)
        if any("error" in said for said in answers.values()):
            self.post.wait_taken([welcome(rank) for rank in answers], BYE_S)

    def _silent(self, host: int, why: str) -> None:
        """A host is gone: every run that has ranks there is told, and every later one."""
        self._lost[host] = why
        for room in [room for room, thread in list(self._rooms.items()) if thread.is_alive()]:
            self._tell(room, host)

    def _tell(self, room: str, host: int) -> None:
        rank = self.team.first(host)
        cause = Cause(rank, self._lost[host], "nothing", time.time(), silent=True)
        Channel(self.team.address, self.team.port, 0, self.team.ranks, room=room).tell(asdict(cause))

    def watch(self, process: subprocess.Popen[Any], room: str, result: Path | None = None) -> None:
        """When the process that leads ``room`` ends, so does what further hosts run of it; where it left its ``result`` they go on to
        write their traces until ``collect``."""
        if not self.further:
            return
        thread = threading.Thread(target=self._follow, args=(process, room, result), daemon=True)
        self._rooms[room] = thread
        thread.start()
        for host in self._lost:
            self._tell(room, host)

    def _follow(self, process: subprocess.Popen[Any], room: str, result: Path | None) -> None:
        status = process.wait()
        if result is None or not result.is_file():
            self.end(room, kill=status != 0)

    def end(self, room: str, kill: bool = True) -> None:
        """End what further hosts run of ``room``, and take their logs; once is enough."""
        if room in self._ended or self.post is None:
            return
        self._ended.add(room)
        post = self.post.again()
        for host in self.further:
            post.queue(requests(host), {"do": "end", "room": room, "kill": kill, "to": f"host/{host}/logs/{room}"})
        for host in self.further:
            self._keep_logs(self._waited(post, host, f"host/{host}/logs/{room}", LOGS_S) or {})

    def _keep_logs(self, logs: dict[str, Any]) -> None:
        """Logs of a further host's ranks beside those of this one's."""
        for name, text in logs.items():
            (self.logs / Path(name).name).write_text(str(text), encoding="utf-8")

    def clocks(self) -> dict[int, Offset | None]:
        """How far each further host's clock is ahead of this one's, now; None where it did not answer."""
        return {host: self._clock(host) for host in self.further}

    def _clock(self, host: int) -> Offset | None:
        assert self.post is not None
        self._number += 1
        name = f"host/{host}/clock/{self._number}"
        if host in self._lost:
            return None
        self.post.queue(requests(host), {"do": "clock", "name": name})
        said = self.post.take(f"{name}/found", CLOCK_S) if self.post.answer_clock(name, CLOCK_S) else None
        return None if said is None else Offset(said["ns"], said["uncertainty_ns"])

    def collect(self, host: int, room: str, asked: dict[str, Any], scratch: Path) -> dict[str, Any]:
        """What a further host kept of a traced run; its files are in ``scratch``.

        Raises:
            RankError: the host is gone, or did not answer in time.
            CaptureError: a file did not come as it was sent.
        """
        assert self.post is not None
        self._ended.add(room)
        key = f"host/{host}/kept/{room}"
        self.post.queue(requests(host), {"do": "collect", "room": room, "to": key, **asked})
        said = self._taken(host, key)
        for file in said["files"]:
            file["file"] = Path(file["file"]).name
            target = scratch / file["file"]
            if self.post.receive_file(f"{key}/{file['file']}", target, self.timeout_s) != file["sha256"]:
                raise CaptureError(f"{file['file']} of host {host} did not come as it was sent", "capture again")
        self._keep_logs(said["logs"])
        return said

    def _taken(self, host: int, key: str) -> dict[str, Any]:
        assert self.post is not None
        said = self._waited(self.post, host, key, self.timeout_s)
        if said is not None:
            return said
        why = self._lost.get(host, f"it sent no trace within {self.timeout_s:.0f} s")
        rank = self.team.first(host)
        raise RankError(
            f"rank {rank} of {self.team.ranks}{self.team.named(rank)} left no trace: {why}", "see that host", rank
        )

    def _waited(self, post: Post, host: int, key: str, seconds: float) -> dict[str, Any] | None:
        """A letter of a host, as long as there is hope."""
        until, said = time.monotonic() + seconds, None
        while said is None and host not in self._lost and time.monotonic() < until:
            said = post.take(key, LOOK_S)
        return said

    def close(self) -> None:
        """Let all hosts go, once their part is done."""
        if self.post is None:
            return
        for thread in self._rooms.values():
            thread.join(LOGS_S * len(self.team.layout))
        there = [host for host in self.further if host not in self._lost]
        for host in there:
            self.post.queue(requests(host), {"do": "quit", "to": f"host/{host}/bye"})
        for host in there:
            self._waited(self.post, host, f"host/{host}/bye", BYE_S)
        if self._beats is not None:
            self._beats.close()


def hello(place: tuple[int, int], name: str, device: str, tracer: str, machine: dict[str, str]) -> dict[str, Any]:
    """What the capture of a host's first rank says of itself. ``place``: that rank, and how many ranks the host has."""
    return {
        "rank": place[0], "local_ranks": place[1], "name": name, "device": device, "tracer": tracer, "version": __version__,
        "machine": machine,
    }  # fmt: skip


def _unlike(mine: dict[str, Any], found: dict[int, dict[str, Any]]) -> dict[int, str]:
    """What hosts have otherwise than this one, in words; they run all the same."""
    words = {}
    for host, said in sorted(found.items()):
        ours, theirs = mine["machine"], said["machine"]
        apart = [key for key in sorted({*ours, *theirs}, key=str.lower) if ours.get(key) != theirs.get(key)]
        if apart:
            words[host] = "; ".join(f"{key} {theirs.get(key, 'none')}, here {ours.get(key, 'none')}" for key in apart)
    return words


def _absent(team: Team, found: dict[int, dict[str, Any]], seconds: float) -> str:
    missing = [host for host in range(1, len(team.layout)) if team.first(host) not in found]
    host = missing[0] if missing else len(team.layout) - 1
    first, last = team.first(host), team.first(host + 1) - 1
    return f"host {host} (ranks {first} to {last}) did not join at {team.address}:{team.port} within {seconds:.0f} s"


def _alike(team: Team, mine: dict[str, Any], found: dict[int, dict[str, Any]]) -> None:
    """Whether every host is where its ranks say and was asked for the same."""
    for host, (rank, said) in enumerate(sorted(found.items()), 1):
        if "error" in said:
            raise ToolError(f"host {host}: {said['error']}", said.get("hint", ""))
        if rank != team.first(host):
            raise UsageError(
                f"rank {rank} is the first of its host, {team.first(host)} was expected: ranks of a host must follow each other",
                "srun --distribution=block, or mpirun --map-by slot; hosts with different numbers of ranks need srun",
            )
        if said["local_ranks"] != team.layout[host]:
            raise UsageError(
                f"host {host} has {said['local_ranks']} ranks, {team.layout[host]} were expected",
                "start as many on every host; srun alone tells that hosts differ",
            )
        for key in ("name", "device", "tracer", "version"):
            if said[key] != mine[key]:
                raise UsageError(
                    f"host {host} has {key} {said[key]!r}, rank 0's host {mine[key]!r}",
                    "make hosts and command lines alike",
                )
