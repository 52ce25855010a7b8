"""What processes exchange beside their work, as JSON through torch's TCPStore: ``JsonStore``; and what the ranks of one run do: ``Channel``.

Nothing here touches the GPU or the process group. One host alone has a store on its loopback. Several hosts share the store of
their launcher's rendezvous, each run under a prefix of its own. A waiting call holds its connection: each thread that may wait
opens another (``again``). A store that is gone raises a ConnectionError.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from moeprof.errors import CaptureError, ToolError
from moeprof.storage.json import decode, encode
from moeprof.worker import clock_offset, messages
from moeprof.worker.clock_offset import Exchange, Offset
from moeprof.worker.failures import Failure, Position
from moeprof.worker.messages import Reply, Request

LOOPBACK = "127.0.0.1"
FOREVER = timedelta(days=365)  # the leader's time limit ends who waits too long, and names the rank
CONNECT_S = 60.0
LOOK_S = 0.05
PONG_S = 10.0
EXCHANGES = 64  # of one measurement of a clock: the shortest of so many is hardly ever a slow one
LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"

T = TypeVar("T")


class JsonStore:
    """JSON values by key. ``raw`` is torch's store, ``connect`` opens another connection to it."""

    def __init__(self, raw: Any, connect: Callable[[], Any], prefix: str = "") -> None:
        self.raw, self._connect, self.prefix = raw, connect, prefix

    @classmethod
    def loopback(cls) -> JsonStore:
        """A store of this host alone, on a free port of the loopback: no other host can reach it."""
        from torch.distributed import TCPStore

        listening = socket.create_server((LOOPBACK, 0), backlog=1024)
        port = listening.getsockname()[1]
        raw = TCPStore(
            LOOPBACK, port, None, True, timeout=timedelta(seconds=CONNECT_S), wait_for_workers=False,
            master_listen_fd=listening.detach(),
        )  # fmt: skip
        return cls(raw, lambda: _client(LOOPBACK, port, CONNECT_S))

    @classmethod
    def open(cls, address: str, port: int, serve: bool = False, timeout_s: float = CONNECT_S) -> JsonStore:
        """The store at an address, which this process keeps if it is to ``serve``.

        Raises:
            ToolError: the port is taken, or nothing answers within ``timeout_s``.
        """
        from torch.distributed import DistNetworkError, TCPStore

        try:
            if not serve:
                raw = _client(address, port, timeout_s)
            else:
                limit = timedelta(seconds=timeout_s)
                raw = TCPStore(address, port, None, True, timeout=limit, wait_for_workers=False)
        except DistNetworkError as error:
            raise _unreachable(f"{address}:{port}", serve, timeout_s, str(error)) from error
        return cls(raw, lambda: _client(address, port, CONNECT_S))

    def again(self) -> JsonStore:
        """A connection of its own to the same keys."""
        return JsonStore(_tried(self._connect), self._connect, self.prefix)

    def under(self, prefix: str) -> JsonStore:
        """The keys under a prefix, by the same connection."""
        return JsonStore(self.raw, self._connect, f"{self.prefix}{prefix}/")

    def put(self, key: str, value: Any) -> None:
        """Set a key."""
        _tried(self.raw.set, self.prefix + key, json.dumps(encode(value)))

    def has(self, key: str) -> bool:
        """Whether the key is set, at once."""
        return bool(_tried(self.raw.check, [self.prefix + key]))

    def wait(self, key: str) -> Any:
        """The value of a key, once it is set."""
        _tried(self.raw.wait, [self.prefix + key], FOREVER)
        return json.loads(_tried(self.raw.get, self.prefix + key))

    def get(self, key: str, timeout_s: float) -> Any | None:
        """The value of a key; None if it is not set within ``timeout_s``."""
        until = time.monotonic() + timeout_s
        while not self.has(key):
            if time.monotonic() >= until:
                return None
            time.sleep(LOOK_S)
        return self.wait(key)

    def add(self, key: str, count: int) -> int:
        """Add to a counter; the sum."""
        return int(_tried(self.raw.add, self.prefix + key, count))

    def append(self, key: str, value: Any) -> int:
        """Set the next key of a series, ``key/1`` and so on; its number."""
        number = self.add(key, 1)
        self.put(f"{key}/{number}", value)
        return number

    def delete(self, key: str) -> None:
        """Forget a key."""
        _tried(self.raw.delete_key, self.prefix + key)

    def clock_offset(self, name: str) -> Offset:
        """How far this host's clock is ahead of that of the host which runs ``answer_clock(name)``.

        Raises:
            CaptureError: it does not answer.
        """
        return clock_offset.ahead([self._exchange(f"{name}/{number}") for number in range(EXCHANGES)])

    def _exchange(self, name: str) -> Exchange:
        sent = time.time_ns()
        self.put(f"{name}/ping", 0)
        if not self._set_within(f"{name}/pong", PONG_S):
            raise CaptureError(
                f"a clock did not answer within {PONG_S:.0f} s", "read the output of the capture of rank 0"
            )
        returned = time.time_ns()
        heard, answered = self.wait(f"{name}/pong")
        self.delete(f"{name}/pong")
        return Exchange(sent, heard, answered, returned)

    def answer_clock(self, name: str, timeout_s: float) -> bool:
        """Answer one measurement of a clock; whether the other host went through with it in time."""
        for number in range(EXCHANGES):
            if not self._set_within(f"{name}/{number}/ping", timeout_s):
                return False
            heard = time.time_ns()
            self.put(f"{name}/{number}/pong", (heard, time.time_ns()))
            self.delete(f"{name}/{number}/ping")
        return True

    def _set_within(self, key: str, timeout_s: float) -> bool:
        """As ``has``, without a delay of our own."""
        from torch.distributed import DistStoreError

        try:
            self.raw.wait([self.prefix + key], timedelta(seconds=timeout_s))
        except DistStoreError:
            return False
        except RuntimeError as error:
            raise ConnectionError(str(error).partition("\n")[0]) from error
        return True


