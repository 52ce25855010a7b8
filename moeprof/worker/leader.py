"""Rank 0 as leader: it starts the other ranks as its children, asks all, and ends all where one of them fails or hangs.

While the leader does its own part it may be stuck in a collective whose peer is gone. So threads watch: one for the end of
each child, and a clock for each request. Whichever sees a failure first finds out which rank failed first, says so, and ends
this process; the children end with it.

Ranks of further hosts are children of a process there, which its host's capture starts when the leader asks for it by letter.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from moeprof.errors import ExitCode, ToolError, of_workload
from moeprof.storage.files import of_rank
from moeprof.worker import failures, follower, messages, processes
from moeprof.worker.channel import Channel
from moeprof.worker.failures import Cause, Late
from moeprof.worker.host_coordinator import Beyond
from moeprof.worker.messages import ErrorReply, Quit, R, RankProcess, Request
from moeprof.worker.processes import Children
from moeprof.worker.server import Local
from moeprof.worker.spec import Follower, WorkerSpec

SETTLE_S = 0.5  # after the first sign of a failure: for its cause to show
FAR_S = 5.0  # more, for that of a rank on another host
GROUP_FACTOR = 3  # the process group's own limit is that many times the leader's, which names the rank
HOST = "127.0.0.1"

Say = Callable[[ErrorReply], None]


class Leader:
    """A crew of processes of this host, and of further ones. ``say`` takes the one line on a failure; the spec's ``timeout_s``
    is the time limit of one request."""

    def __init__(self, local: Local, spec: WorkerSpec, say: Say):
        assert spec.target is not None and spec.target.team is not None
        self.local, self.team, self.timeout_s, self._say = local, spec.target.team, spec.timeout_s, say
        self.ranks = self.team.ranks
        self._log = (
            Path(spec.log)
            if spec.log
            else Path(tempfile.mkdtemp(prefix="moeprof-ranks-") if self.ranks > 1 else "") / "worker.log"
        )
        self._children = Children(self._log, self._lost)
        follower_ = Follower(os.getpid(), GROUP_FACTOR * spec.timeout_s)
        self._spec = replace(spec, mode="follow", measurement=None, follower=follower_)
        self._beyond = Beyond(self.team) if len(self.team.layout) > 1 else None
        self._ended: dict[int, Cause] = {}
        self._failing = threading.Lock()
        self._number, self._doing, self._when, self._own_done, self._closing = 0, "start", "in", False, False
        self._main = threading.get_ident()
        self._until: float | None = None  # of a run that is timed as a whole

    def start(self) -> tuple[RankProcess, ...]:
        """Start the others and join them; the process of each rank.

        Raises:
            ToolError: there are fewer GPUs than ranks.
        """
        mine = self.team.layout[0]
        if self.local.device == "cuda" and mine > self.local.facts.gpus:
            raise ToolError(
                f"{mine} ranks need {mine} GPUs, torch sees {self.local.facts.gpus}", "give a smaller --nproc"
            )
        several = self._beyond is not None
        where = (self.team.address, self.team.port) if several else (HOST, 0)
        self._channel = Channel(*where, 0, self.ranks, keeps=not several, room=self.team.room)
        self._ear = self._channel.again()  # of the threads that watch
        os.environ.update(self._environment(0))
        for rank in range(1, mine):
            self._children.start(rank, self._spec, self._environment(rank))
        if self._beyond is not None:
            self._beyond.start(GROUP_FACTOR * self.timeout_s, self._lost)
        with self._within("start"):
            follower.enter(self.local.device, 0, self._channel, GROUP_FACTOR * self.timeout_s)
            self.local.barrier = self._channel.barrier
            self._own_done = True
            about = [reply for reply in self._channel.replies(0) if isinstance(reply, RankProcess)]
            return self._met([self.local.about(), *about])

    def _met(self, about: list[RankProcess]) -> tuple[RankProcess, ...]:
        """Every rank with its host; the numbers of processes are kept, for the case that one hangs."""
        ranks = tuple(replace(rank, host=self.team.host(rank.rank)) for rank in about)
        if self._beyond is not None:
            self._beyond.pids = {rank.rank: rank.pid for rank in ranks}
        return ranks

    def ask(self, request: Request[R]) -> list[R]:
        """Every rank's reply, by rank. Does not return where a rank fails: this process ends, and says why."""
        self._number += 1
        with self._within(messages.name(request)):
            self._channel.send(self._number, request)
            own = self.local.answer(request)
            self._own_done = True
            return [own, *(messages.reply_to(request, reply) for reply in self._channel.replies(self._number))]

    def restart_clock(self) -> None:
        """From now on all that is asked together has the time limit, as a run under a profiler has."""
        self._until = time.monotonic() + self.timeout_s

    def close(self) -> None:
        """All ranks end; those that do not in time are killed."""
        self._children.closing = self._closing = True
        clock = threading.Timer(follower.QUIT_S, os._exit, (ExitCode.OK,))
        clock.daemon = True
        clock.start()
        if self._number or self._children.running:
            self._channel.send(self._number + 1, Quit())
        follower.leave()
        if self._beyond is not None:
            self._beyond.close(self._channel)
        self._children.wait(follower.QUIT_S)
        clock.cancel()

    def _environment(self, rank: int) -> dict[str, str]:
        return processes.environment(self.team, rank, self._channel.address, self._channel.port)

    def _lost(self, cause: Cause) -> None:
        """A rank ended, or a whole host: told in a thread."""
        if not self._closing:
            self._ended[cause.rank] = cause
            self._fail()

    @contextmanager
    def _within(self, doing: str) -> Iterator[None]:
        """The block has the time limit; a failure in it is told with that of the other ranks."""
        self._doing, self._when, self._own_done = doing, "in", False
        left = self.timeout_s if self._until is None else max(self._until - time.monotonic(), 0.1)
        clock = threading.Timer(left, self._late)
        clock.daemon = True
        clock.start()
        try:
            yield
            self._when = "after"
        except Exception as error:
            self._fail(error)
        finally:
            clock.cancel()

    def _fail(self, own: Exception | None = None) -> NoReturn:
        """Say which rank failed first, and end; only one thread does."""
        at_s = time.time()
        if not self._failing.acquire(blocking=False):
            threading.Event().wait()
        with _ending():
            self._blame(own, at_s)

    def _blame(self, own: Exception | None, at_s: float) -> NoReturn:
        cause = failures.first(self._settled(own, at_s))
        cause = replace(cause, host=self.team.named(cause.rank))
        if own is not None and cause.rank == 0:
            import traceback

            traceback.print_exception(own)
        message = failures.sentence(cause, self.ranks, self._doing, self._when)
        self._end(message, cause.hint or f"read {self._shown(cause.rank)}", cause.code, cause.rank)

    def _settled(self, own: Exception | None, at_s: float) -> list[Cause]:
        """The causes, once they had time to show. Of several hosts a rank's own end is told over the network, later than its peers
        notice by their collectives: it is waited for, as long as nothing but errors is known."""
        time.sleep(SETTLE_S)
        until = time.monotonic() + (FAR_S if self._beyond is not None else 0)
        found = list(self._causes(own, at_s))
        while time.monotonic() < until and not any(failures.by_itself(cause) for cause in found):
            time.sleep(SETTLE_S / 5)
            found = list(self._causes(own, at_s))
        return found

    def _causes(self, own: Exception | None, at_s: float) -> Iterator[Cause]:
        said = self._ear.failures()
        for rank, end in self._ended.items():
            if rank not in said:
                yield end
        for rank, words in said.items():
            yield Cause(rank, f"exit status {words.code}", words.error, words.at_s, words.code, hint=words.hint)
        if own is not None:
            known = of_workload(own)
            code = int(known.exit_code)
            yield Cause(0, f"exit status {code}", known.message, at_s, code, hint=known.hint)

    def _late(self) -> None:
        """The time of a request is over."""
        if not self._failing.acquire(blocking=False):
            return
        with _ending():
            self._blame_late()

    def _blame_late(self) -> NoReturn:
        late = self._where(self._ear.silent(self._number))
        if not self._own_done:
            frame = sys._current_frames().get(self._main)
            late.append(Late(0, False, f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""))
        blamed = tuple(replace(one, host=self.team.named(one.rank)) for one in failures.late_ranks(late))
        message = failures.late_sentence(blamed, self.ranks, self._doing, self.timeout_s)
        hint = f"allow more with --timeout, or read {self._shown(blamed[0].rank)}"
        self._end(message, hint, ExitCode.WORKLOAD, blamed[0].rank)

    def _where(self, ranks: list[int]) -> list[Late]:
        """Where ranks stand, as this host's kernel and logs tell, and the captures of further hosts."""
        mine, running = self.team.layout[0], self._children.running
        found = [
            Late(rank, *processes.where(running[rank].pid, of_rank(self._log, rank))) for rank in ranks if rank < mine
        ]
        further = [rank for rank in ranks if rank >= mine]
        return found + (self._beyond.where(further) if self._beyond is not None and further else [])

    def _shown(self, rank: int) -> str:
        """A rank's log without the folder above, which takes another name when the capture is whole."""
        log = of_rank(self._log, rank)
        return f"{log.parent.name}/{log.name}"

    def _end(self, message: str, hint: str, code: int, rank: int) -> NoReturn:
        self._children.kill()
        self._say(ErrorReply(message, hint, int(code), rank))
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def _ending() -> Iterator[None]:
    """Whatever happens in the block, this process ends: another thread would wait for that for ever."""
    try:
        yield
    except Exception:  # nobody reads what is said, or a log cannot be read
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(ExitCode.WORKLOAD)


def share_cores(ranks: int) -> None:
    """Ranks share the host's cores, as under torchrun the user may say otherwise; before torch is imported."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
