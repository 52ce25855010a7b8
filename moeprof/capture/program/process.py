"""One run of a program under a tool: its window, its time limit, and what ends it.

Whatever ends it, the recording is finished in good order and the program ends itself if it can: it gets SIGINT, then the profiler
is stopped, then the program gets SIGTERM, then SIGKILL. A second Ctrl-C kills all that this capture started at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from moeprof.capture.program.controls import NsysControl, TorchControl
from moeprof.capture.program.interrupts import Interrupts
from moeprof.capture.program.output import Output
from moeprof.capture.program.window import Window
from moeprof.worker.start_barrier import HOLDER

LOOK_S = 0.05
SIGINT_GRACE_S = 10.0  # for the program to end itself after SIGINT
STOP_GRACE_S = 120.0  # for the profiler to write its report
KILL_GRACE_S = 5.0  # between SIGTERM and SIGKILL
Why = Literal["", "interrupted", "time limit", "window"]


@dataclass(frozen=True)
class Run:
    """What to run: the program ``words`` under a ``tool``, whose messages go to ``log``. ``limit_s``: time limit of the program;
    None: none."""

    tool: tuple[str, ...]
    words: tuple[str, ...]
    window: Window
    limit_s: float | None
    log: Path
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: of the tool's process, which is the program's (negative: a signal ended the tool).
        why: what ended the recording before the program's own end; "" if nothing did.
        signal_name: "Ctrl-C" or a signal's name, if one came.
        seconds: of the program, from its start to its end.
        recorded_s: of the recording; None if it never began.
        partial: whether the recording ended before its window and before the program.
    """

    status: int
    why: Why
    signal_name: str
    seconds: float
    recorded_s: float | None
    partial: bool


