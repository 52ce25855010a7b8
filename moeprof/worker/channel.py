"""What ranks say to each other beside their work: requests, replies, barriers, last words, through torch's TCPStore.

Nothing of it touches the GPU or the process group. Ranks of several hosts meet at the store of rank 0's capture, each run of a
variant in a ``room`` of its own, where also what happened to ranks of other hosts is told (``Channel.tell``). A waiting store holds the lock of its connection: each thread that may
wait takes a connection of its own (``Channel.again``).
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from moeprof.worker import messages
from moeprof.worker.messages import Reply, Request

FOREVER = timedelta(days=365)  # who waits too long is ended by the leader's clock, which names the rank


def gone(host: int) -> str:
    """The key that says so."""
    return f"host/{host}/gone"


@dataclass(frozen=True)
class Said:
    """What a rank said of its own failure: message, hint, exit code, and when by its clock in seconds."""

    error: str
    hint: str
    code: int
    at_s: float


class Channel:
    """One connection of ``rank`` to the store that the leader keeps."""

    def __init__(self, address: str, port: int, rank: int, ranks: int, keeps: bool = False, room: str = "") -> None:
        """``keeps``: this is the leader, and the store is made here; port 0 takes a free one."""
        from torch.distributed import PrefixStore, TCPStore

        self.address, self.rank, self.ranks, self.room = address, rank, ranks, room
        store = TCPStore(address, port, None, keeps, timeout=timedelta(seconds=60), wait_for_workers=False)
        self.port: int = store.port
        self.store = PrefixStore(f"room/{room}", store) if room else store
        self._all = store  # what is no room's own
        self.ahead_s = 0.0  # of this host's clock against the leader's
        self._barriers = self._heard = 0

    def again(self) -> Channel:
        """A connection of its own to the same store."""
        return Channel(self.address, self.port, self.rank, self.ranks, room=self.room)

    def send(self, number: int, request: Request[Any]) -> None:
        """Request ``number`` to every other rank."""
        self.store.set(f"request/{number}", messages.line(request))

    def receive(self, number: int) -> Request[Any]:
        """Request ``number``, once it is there."""
        return messages.request(self._text(f"request/{number}"))

    def reply(self, number: int, reply: Reply) -> None:
        """This rank's answer to request ``number``."""
        self.store.set(f"reply/{number}/{self.rank}", messages.line(reply))

    def replies(self, number: int) -> list[Reply]:
        """The answers of ranks 1 and up, once all are there; then the request is forgotten."""
        keys = [f"reply/{number}/{rank}" for rank in range(1, self.ranks)]
        found = [messages.reply(self._text(key)) for key in keys]
        for key in (f"request/{number}", *keys):
            self.store.delete_key(key)
        return found

    def silent(self, number: int) -> list[int]:
        """The ranks from 1 up that have not answered request ``number``."""
        return [rank for rank in range(1, self.ranks) if not self.store.check([f"reply/{number}/{rank}"])]

    def barrier(self) -> None:
        """Return once every rank is here; all call it equally often."""
        self._barriers += 1
        name = f"barrier/{self._barriers}"
        if self.store.add(name, 1) == self.ranks:
            self.store.set(f"{name}/open", "")
        self.store.wait([f"{name}/open"], FOREVER)

    def fail(self, error: str, hint: str, code: int) -> None:
        """Leave this rank's last words."""
        said = {"error": error, "hint": hint, "code": code, "at_s": self.now_s()}
        self.store.set(f"failed/{self.rank}", json.dumps(said))

    def now_s(self) -> float:
        """The time of day by the leader's clock, as well as it is known here."""
        return time.time() - self.ahead_s

    def tell(self, event: dict[str, Any]) -> None:
        """What happened to a rank that the leader does not watch itself."""
        self.store.set(f"event/{self.store.add('events', 1)}", json.dumps(event))

    def event(self) -> dict[str, Any]:
        """The next of these, once there is one."""
        self._heard += 1
        found: dict[str, Any] = self._taken(f"event/{self._heard}")
        return found

    def gone(self, host: int) -> None:
        """The capture of a host has ended: rank 0's need not wait for signs of life."""
        self._all.set(gone(host), "")

    def failures(self) -> dict[int, Said]:
        """Last words by rank."""
        keys = {rank: f"failed/{rank}" for rank in range(1, self.ranks)}
        return {rank: Said(**self._taken(key)) for rank, key in keys.items() if self.store.check([key])}

    def _taken(self, key: str) -> Any:
        return json.loads(self._text(key))

    def _text(self, key: str) -> str:
        self.store.wait([key], FOREVER)
        return str(self.store.get(key), "utf-8")
