"""Letters between the captures of several hosts: signed JSON and files in pieces, through torch's TCPStore.

Rank 0's capture keeps the store; the others connect to it. Nothing that comes over the network is run: a letter is JSON, and one whose
signature (HMAC-SHA256 of its key and text with the meeting's token) is wrong is refused. The token itself never travels. Whatever finds the
store gone raises a ConnectionError.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from moeprof.errors import CaptureError, ToolError
from moeprof.worker.clock_offset import Exchange, Offset, ahead
from moeprof.worker.host_rendezvous import PORT, Meeting

PIECE_BYTES = 4 << 20
AHEAD = 4  # pieces that may wait in the store's memory
PONG_S = 10.0
EXCHANGES = 64  # of one measurement of a clock: the shortest of so many is hardly ever a slow one
LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"

P = ParamSpec("P")
R = TypeVar("R")


def lost(method: Callable[P, R]) -> Callable[P, R]:
    """A store that is gone, or cannot be reached any more, is a ConnectionError."""

    @wraps(method)
    def tried(*args: P.args, **words: P.kwargs) -> R:
        from torch.distributed import DistError

        try:
            return method(*args, **words)
        except DistError as error:
            raise ConnectionError(str(error).partition("\n")[0]) from error

    return tried


@contextmanager
def _quiet() -> Iterator[None]:
    """torch, where it is first imported in the block, does not log what its store meets: a peer that is gone is told in our own words.
    Processes that are started later log as ever."""
    given = os.environ.get(LOG_LEVEL)
    os.environ.setdefault(LOG_LEVEL, "FATAL")
    try:
        yield
    finally:
        if given is None:
            del os.environ[LOG_LEVEL]


class Post:
    """One connection to the store at ``meeting``. A call that waits holds it: each thread takes one of its own (``again``)."""

    def __init__(self, meeting: Meeting, keeps: bool, timeout_s: float) -> None:
        """``keeps``: this is rank 0's capture, and the store is made here.

        Raises:
            ToolError: the port is taken, or nobody answers there within ``timeout_s``.
        """
        with _quiet():
            from torch.distributed import DistNetworkError, TCPStore

        self.meeting = meeting
        limit = timedelta(seconds=timeout_s)
        try:
            self.store = TCPStore(meeting.address, meeting.port, None, keeps, timeout=limit, wait_for_workers=False)
        except DistNetworkError as error:
            raise _unreachable(meeting, keeps, timeout_s, str(error)) from error

    def again(self) -> Post:
        """A connection of its own to the same store."""
        return Post(self.meeting, False, 60)

    @lost
    def send(self, key: str, said: dict[str, Any]) -> None:
        """Leave a letter under ``key``."""
        text = json.dumps(said)
        self.store.set(key, f"{self._signature(key, text)} {text}")

    @lost
    def take(self, key: str, timeout_s: float) -> dict[str, Any] | None:
        """The letter under ``key``, which then is gone; None where there is none within ``timeout_s``.

        Raises:
            CaptureError: who wrote it does not know the token.
        """
        if not self._there(key, timeout_s):
            return None
        signature, _, text = self.store.get(key).decode(errors="replace").partition(" ")
        self.store.delete_key(key)
        if not hmac.compare_digest(signature.encode(), self._signature(key, text).encode()):
            raise CaptureError(
                f"a message at {self.meeting.address}:{self.meeting.port} is not signed as this run's are",
                f"another run may use the port: give {PORT}, and the same MOEPROF_TOKEN on all hosts",
            )
        said: dict[str, Any] = json.loads(text)
        return said

    def _there(self, key: str, timeout_s: float) -> bool:
        """Whether the key is there in time."""
        from torch.distributed import DistStoreError

        try:
            self.store.wait([key], timedelta(seconds=timeout_s))
        except DistStoreError:
            return False
        return True

    @lost
    def has(self, key: str) -> bool:
        """Whether there is something under ``key``, at once."""
        return bool(self.store.check([key]))

    def wait_taken(self, keys: list[str], timeout_s: float) -> None:
        """Until nothing is left under ``keys``, at most so long."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until and any(self.has(key) for key in keys):
            time.sleep(0.05)

    def _signature(self, key: str, text: str) -> str:
        return hmac.new(self.meeting.token.encode(), f"{key}\n{text}".encode(), hashlib.sha256).hexdigest()

    @lost
    def queue(self, name: str, said: dict[str, Any]) -> int:
        """Leave a letter as the next of the queue ``name``, which several may write to; its number."""
        number: int = self.store.add(f"{name}/last", 1)
        self.send(f"{name}/{number}", said)
        return number

    @lost
    def count(self, name: str) -> int:
        """One more of what ``name`` counts, as a sign of life."""
        found: int = self.store.add(name, 1)
        return found

    @lost
    def read(self, name: str) -> int:
        """How many ``name`` counts."""
        found: int = self.store.add(name, 0)
        return found

    @lost
    def send_file(self, key: str, path: Path, timeout_s: float) -> str:
        """Send a file in pieces that ``receive_file`` takes; its SHA-256.

        Raises:
            CaptureError: nobody takes them in time.
        """
        digest, number = hashlib.sha256(), 0
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
                self.store.set(f"{key}/{number}", piece)
                if number >= AHEAD and not self._there(f"{key}/{number - AHEAD}/taken", timeout_s):
                    raise CaptureError(f"nobody took {path.name} within {timeout_s:.0f} s", "see the capture of rank 0")
                number += 1
        self.store.set(f"{key}/{number}", "")
        return digest.hexdigest()

    @lost
    def receive_file(self, key: str, target: Path, timeout_s: float) -> str:
        """Write to ``target`` the pieces of a file up to an empty one; their SHA-256, to hold against the sender's.

        Raises:
            CaptureError: a piece did not come in time.
        """
        digest, number, piece = hashlib.sha256(), 0, b"more"
        with target.open("wb") as file:
            while piece:
                if not self._there(f"{key}/{number}", timeout_s):
                    raise CaptureError(f"{target.name} did not come whole within {timeout_s:.0f} s", "capture again")
                piece = self.store.get(f"{key}/{number}")
                file.write(piece)
                digest.update(piece)
                self.store.delete_key(f"{key}/{number}")
                self.store.set(f"{key}/{number}/taken", "")
                number += 1
        return digest.hexdigest()

    @lost
    def clock(self, name: str) -> Offset:
        """How far this host's clock is ahead of that of rank 0's, which answers by ``answer_clock``.

        Raises:
            CaptureError: it does not answer.
        """
        return ahead([self._exchange(f"{name}/{number}") for number in range(EXCHANGES)])

    def _exchange(self, name: str) -> Exchange:
        sent = time.time_ns()
        self.store.set(f"{name}/ping", "")
        if not self._there(f"{name}/pong", PONG_S):
            raise CaptureError(f"a clock did not answer within {PONG_S:.0f} s", "see the capture of rank 0")
        returned = time.time_ns()
        heard, answered = (int(part) for part in self.store.get(f"{name}/pong").split())
        self.store.delete_key(f"{name}/pong")
        return Exchange(sent, heard, answered, returned)

    @lost
    def answer_clock(self, name: str, timeout_s: float) -> bool:
        """Answer one measurement of a clock; whether the other side went through with it in time."""
        for number in range(EXCHANGES):
            if not self._there(f"{name}/{number}/ping", timeout_s):
                return False
            heard = time.time_ns()
            self.store.set(f"{name}/{number}/pong", f"{heard} {time.time_ns()}")
            self.store.delete_key(f"{name}/{number}/ping")
        return True


def _unreachable(meeting: Meeting, keeps: bool, timeout_s: float, said: str) -> ToolError:
    where, other = f"{meeting.address}:{meeting.port}", f"give another port on all hosts: {PORT}"
    if keeps:
        taken = "EADDRINUSE" in said
        why = "the port is taken" if taken else said.partition("\n")[0][:200]
        return ToolError(f"captures of several hosts cannot meet at {where}: {why}", other)
    return ToolError(
        f"the capture of rank 0 did not answer at {where} within {timeout_s:.0f} s",
        f"let the network pass this port, check the address of rank 0's host, or {other}",
    )
