"""The first rank of a further host: it starts the host's other ranks, reports their ends to the leader, and where they stand.

It ends with its host's capture, which need not be its parent, as nsys may stand between.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from moeprof.errors import ExitCode
from moeprof.machine.launcher import Team
from moeprof.storage.files import of_rank
from moeprof.worker import processes
from moeprof.worker.channel import Channel
from moeprof.worker.failures import Failure, Position
from moeprof.worker.processes import Children
from moeprof.worker.spec import WorkerSpec

LOOK_S = 0.2
LINGER_S = 1.0  # of a head that fails: for the end of another rank of its host to be reported
ORPHANED = "the capture of its host ended"


class Head:
    """The other ranks of this host, of which ``channel`` is the first rank's."""

    def __init__(self, spec: WorkerSpec, team: Team, channel: Channel) -> None:
        assert spec.follower is not None
        self.team, self.rank, self.host = team, channel.rank, team.host(channel.rank)
        self._channel = channel.again()
        self._channel.ahead_s = channel.ahead_s
        self._log = Path(spec.log or "worker.log")
        self._main, self._over = threading.get_ident(), threading.Event()
        self.children = Children(self._log, self._report)
        end_with(spec.follower.parent_pid, self._orphaned)
        child = replace(spec, follower=replace(spec.follower, head=False, parent_pid=os.getpid()))
        for rank in team.of_host(self.host)[1:]:
            self.children.start(rank, child, processes.environment(team, rank, channel.address, channel.port))
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def close(self) -> None:
        """The ranks were told to quit: their ends are no failures any more."""
        self.children.closing = True
        self._over.set()
        self._listener.join(processes.STAND_S)  # a thread that is in the store when the process ends would abort it

    def linger(self) -> None:
        """This rank failed: let the end of another rank, of which that may be the consequence, be reported too."""
        self.children.linger(LINGER_S)
        self._over.set()

    def _report(self, failure: Failure) -> None:
        self._channel.report(replace(failure, at_s=self._channel.now_s()))

    def _orphaned(self) -> None:
        """The capture of this host has ended, and its ranks do: the leader and rank 0's capture are to know."""
        self._report(Failure(self.rank, "died", ORPHANED, "nothing"))
        self._channel.store.put(f"left/{self.host}", ORPHANED)

    def _listen(self) -> None:
        """Report once where the ranks of this host stand, if the leader asks."""
        with suppress(ConnectionError):  # the main thread sees it too
            while not self._over.wait(LOOK_S):
                if self._channel.asks_where():
                    self._channel.located(self.host, self._positions())
                    return

    def _positions(self) -> tuple[Position, ...]:
        running = {rank: (child.pid, of_rank(self._log, rank)) for rank, child in self.children.running.items()}
        frame = sys._current_frames().get(self._main)
        at = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""
        return (Position(self.rank, at=at), *processes.positions(running).values())


def end_with(pid: int, last: Callable[[], None]) -> None:
    """End when the process ``pid`` does; ``last`` is called before."""

    def watch() -> None:
        until_ended(pid)
        try:
            last()
        finally:
            os._exit(ExitCode.FAILED)

    threading.Thread(target=watch, daemon=True).start()


def until_ended(pid: int) -> None:
    """Until a process that is no child of ours has ended; where the kernel lets nobody wait for that, by looking."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError:  # an old kernel, or a sandbox
        while processes.state(pid) not in ("", "Z"):
            time.sleep(LOOK_S)
        return
    try:
        select.select([descriptor], [], [])
    finally:
        os.close(descriptor)
