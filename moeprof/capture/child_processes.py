"""Child processes: each has its own process group, a time limit and a log, and ends together with all that it started."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from moeprof.errors import CaptureError, WorkloadError
from moeprof.machine.command import Command
from moeprof.storage.files import lines_of
from moeprof.worker import messages
from moeprof.worker.failures import how_it_ended
from moeprof.worker.messages import ErrorReply, Hello, Quit, R, Reply, Request, error_in
from moeprof.worker.spec import WorkerSpec
from moeprof.worker.start_barrier import HOLDER

GRACE_S = 5.0  # between asking a process group to end and killing it


class Child:
    """A running command; its output goes to ``log``."""

    def __init__(self, command: Command, log: Path) -> None:
        self.command, self.log, self.started = command, log, time.monotonic()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command.argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=os.environ | {HOLDER: str(os.getpid())} | command.env, start_new_session=True, cwd=command.folder,
            )  # fmt: skip

    @property
    def left_s(self) -> float:
        """Seconds left of its time limit, counted from its start or from ``restart_clock``."""
        return self.command.timeout_s - (time.monotonic() - self.started)

    def restart_clock(self) -> None:
        """The time limit counts from now: until now the process waited for its turn."""
        self.started = time.monotonic()

    def wait(self) -> int:
        """Its exit status.

        Raises:
            WorkloadError: it ran past its time limit and was killed.
        """
        try:
            return self.process.wait(timeout=max(self.left_s, 0))
        except subprocess.TimeoutExpired:
            end(self.process)
            name = Path(self.command.argv[0]).name
            raise WorkloadError(
                f"{name} was killed: it ran past {self.command.timeout_s} s",
                f"allow more with --timeout, or read {self.log}",
            ) from None

    def wait_until(self, *paths: Path, interval_s: float = 0.01) -> None:
        """Until one of ``paths`` exists, the process has ended, or its time is over."""
        while not any(path.exists() for path in paths) and self.process.poll() is None and self.left_s > 0:
            time.sleep(interval_s)

    def last_words(self) -> str:
        """The last line of its log that is not empty."""
        return last_line(self.log)


def run(command: Command, log: Path) -> int:
    """Run a command to its end; its exit status."""
    child = Child(command, log)
    try:
        return child.wait()
    finally:
        end(child.process)


def end(process: subprocess.Popen[Any]) -> None:
    """End a process and everything it started: ask, wait a little, kill."""
    for number, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # what it started and left behind


def last_line(log: Path) -> str:
    """The last line of a log that is not empty; of an ``error_reply`` its text."""
    last = next(reversed(lines_of(log)), "nothing")
    error = error_in(last)
    return error.error if error is not None else last[:200]


def failure_in(lines: Iterable[str]) -> ErrorReply | None:
    """The last error that a worker reported in these lines; None if it reported none."""
    return next((error for line in reversed(list(lines)) if (error := error_in(line)) is not None), None)


class WorkerProcess:
    """A worker in ``serve`` mode: requests go to its stdin, replies come from its stdout, one JSON object a line."""

    def __init__(self, name: str, spec: WorkerSpec, log: Path, timeout_s: int) -> None:
        self.name, self.log, self.timeout_s = name, log, timeout_s
        self.rank_pids: tuple[int, ...] = ()  # the processes of its ranks on this host
        self._rest = b""
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                spec.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True, bufsize=0
            )  # fmt: skip

    def hello(self) -> Hello:
        """The worker's first line; raises what ``hear`` raises."""
        hello = self._receive()
        if not isinstance(hello, Hello):
            raise CaptureError(f"{self.name}: the worker began with {messages.name(hello)}, expected hello")
        self.rank_pids = tuple(rank.pid for rank in hello.ranks if not rank.host)
        return hello

    def ask(self, request: Request[R]) -> R:
        """The reply to one request; raises what ``hear`` raises."""
        self.tell(request)
        return self.hear(request)

    def tell(self, request: Request[Any]) -> None:
        """Send a request, whose reply ``hear`` returns: several workers can be told before the first is heard."""
        with contextlib.suppress(BrokenPipeError):  # a dead worker is reported by ``hear``, with its reason
            assert self.process.stdin is not None
            self.process.stdin.write(messages.line(request).encode() + b"\n")

    def hear(self, request: Request[R]) -> R:
        """The reply to a request that was sent before.

        Raises:
            MoeprofError: of the kind that the worker names; WorkloadError if it died or ran past the time limit.
        """
        return messages.reply_to(request, self._receive())

    def _receive(self) -> Reply:
        line = next(self._lines(), None)
        if line is None:
            end(self.process)
            status = how_it_ended(self.process.returncode)
            raise WorkloadError(
                f"{self.name}: its process died ({status}); it last printed: {last_line(self.log)}", f"read {self.log}"
            )
        reply = messages.reply(line.decode())
        if isinstance(reply, ErrorReply):
            raise reply.exception(f"{self.name}: ")
        return reply

    def _lines(self) -> Iterator[bytes]:
        """One whole line from the pipe, or none if it was closed."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + self.timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    end(self.process)
                    raise WorkloadError(
                        f"{self.name}: no answer within {self.timeout_s} s",
                        f"allow more with --timeout, or read {self.log}",
                    )
                chunk = os.read(self.process.stdout.fileno(), 1 << 16)
                if not chunk:
                    return
                self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        yield line

    def quit(self) -> None:
        """Ask the worker to end, without waiting: one that has worked on a GPU takes most of a second to leave it."""
        assert self.process.stdin is not None
        if not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError, OSError):
                self.process.stdin.write(messages.line(Quit()).encode() + b"\n")
                self.process.stdin.close()

    def close(self) -> None:
        """End the worker."""
        self.quit()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=GRACE_S)
        end(self.process)
        if self.process.stdout is not None:
            self.process.stdout.close()


def close_all(workers: Iterable[WorkerProcess]) -> None:
    """End workers side by side."""
    every = list(workers)
    for worker in every:
        worker.quit()
    for worker in every:
        worker.close()
