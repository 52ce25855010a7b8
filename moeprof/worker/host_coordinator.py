"""The leader's side of further hosts: it asks their captures by letter to start their ranks, hears how these end and where they stand."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moeprof.errors import ExitCode
from moeprof.machine.launcher import Team
from moeprof.worker import host_rendezvous
from moeprof.worker.channel import Channel
from moeprof.worker.failures import Cause, Late
from moeprof.worker.host_link import Post
from moeprof.worker.host_rendezvous import Meeting

CONNECT_S = 60.0
OVER = "over"  # of an event: it is the last
STAND_S = 5.0  # for a host to say where its ranks stand


def requests(host: int) -> str:
    """The queue of what the capture of a host is asked."""
    return f"host/{host}/requests"


class Beyond:
    """The ranks of a team that are on other hosts. ``pids`` by rank, once they are known."""

    def __init__(self, team: Team):
        self.team, self.pids = team, dict[int, int]()
        self.post = Post(Meeting(team.address, team.port, host_rendezvous.token(os.environ)), False, CONNECT_S)

    def start(self, group_timeout_s: float, ended: Callable[[Cause], None]) -> None:
        """Have every further host start its ranks as followers; ``ended`` is told, in a thread, of one that ended."""
        self._ear = threading.Thread(target=self._hear, args=(ended,), daemon=True)
        self._ear.start()
        asked = {"do": "start", "room": self.team.room, "group_timeout_s": group_timeout_s}
        for host in range(1, len(self.team.layout)):
            self.post.queue(requests(host), asked)

    def _hear(self, ended: Callable[[Cause], None]) -> None:
        channel = Channel(self.team.address, self.team.port, 0, self.team.ranks, room=self.team.room)
        while True:
            try:
                event = channel.event()
            except Exception:  # the capture that keeps the store is gone, and nobody would read what is said
                os._exit(ExitCode.FAILED)
            if OVER in event:
                return
            ended(Cause(**event))

    def close(self, channel: Channel) -> None:
        """Hear no more; a thread that waits in the store when the process ends would abort it."""
        channel.tell({OVER: True})
        self._ear.join(STAND_S)

    def where(self, ranks: Iterable[int]) -> list[Late]:
        """Where ranks stand, as their hosts tell; nothing is known of those whose host does not answer in time."""
        wanted = set(ranks)
        found: list[Late] = []
        for host in range(1, len(self.team.layout)):
            pids = {str(r): self.pids.get(r, 0) for r in self.team.of_host(host) if r in wanted}
            found += self._asked(host, pids) if pids else []
        return found

    def _asked(self, host: int, pids: dict[str, int]) -> list[Late]:
        key = f"host/{host}/stand/{self.team.room}"
        self.post.queue(requests(host), {"do": "where", "room": self.team.room, "pids": pids, "to": key})
        said: dict[str, Any] = self.post.take(key, STAND_S) or {}
        return [Late(int(rank), *said.get(rank, (False, "", ""))) for rank in pids]
