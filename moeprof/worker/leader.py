"""Rank 0 as leader: it starts the other ranks as its children, sends every request to all, and ends all if one fails or hangs.

While the leader does its own part it may be stuck in a collective whose peer is gone. So one thread takes all events, hands them
to the ``RankGroup``, which decides, and does what that returns: in the end it reports the failure and ends this process.
"""

from __future__ import annotations

import os
import queue
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from moeprof.errors import ExitCode, ToolError, of_workload
from moeprof.storage.files import of_rank
from moeprof.worker import failures, follower, messages, processes, rank_group
from moeprof.worker.channel import Channel
from moeprof.worker.failures import Failure, Position, RankError
from moeprof.worker.messages import ErrorReply, Quit, R, RankProcess, Request
from moeprof.worker.processes import Children
from moeprof.worker.rank_group import Event, RankGroup
from moeprof.worker.server import Local
from moeprof.worker.spec import Follower, WorkerSpec

GROUP_FACTOR = 3  # the process group's own limit is that many times the leader's, which names the rank
LOOK_S = 0.25  # between two looks at what ranks of other hosts reported

Report = Callable[[ErrorReply], None]


class Leader:
    """The ranks of one run. ``report`` writes the one line on a failure; the spec's ``timeout_s`` is the time limit of one request."""

    def __init__(self, local: Local, spec: WorkerSpec, report: Report):
        assert spec.target is not None and spec.target.team is not None
        self.local, self.team, self._report = local, spec.target.team, report
        self._log = Path(spec.log) if spec.log else _own_log(self.team.ranks)
        self._children = Children(self._log, lambda failure: self._events.put(rank_group.Failed(failure)))
        self._group_timeout_s = GROUP_FACTOR * spec.timeout_s
        place = Follower(os.getpid(), self._group_timeout_s)
        self._spec = replace(spec, mode="follow", measurement=None, follower=place)
        self._several = len(self.team.layout) > 1
        self._group = RankGroup(self.team, spec.timeout_s, self._log)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._main = threading.get_ident()
        self._number = 0

    def start(self) -> tuple[RankProcess, ...]:
        """Start the other ranks of this host and join all; the process of each rank.

        Raises:
            ToolError: there are fewer GPUs than ranks.
        """
        here = self.team.layout[0]
        if self.local.device == "cuda" and here > self.local.facts.gpus:
            raise ToolError(
                f"{here} ranks need {here} GPUs, torch sees {self.local.facts.gpus}", "give a smaller --nproc"
            )
        if self._several:
            self._channel = Channel.join(self.team.address, self.team.port, 0, self.team.ranks, self.team.room)
        else:
            self._channel = Channel.serve(self.team.ranks)
        self._ear = self._channel.again()  # the watching thread's
        os.environ.update(self._environment(0))
        self._watcher.start()
        for rank in range(1, here):
            self._children.start(rank, self._spec, self._environment(rank))
        with self._asking("start"):
            follower.enter(self.local.device, 0, self._channel, self._group_timeout_s)
            self.local.barrier = self._channel.barrier
            self._events.put(rank_group.LeaderAnswered())
            replies = (self.local.about(), *self._channel.replies(0))
        return tuple(reply for reply in replies if isinstance(reply, RankProcess))

    def ask(self, request: Request[R]) -> list[R]:
        """Every rank's reply, by rank. If a rank fails this does not return: the process ends and reports why."""
        self._number += 1
        with self._asking(messages.name(request)):
            self._channel.send(self._number, request)
            leader_reply = self.local.answer(request)
            self._events.put(rank_group.LeaderAnswered())
            return [leader_reply, *(messages.reply_to(request, reply) for reply in self._channel.replies(self._number))]

    def restart_clock(self) -> None:
        """From now on all requests together have the time limit, as a run under a profiler has."""
        self._events.put(rank_group.RunStarted())

    def close(self) -> None:
        """All ranks end; those that do not in time are killed."""
        self._children.closing = True
        self._events.put(rank_group.Closing())
        clock = threading.Timer(follower.QUIT_S, os._exit, (ExitCode.OK,))
        clock.daemon = True
        clock.start()
        if self._watcher.ident is not None:  # the ranks were started
            self._watcher.join(follower.QUIT_S)  # a thread that waits in the store when the process ends would abort it
            self._channel.send(self._number + 1, Quit())
        follower.leave()
        self._children.wait(follower.QUIT_S)
        clock.cancel()

    def _environment(self, rank: int) -> dict[str, str]:
        return processes.environment(self.team, rank, self._channel.address, self._channel.port)

    @contextmanager
    def _asking(self, request: str) -> Iterator[None]:
        """The block has the time limit. A failure in it is one of rank 0: the watching thread ends the process."""
        self._events.put(rank_group.Asked(request))
        try:
            yield
        except Exception as error:
            self._error = error
            self._events.put(rank_group.Failed(failures.raised(0, of_workload(error), time.time())))
            threading.Event().wait()
        self._events.put(rank_group.AllAnswered())

    def _watch(self) -> None:
        """Until the ranks quit; whatever else happens here, this process ends: the main thread may wait for ever."""
        try:
            event: Event = rank_group.Tick()
            while event != rank_group.Closing():
                self._do(self._group.handle(event, time.monotonic()))
                event = self._next()
        except Exception:  # nobody reads the report, or a log cannot be read
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(ExitCode.WORKLOAD)

    def _next(self) -> Event:
        wake_s = self._group.wake_s
        left_s = None if wake_s is None else max(wake_s - time.monotonic(), 0)
        if self._several:
            left_s = LOOK_S if left_s is None else min(LOOK_S, left_s)
        try:
            return self._events.get(timeout=left_s)
        except queue.Empty:
            reports = self._ear.new_failures() if self._several else ()
            return rank_group.Reports(reports) if reports else rank_group.Tick()

    def _do(self, action: rank_group.Action | None) -> None:
        match action:
            case rank_group.ReadReports():
                reports = rank_group.Reports(self._ear.new_failures())
                self._do(self._group.handle(reports, time.monotonic()))
            case rank_group.Locate(leader):
                positions = (*self._positions(), *((self._own_position(),) if leader else ()))
                self._do(self._group.handle(rank_group.Located(positions), time.monotonic()))
            case rank_group.End(failure):
                self._end(failure)

    def _positions(self) -> tuple[Position, ...]:
        """Where the ranks stand that have not answered, as this host's kernel and logs and the heads of other hosts report."""
        silent = self._ear.silent(self._number)
        running = {rank: self._children.running[rank].pid for rank in silent if rank < self.team.layout[0]}
        here = processes.positions({rank: (pid, of_rank(self._log, rank)) for rank, pid in running.items()})
        hosts = {self.team.host(rank) for rank in silent} - {0}
        there = self._ear.locate(hosts, processes.STAND_S) if hosts else {}
        return tuple((here | there).get(rank, Position(rank)) for rank in silent)

    def _own_position(self) -> Position:
        frame = sys._current_frames().get(self._main)
        return Position(0, at=f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "")

    def _end(self, failure: Failure) -> None:
        """Report the failure and end every rank and this process."""
        if failure.rank == 0 and failure.kind == "failed":
            traceback.print_exception(self._error)
        self._children.kill()
        self._report(ErrorReply.of(RankError(failure)))
        sys.stderr.flush()
        os._exit(failure.code)


def _own_log(ranks: int) -> Path:
    """Where rank 0's log would be that nobody wants: the other ranks write beside it."""
    return Path(tempfile.mkdtemp(prefix="moeprof-ranks-") if ranks > 1 else "") / "worker.log"


def share_cores(ranks: int) -> None:
    """Ranks share the host's cores, as under torchrun the user may say otherwise; before torch is imported."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
