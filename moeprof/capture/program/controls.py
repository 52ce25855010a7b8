"""How a window begins and ends: the session of nsys, or two signals to the worker under torch.profiler."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Protocol

from moeprof.machine.tools import Tool
from moeprof.worker import run_program

START_SIGNAL, STOP_SIGNAL = run_program.START, run_program.STOP
READY = run_program.READY


class Control(Protocol):
    """Begins and ends the recording of a program that runs."""

    def start(self, pid: int | None) -> None:
        """Begin to record; the program is process ``pid``."""

    def stop(self, pid: int | None) -> None:
        """End the recording; the program goes on. Returns before the recording is written."""

    def recorded(self) -> bool:
        """Whether the recording that ``stop`` ended is written."""

    def ready(self, pid: int | None) -> bool:
        """Whether the program has begun and its recording can."""

    def writing(self) -> bool:
        """Whether ``stop`` still writes the recording, though the program may have ended."""


class NsysControl:
    """``nsys start`` and ``nsys stop`` of a session."""

    def __init__(self, nsys: Tool, session: str, report: Path, log: Path) -> None:
        self._nsys, self._session, self._report, self._log = nsys, session, report, log
        self._stopping: subprocess.Popen[bytes] | None = None

    def start(self, pid: int | None) -> None:
        """``nsys start``; the report's name and options are those of ``nsys profile``."""
        self._call("start").wait()

    def stop(self, pid: int | None) -> None:
        """``nsys stop`` in the background: it returns once the report is written."""
        if self._stopping is None:
            self._stopping = self._call("stop")

    def recorded(self) -> bool:
        """``nsys stop`` has returned and the report is there."""
        return self._stopping is not None and self._stopping.poll() is not None and self._report.is_file()

    def ready(self, pid: int | None) -> bool:
        """The program is started in the session."""
        return pid is not None

    def writing(self) -> bool:
        """``nsys stop`` has not returned."""
        return self._stopping is not None and self._stopping.poll() is None

    def close(self) -> None:
        """End ``nsys stop`` if it still runs."""
        if self._stopping is not None and self._stopping.poll() is None:
            self._stopping.kill()
            self._stopping.wait()

    def _call(self, what: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                (str(self._nsys.path), what, f"--session={self._session}"),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip


class TorchControl:
    """Signals to the worker in which the program runs; ``out`` is there, whole, once the trace is written."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def start(self, pid: int | None) -> None:
        """Begin to record at the main thread's next instruction."""
        _send(pid, START_SIGNAL)

    def stop(self, pid: int | None) -> None:
        """End the recording at the main thread's next instruction."""
        _send(pid, STOP_SIGNAL)

    def recorded(self) -> bool:
        """The trace is there."""
        return self._out.is_file()

    def ready(self, pid: int | None) -> bool:
        """The worker has imported torch and begins with the program."""
        return pid is not None and Path(f"{self._out}{READY}").is_file()

    def writing(self) -> bool:
        """Never: the worker writes before it ends."""
        return False

    def close(self) -> None:
        """Nothing."""


def _send(pid: int | None, number: int) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
