"""Which part of a program's run is recorded."""

from __future__ import annotations

import re
from dataclasses import dataclass

from moeprof.errors import UsageError


@dataclass(frozen=True)
class Window:
    """A part of a run. Without any field it is the whole run.

    Attributes:
        start_after_s: recording begins so long after the program's start.
        start_on: a regular expression; the kept part begins with the first NVTX range whose whole name it matches.
        steps: the kept part ends with the ``steps``-th of these ranges.
        duration_s: recording lasts so long at most.
        end_program: the program ends with the recording, as by Ctrl-C; else it goes on to its own end.
    """

    start_after_s: float | None = None
    start_on: str | None = None
    steps: int | None = None
    duration_s: float | None = None
    end_program: bool = False

    @property
    def timed(self) -> bool:
        """Whether recording begins or ends by the clock."""
        return self.start_after_s is not None or self.duration_s is not None

    @property
    def cut(self) -> bool:
        """Whether the recording is cut to ranges afterwards."""
        return self.start_on is not None

    def __str__(self) -> str:
        after = f"from {self.start_after_s:g} s after its start" if self.start_after_s is not None else ""
        lasts = f"for {self.duration_s:g} s" if self.duration_s is not None else ""
        ranges = f"{self.steps} ranges" if self.steps is not None else "all from the first range"
        cut = f"{ranges} that match {self.start_on!r}" if self.start_on is not None else ""
        return ", ".join(part for part in (after, lasts, cut) if part) or "the whole run"


def check(window: Window) -> None:
    """Refuse fields that exclude each other.

    Raises:
        UsageError: names the options.
    """
    if window.start_after_s is not None and window.start_on is not None:
        raise UsageError(
            "--start-after and --start-on exclude each other", "recording begins by the clock or by a range"
        )
    if window.steps is not None and window.start_on is None:
        raise UsageError("--steps counts NVTX ranges and needs --start-on REGEX", "--duration S limits by the clock")
    if window.end_program and window.duration_s is None:
        raise UsageError("--end-program needs --duration S", "without it the program runs to its own end")
    try:
        re.compile(window.start_on or "")
    except re.error as error:
        raise UsageError(
            f"--start-on is no regular expression: {error}", "give NAME, or a Python expression"
        ) from error