class ProgramProcess:
    """A program that runs under a tool. ``control`` begins and ends its recording; None: nothing is recorded or all of it is."""

    def __init__(
        self, run: Run, output: Output, interrupts: Interrupts, control: NsysControl | TorchControl | None,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.run, self._output, self._interrupts, self._control, self._say = run, output, interrupts, control, say
        self._why: Why = ""
        self._program_s: float | None = None  # when the program itself began
        self._began: float | None = None  # of the recording
        self._ended: float | None = None
        self._signalled: float | None = None
        self._escalation = 0
        self._complete = False  # the window was over
        with run.log.open("ab") as log:
            self.process = subprocess.Popen(
                (*run.tool, *output.wrapped(run.words)),
                stdout=log, stderr=subprocess.STDOUT, env=os.environ | {HOLDER: str(os.getpid())} | run.env,
                start_new_session=True,
            )  # fmt: skip
        self.started = time.monotonic()
        if run.window.start_after_s is None:
            self._began = self.started

    @property
    def recording(self) -> bool:
        """Whether it records now."""
        return self._began is not None and self._ended is None

    @property
    def state(self) -> str:
        """What the run does now, if it is not that the program runs and is recorded."""
        pid = self._output.pid
        if pid is not None and not psutil.pid_exists(pid):
            return "ended, the report is being written"
        return "" if self.recording or self._control is None else "not recording"

    def wait(self, look: Callable[[float], None], recorded: Callable[[], None]) -> Outcome:
        """Until the tool's process has ended. ``look`` is called often with the seconds since the start, ``recorded`` once if the
        recording is complete before the program's end."""
        reported = False
        while self.process.poll() is None or (self._control is not None and self._control.writing()):
            now = time.monotonic()
            self._window(now)
            self._interrupted(now)
            self._limited(now)
            self._escalate(now)
            if not reported and self._ended is not None and self._control is not None and self._control.recorded():
                reported = True
                recorded()
            look(now - self.started)
            time.sleep(LOOK_S)
        ended = time.monotonic()
        recorded_s = (self._ended or ended) - self._began if self._began is not None else None
        partial = self._why in ("interrupted", "time limit") and (self._ended is None or not self._complete)
        return Outcome(
            self.process.returncode, self._why, self._interrupts.name, ended - self.started, recorded_s, partial
        )

    def close(self) -> None:
        """Nothing of this run goes on if it was interrupted twice, or its tool has not ended."""
        if self._control is not None:
            self._control.close()
        if self.process.poll() is None or self._why in ("interrupted", "time limit"):
            kill_all()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=KILL_GRACE_S)

    def _window(self, now: float) -> None:
        """Begin and end the recording by the clock."""
        window = self.run.window
        if self._control is None or self._ended is not None or self._why:
            return
        if self._program_s is None and self._control.ready(self._output.pid):
            self._program_s = now
        ran_s = now - self._program_s if self._program_s is not None else 0.0
        if self._began is None and window.start_after_s is not None and ran_s >= window.start_after_s:
            self._control.start(self._output.pid)
            self._began = time.monotonic()
            self._say(f"recording, {window.start_after_s:g} s after the program's start")
        if self._began is not None and window.duration_s is not None and now - self._began >= window.duration_s:
            self._stop(now)
            self._complete = True
            if window.end_program:
                self._why = "window"
                self._end(now)
            else:
                self._say("the recording is complete. The program goes on; Ctrl-C ends it")

    def _interrupted(self, now: float) -> None:
        if self._interrupts.received and not self._why:
            self._why = "interrupted"
            self._say(f"{self._interrupts.name}: ending the program and saving what was recorded. Again: stop at once")
            self._end(now)

    def _limited(self, now: float) -> None:
        limit_s = self.run.limit_s
        if limit_s is not None and now - self.started > limit_s and not self._why:
            self._why = "time limit"
            self._say(f"time limit of {limit_s:g} s: ending the program and saving what was recorded")
            self._stop(now)
            self._end(now)

    def _stop(self, now: float) -> None:
        """The profiler ends its recording."""
        if self._control is not None and self.recording:
            self._control.stop(self._output.pid)
            self._ended = now

    def _end(self, now: float) -> None:
        """The program is to end itself."""
        self._signalled, self._escalation = now, 1
        signal_program(self._output.pid, signal.SIGINT, self.process.pid)

    def _escalate(self, now: float) -> None:
        """A program that does not end: stop the profiler, wait for its report, then SIGTERM, then SIGKILL."""
        if self._signalled is None:
            return
        waited = now - self._signalled
        if self._escalation == 1 and waited > SIGINT_GRACE_S:
            self._say(f"the program did not end within {SIGINT_GRACE_S:g} s of SIGINT")
            self._stop(now)
            self._escalation = 2
        written = self._control is None or self._began is None or self._control.recorded()
        if self._escalation == 2 and (written or waited > SIGINT_GRACE_S + STOP_GRACE_S):
            signal_program(self._output.pid, signal.SIGTERM, self.process.pid)
            self._signalled, self._escalation = now, 3
        elif self._escalation == 3 and waited > KILL_GRACE_S:
            kill_all(spare="nsys")
            self._signalled, self._escalation = now, 4
        elif self._escalation == 4 and waited > KILL_GRACE_S + STOP_GRACE_S:
            kill_all()


def signal_program(pid: int | None, number: int, tool_pid: int) -> None:
    """Send a signal to the program's process group, as a terminal does; to the program alone if the tool is in that group."""
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        group = os.getpgid(pid)
        if group in (os.getpgrp(), tool_pid) and pid != tool_pid:
            os.kill(pid, number)
        else:
            os.killpg(group, number)


def marked() -> Iterator[psutil.Process]:
    """All processes that this capture started, theirs included: they have our number in their environment."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(HOLDER) == str(os.getpid()):
                yield process


def kill_all(spare: str = "\0") -> None:
    """SIGKILL to all that this capture started, but tools whose name begins with ``spare``."""
    for process in marked():
        with contextlib.suppress(psutil.Error):
            if not process.name().startswith(spare):
                process.kill()
