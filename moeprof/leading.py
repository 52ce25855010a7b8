"""Rank 0 as leader: it starts the other ranks as its children, asks all, and ends all where one of them fails or hangs.

While the leader does its own part it may be stuck in a collective whose peer is gone. So threads watch: one for the end of
each child, and a clock for each request. Whichever sees a failure first finds out which rank failed first, says so, and ends
this process; the children end with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from moeprof import blaming, following
from moeprof.blaming import Cause, Late
from moeprof.channel import Channel
from moeprof.errors import ExitCode, ToolError, of_workload
from moeprof.files import lines_of, of_rank
from moeprof.serving import Local

SETTLE_S = 0.5  # after the first sign of a failure: for its cause to show
QUIT_S = 5.0  # for the ranks to take the process group down
STACK_S = 0.5  # for a rank to say where it stands
GROUP_FACTOR = 3  # the process group's own limit is that many times the leader's, which names the rank
HOST = "127.0.0.1"
STACK = "(most recent call first):"

Say = Callable[[dict[str, Any]], None]


class Leader:
    """A crew of ``ranks`` processes of this host. ``say`` takes the one line on a failure; ``timeout_s`` is a request's time."""

    def __init__(self, local: Local, ranks: int, words: tuple[str, ...], timeout_s: float, log: Path | None, say: Say):
        self.local, self.ranks, self.words, self.timeout_s, self._say = local, ranks, words, timeout_s, say
        self._log = log or Path(tempfile.mkdtemp(prefix="moeprof-ranks-") if ranks > 1 else "") / "worker.log"
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._ended: dict[int, Cause] = {}
        self._failing = threading.Lock()
        self._number, self._doing, self._when, self._own_done, self._closing = 0, "start", "in", False, False
        self._main = threading.get_ident()
        self._until: float | None = None  # of a run that is timed as a whole

    def start(self) -> list[dict[str, Any]]:
        """Start the others and join them; what each rank says of itself.

        Raises:
            ToolError: there are fewer GPUs than ranks.
        """
        if self.local.device == "cuda" and self.ranks > self.local.facts.gpus:
            raise ToolError(
                f"{self.ranks} ranks need {self.ranks} GPUs, torch sees {self.local.facts.gpus}",
                "give a smaller --nproc",
            )
        self._channel = Channel(HOST, 0, 0, self.ranks, keeps=True)
        self._ear = self._channel.again()  # of the threads that watch
        os.environ.update(self._environment(0))
        for rank in range(1, self.ranks):
            self._children[rank] = self._child(rank)
            threading.Thread(target=self._watch, args=(rank,), daemon=True).start()
        with self._within("start"):
            following.enter(self.local.device, 0, self._channel, GROUP_FACTOR * self.timeout_s)
            self.local.barrier = self._channel.barrier
            self._own_done = True
            return [self.local.about(), *self._channel.replies(0)]

    def ask(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Every rank's reply, by rank. Does not return where a rank fails: this process ends, and says why."""
        self._number += 1
        with self._within(request["do"]):
            self._channel.send(self._number, request)
            own = self.local.answer(request)
            self._own_done = True
            return [own, *self._channel.replies(self._number)]

    def restart_clock(self) -> None:
        """From now on all that is asked together has the time limit, as a run under a profiler has."""
        self._until = time.monotonic() + self.timeout_s

    def close(self) -> None:
        """All ranks end; those that do not in time are killed."""
        self._closing = True
        clock = threading.Timer(QUIT_S, os._exit, (ExitCode.OK,))
        clock.daemon = True
        clock.start()
        if self._number or self._children:
            self._channel.send(self._number + 1, {"do": "quit"})
        following.leave()
        for child in self._children.values():
            with suppress(subprocess.TimeoutExpired):
                child.wait(QUIT_S)
        clock.cancel()
        self._kill()

    def _environment(self, rank: int) -> dict[str, str]:
        """What torch.distributed and launchers call a rank's place."""
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self.ranks, "LOCAL_WORLD_SIZE": self.ranks}
        return {k: str(v) for k, v in names.items()} | {"MASTER_ADDR": HOST, "MASTER_PORT": str(self._channel.port)}

    def _child(self, rank: int) -> subprocess.Popen[bytes]:
        limit = ("--group-timeout", str(GROUP_FACTOR * self.timeout_s), "--leader", str(os.getpid()))
        command = [sys.executable, "-P", "-m", "moeprof.worker", "follow", *self.words, *limit]
        with of_rank(self._log, rank).open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | self._environment(rank)
            )

    def _watch(self, rank: int) -> None:
        """Wait for the end of one child; one that comes unasked is a failure."""
        status = self._children[rank].wait()
        if not self._closing:
            how, dragged = blaming.how_it_ended(status), status in blaming.DRAGGED
            self._ended[rank] = Cause(rank, how, self._last_words(rank), time.time(), silent=True, dragged=dragged)
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
        time.sleep(SETTLE_S)
        cause = blaming.first(self._causes(own, at_s))
        if own is not None and cause.rank == 0:
            import traceback

            traceback.print_exception(own)
        message = blaming.sentence(cause, self.ranks, self._doing, self._when)
        self._end(message, cause.hint or f"read {self._shown(cause.rank)}", cause.code, cause.rank)

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
        late = [self._where(rank) for rank in self._ear.silent(self._number)]
        if not self._own_done:
            frame = sys._current_frames().get(self._main)
            late.append(Late(0, False, f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""))
        blamed = blaming.late_ranks(late)
        message = blaming.late_sentence(blamed, self.ranks, self._doing, self.timeout_s)
        hint = f"allow more with --timeout, or read {self._shown(blamed[0].rank)}"
        self._end(message, hint, ExitCode.WORKLOAD, blamed[0].rank)

    def _where(self, rank: int) -> Late:
        """Where a rank stands: the kernel says whether it is stopped, the rank itself writes its stack to its log."""
        child, words = self._children[rank], self._last_words(rank)
        if _state(child.pid) in ("T", "t"):
            return Late(rank, True, "", words)
        child.send_signal(signal.SIGUSR1)
        time.sleep(STACK_S)
        return Late(rank, False, innermost("\n".join(lines_of(of_rank(self._log, rank)))), words)

    def _shown(self, rank: int) -> str:
        """A rank's log without the folder above, which takes another name when the capture is whole."""
        log = of_rank(self._log, rank)
        return f"{log.parent.name}/{log.name}"

    def _last_words(self, rank: int) -> str:
        return next(reversed(lines_of(of_rank(self._log, rank))), "nothing")[:200]

    def _end(self, message: str, hint: str, code: int, rank: int) -> NoReturn:
        self._kill()
        self._say({"error": message, "hint": hint, "code": int(code), "rank": rank})
        sys.stderr.flush()
        os._exit(code)

    def _kill(self) -> None:
        for child in self._children.values():
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL) if child.returncode is None else None


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


def innermost(text: str) -> str:
    """``file:line`` of the innermost Python line of the last stack in a log, as faulthandler writes it; "" without one."""
    _, found, stack = text.rpartition(STACK)
    line = next((line.strip() for line in stack.splitlines() if line.strip().startswith("File ")), "") if found else ""
    parts = line.split('"')
    return f"{parts[1]}:{parts[2].split('line ')[-1].split(' ')[0]}" if len(parts) == 3 else ""


def _state(pid: int) -> str:
    """The kernel's letter for a process: T is stopped; "" where it does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
