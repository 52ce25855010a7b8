"""A further host's part of a capture: the process with its first rank starts and ends that host's ranks as rank 0's capture asks.

It takes letters (``capture.hosts`` writes them) that name a run; what to start is its own command line's affair, so that nothing that comes
over the network is run. What its profiler left is checked and redacted here before it travels.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from moeprof.capture import commands, manifest_builder, ranks
from moeprof.capture.child_processes import Child, end
from moeprof.capture.host_heartbeat import Beats
from moeprof.capture.host_outbox import Desk
from moeprof.capture.hosts import HELLO, hello, welcome
from moeprof.capture.plan import Plan, make_plan
from moeprof.capture.request import Request
from moeprof.errors import CaptureError, ExitCode, MoeprofError, UsageError, WorkloadError, said_of
from moeprof.machine import launcher
from moeprof.machine.launcher import Place, Team
from moeprof.worker import host_rendezvous, processes
from moeprof.worker.channel import Channel, gone
from moeprof.worker.clock_offset import Offset
from moeprof.worker.host_coordinator import requests
from moeprof.worker.host_link import Post
from moeprof.worker.spec import Follower, Target
from moeprof.workload.find import load

KINDS = ("clean", "twin", "nsys", "torch")  # of runs: what the name of a room ends with
LOOK_S = 1.0
QUIT_S = 8.0  # for ranks that were told to quit
TELL_S = 3.0  # for a leader to be told of an end


def take_part(request: Request, place: Place, environment: Mapping[str, str]) -> str:
    """Run this host's ranks until rank 0's capture is over; what to say then.

    Raises:
        MoeprofError: this host cannot take part, or rank 0's capture is gone.
    """
    found = host_rendezvous.meeting(place.launcher, environment)
    post = Post(found, False, request.timeout_s)
    try:
        host, workings = _let_in(request, place, post)
    except ConnectionError as error:
        raise CaptureError("the capture of rank 0 ended before all hosts had joined", "see what it says") from error
    team = Team(place.layout, found.address, found.port)
    with tempfile.TemporaryDirectory(prefix="moeprof-host-") as folder:
        try:
            Further(Desk(workings, team, host, Path(folder)), post).serve()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; ranks of this host were ended") from None
    last = place.rank + place.local_ranks - 1
    return f"ranks {place.rank} to {last} of {place.ranks} ran here; the capture of rank 0 has what they left"


def _let_in(request: Request, place: Place, post: Post) -> tuple[int, Plan]:
    """This host's number, once rank 0's capture lets it in, and the tools that it has."""
    try:
        mine, workings = _mine(request, place)
    except MoeprofError as error:
        post.queue(HELLO, said_of(error) | {"rank": place.rank})
        raise
    post.queue(HELLO, mine)
    said = post.take(welcome(place.rank), request.timeout_s)
    if said is None:
        raise CaptureError(f"the capture of rank 0 did not let rank {place.rank} in", "see what it says")
    if "error" in said:
        raise UsageError(said["error"], said["hint"])
    return int(said["host"]), workings


def elsewhere(request: Request, environment: Mapping[str, str], dry_run: bool = False) -> str | None:
    """What the capture of a rank that a launcher started says where rank 0's captures: the first rank of a further host runs that
    host's part first, the others do nothing. None where this process captures.

    Raises:
        MoeprofError: the launcher's variables do not fit, the workload has no ranks, or this host cannot take part.
    """
    said, found = ranks.elsewhere(request, environment), launcher.place(environment)
    if said is None or found is None or dry_run or found.local_rank > 0 or found.hosts == 1:
        return said
    return take_part(request, found, environment)


def _mine(request: Request, place: Place) -> tuple[dict[str, Any], Plan]:
    """What this host says of itself, and the tools that it has."""
    plan = make_plan(request, os.environ)
    machine = manifest_builder.likeness(manifest_builder.environment(plan))
    return hello((place.rank, place.local_ranks), plan.name, plan.device, plan.tracer, machine), plan


@dataclass
class Further:
    """One further host while a capture runs."""

    desk: Desk
    post: Post
    _running: dict[str, Child] = field(default_factory=dict)  # by room
    _over: set[str] = field(default_factory=set)  # rooms whose processes may end
    _watching: list[threading.Thread] = field(default_factory=list)
    _ahead: Offset = field(default_factory=lambda: Offset(0, 0))

    @property
    def first(self) -> int:
        """The first rank of this host."""
        return self.team.first(self.desk.host)

    @property
    def team(self) -> Team:
        """All hosts' ranks."""
        return self.desk.team

    @property
    def request(self) -> Request:
        """What this host's command line asked for."""
        return self.desk.request

    def serve(self) -> None:
        """Do what is asked, letter after letter, until told to quit. Nothing that was started outlives this.

        Raises:
            WorkloadError: rank 0's capture is gone.
        """
        beats = Beats(self.post.again(), self.desk.host, [0], self._abandon)
        number, asked = 0, dict[str, Any]()
        try:
            while asked.get("do") != "quit":
                asked = self._next(number := number + 1)
                self._answers[asked["do"]](asked)
        except ConnectionError as error:
            self._over.update(self._running)  # nobody is left to be told
            raise WorkloadError(
                "the capture of rank 0 is gone", "see what it says; ranks of this host were ended"
            ) from error
        finally:
            beats.close()
            self._leave()

    def _leave(self) -> None:
        """End what still runs, of which the leaders are told: nobody asked for it."""
        for child in self._running.values():
            end(child.process)
        for thread in self._watching:
            thread.join(TELL_S)
        with suppress(Exception):  # nobody is left to be told
            self.post.store.set(gone(self.desk.host), "")

    def _next(self, number: int) -> dict[str, Any]:
        while True:
            asked = self.post.take(f"{requests(self.desk.host)}/{number}", LOOK_S)
            if asked is not None:
                return asked

    @property
    def _answers(self) -> dict[str, Callable[[dict[str, Any]], None]]:
        return {
            "start": self._start, "end": self._end, "where": self._where, "clock": self._clock, "collect": self._collect,
            "quit": self._quit,
        }  # fmt: skip

    def _abandon(self, host: int, why: str) -> None:
        """Nothing is heard of rank 0's capture: a thread ends all, since the main one may wait for it."""
        for child in self._running.values():
            end(child.process)
        print(
            "error: nothing is heard of the capture of rank 0 (see what it says); ranks of this host were ended",
            file=sys.stderr,
        )
        sys.stderr.flush()
        os._exit(ExitCode.WORKLOAD)

    def _start(self, asked: dict[str, Any]) -> None:
        """Start this host's head of a run, which starts the host's other ranks."""
        room = str(asked["room"])
        variant, kind = self._known(room)
        assert self.request.workload is not None
        target = Target(self.request.workload, variant, self.desk.setup.device, team=self.team)
        timeout_s, out = float(asked["group_timeout_s"]), str(self.desk.own(room))
        follower = Follower(os.getpid(), timeout_s, self._ahead.ns, head=True, out=out)
        report = self.desk.report(room) if kind == "nsys" else None
        command = commands.head(self.desk.setup, target, self.desk.log(room), follower, report).command
        place = processes.environment(self.team, self.first, self.team.address, self.team.port)
        self._running[room] = Child(replace(command, env=place), self.desk.log(room))
        self._watching.append(threading.Thread(target=self._watch, args=(room, self._running[room]), daemon=True))
        self._watching[-1].start()

    def _known(self, room: str) -> tuple[str, str]:
        """The variant and the kind of run that a room names; it must be one of this host's own workload.

        Raises:
            UsageError: it is not.
        """
        assert self.request.workload is not None
        variant, _, kind = room.rpartition("-")
        if kind not in KINDS or variant not in [v.name for v in load(self.request.workload).variants]:
            raise UsageError(f"rank 0 asked for the unknown run {room!r}", "give all hosts the same workload")
        return variant, kind

    def _watch(self, room: str, child: Child) -> None:
        """Tell the leader of an end that nobody asked for."""
        status = child.process.wait()
        if room not in self._over:
            cause = processes.silent_end(self.first, status, child.last_words())
            channel = Channel(self.team.address, self.team.port, self.first, self.team.ranks, room=room)
            channel.ahead_s = self._ahead.ns / 1e9
            channel.tell(asdict(cause) | {"at_s": channel.now_s()})

    def _end(self, asked: dict[str, Any]) -> None:
        room = str(asked["room"])
        if not asked["kill"] and room in self._running:
            self._over.add(room)
            with suppress(subprocess.TimeoutExpired):
                self._running[room].process.wait(QUIT_S)
        self._stop(room)
        self.post.send(asked["to"], self.desk.logs(room))

    def _stop(self, room: str) -> None:
        self._over.add(room)
        child = self._running.pop(room, None)
        if child is not None:
            end(child.process)

    def _where(self, asked: dict[str, Any]) -> None:
        """Where ranks of this host stand."""
        room = str(asked["room"])
        said = {
            rank: processes.where(pid, self.desk.rank_log(room, int(rank)))
            for rank, pid in asked["pids"].items()
            if pid
        }
        self.post.send(asked["to"], {rank: list(stands) for rank, stands in said.items()})

    def _clock(self, asked: dict[str, Any]) -> None:
        try:
            self._ahead = self.post.clock(asked["name"])
        except CaptureError:  # rank 0's capture gave up on it, and goes on without
            return
        self.post.send(f"{asked['name']}/found", asdict(self._ahead))

    def _quit(self, asked: dict[str, Any]) -> None:
        self.post.send(asked["to"], {})

    def _collect(self, asked: dict[str, Any]) -> None:
        """Wait until the profiler has written what it saw, and send it."""
        room, key = str(asked["room"]), str(asked["to"])
        self._over.add(room)
        files, problems = self.desk.described(
            self.desk.run(self._known(room)[0], room, asked), room, self._running[room]
        )
        self._stop(room)
        self.post.send(key, {"files": files, "problems": problems, "logs": self.desk.logs(room)})
        for file in files:
            self.post.send_file(f"{key}/{file['file']}", self.desk.folder / file["file"], self.request.timeout_s)