class Channel:
    """What rank ``rank`` of a run exchanges with the others: requests, replies, barriers, failures, positions."""

    def __init__(self, store: JsonStore, rank: int, ranks: int, address: str, port: int) -> None:
        self.store, self.rank, self.ranks, self.address, self.port = store, rank, ranks, address, port
        self.ahead_s = 0.0  # of this host's clock against that of rank 0's host
        self._barriers = self._read = 0

    @classmethod
    def serve(cls, ranks: int) -> Channel:
        """Rank 0's, of a run on this host alone."""
        store = JsonStore.loopback()
        return cls(store, 0, ranks, LOOPBACK, store.raw.port)

    @classmethod
    def join(cls, address: str, port: int, rank: int, ranks: int, room: str = "") -> Channel:
        """Of a run whose store is at an address, under the prefix ``room``."""
        store = JsonStore.open(address, port)
        return cls(store.under(room) if room else store, rank, ranks, address, port)

    def again(self) -> Channel:
        """A connection of its own to the same store."""
        return Channel(self.store.again(), self.rank, self.ranks, self.address, self.port)

    def send(self, number: int, request: Request[Any]) -> None:
        """Request ``number`` to every other rank."""
        self.store.put(f"request/{number}", messages.line(request))

    def receive(self, number: int) -> Request[Any]:
        """Request ``number``, once it is there."""
        return messages.request(self.store.wait(f"request/{number}"))

    def reply(self, number: int, reply: Reply) -> None:
        """This rank's reply to request ``number``."""
        self.store.put(f"reply/{number}/{self.rank}", messages.line(reply))

    def replies(self, number: int) -> list[Reply]:
        """The replies of ranks 1 and up, once all are there; then the request is forgotten."""
        keys = [f"reply/{number}/{rank}" for rank in range(1, self.ranks)]
        replies = [messages.reply(self.store.wait(key)) for key in keys]
        for key in (f"request/{number}", *keys):
            self.store.delete(key)
        return replies

    def silent(self, number: int) -> list[int]:
        """The ranks from 1 up that have not answered request ``number``."""
        return [rank for rank in range(1, self.ranks) if not self.store.has(f"reply/{number}/{rank}")]

    def barrier(self) -> None:
        """Return once every rank is here; all call it equally often."""
        self._barriers += 1
        name = f"barrier/{self._barriers}"
        if self.store.add(name, 1) == self.ranks:
            self.store.put(f"{name}/open", 0)
        self.store.wait(f"{name}/open")

    def now_s(self) -> float:
        """The time of day by the clock of rank 0's host, as well as it is known here."""
        return time.time() - self.ahead_s

    def report(self, failure: Failure) -> None:
        """Report a failure of this rank, or of one that this process watches, to the leader."""
        self.store.append("failure", failure)

    def new_failures(self) -> tuple[Failure, ...]:
        """The failures that were reported since the last call."""
        failures = []
        while self.store.has(f"failure/{self._read + 1}"):
            self._read += 1
            failures.append(decode(Failure, self.store.wait(f"failure/{self._read}")))
        return tuple(failures)

    def locate(self, hosts: Iterable[int], timeout_s: float) -> dict[int, Position]:
        """Where the ranks of other hosts stand, by rank, as their heads report; those of a host that gives no answer in time are
        left out."""
        self.store.put("locate", 0)
        until = time.monotonic() + timeout_s
        replies = (self.store.get(f"located/{host}", max(until - time.monotonic(), 0)) for host in sorted(hosts))
        positions = (decode(Position, position) for reply in replies for position in reply or ())
        return {position.rank: position for position in positions}

    @property
    def over(self) -> bool | None:
        """Whether the run ended so that its ranks end by themselves; None while its leader runs."""
        return self.store.get("over", 0)

    def asks_where(self) -> bool:
        """Whether the leader wants to know where ranks stand."""
        return self.store.has("locate")

    def located(self, host: int, positions: Iterable[Position]) -> None:
        """Report where the ranks of a host stand."""
        self.store.put(f"located/{host}", tuple(positions))


def _client(address: str, port: int, timeout_s: float) -> Any:
    from torch.distributed import TCPStore

    return TCPStore(address, port, None, False, timeout=timedelta(seconds=timeout_s), wait_for_workers=False)


def _tried(call: Callable[..., T], *words: Any) -> T:
    """torch raises a RuntimeError of its own where a store is gone or cannot be reached any more."""
    try:
        return call(*words)
    except RuntimeError as error:
        raise ConnectionError(str(error).partition("\n")[0]) from error


@contextmanager
def quiet_torch() -> Iterator[None]:
    """torch, if it is first imported in the block, does not log what its store meets: our own errors report that. Processes that
    are started later log as ever."""
    given = os.environ.get(LOG_LEVEL)
    os.environ.setdefault(LOG_LEVEL, "FATAL")
    try:
        yield
    finally:
        if given is None:
            del os.environ[LOG_LEVEL]


def _unreachable(where: str, serve: bool, timeout_s: float, why: str) -> ToolError:
    if serve:
        why = "the port is taken" if "EADDRINUSE" in why else why.partition("\n")[0][:200]
        return ToolError(
            f"captures of several hosts cannot meet at {where}: {why}", "set another MASTER_PORT on all hosts"
        )
    return ToolError(
        f"the capture of rank 0 did not answer at {where} within {timeout_s:.0f} s",
        "open this port in the network, or set MASTER_ADDR and MASTER_PORT on all hosts",
    )
