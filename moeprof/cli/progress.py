"""Progress on stderr: bars on a terminal, plain lines in a pipe or a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from moeprof.capture.progress import Progress  # with all of a capture's imports


PATIENCE_S = 3.0  # what takes longer is named in a pipe too


class Lines:
    """One line for each phase and step, for all steps of a round one, with the seconds since the start."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.round = ""

    def phase(self, title: str, steps: int) -> None:
        """A line."""
        self._print(f"{title} ...")

    def step(self, what: str) -> None:
        """A line; a step "round 3: overlap" after another of round 3 has none."""
        head = what.partition(":")[0]
        if not head.startswith("round "):
            self._print(f"  {what}")
        elif head != self.round:
            self.round = head
            self._print(f"  {head}")

    def live(self, text: str) -> None:
        """A line."""
        self._print(f"  {text}")

    def _print(self, text: str) -> None:
        with suppress(OSError):  # whoever read it is gone: the capture goes on
            print(f"{time.monotonic() - self.started:6.1f} s  {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing."""


class Terminal:
    """A bar a phase."""

    def __init__(self) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[what]}"),
            TimeElapsedColumn(),
        )
        self.bars = Bars(*columns, console=Console(stderr=True))
        self.task: TaskID | None = None
        self.bars.start()

    def phase(self, title: str, steps: int) -> None:
        """A new bar; the one before it is full."""
        self._finish()
        self.task = self.bars.add_task(title, total=steps, what="")

    def step(self, what: str) -> None:
        """The bar grows."""
        if self.task is not None:
            self.bars.update(self.task, advance=1, what=what)

    def live(self, text: str) -> None:
        """Beside the bar."""
        if self.task is not None:
            self.bars.update(self.task, what=text)

    def close(self) -> None:
        """The bars stay as they are."""
        self._finish()
        self.bars.stop()

    def _finish(self) -> None:
        if self.task is not None:
            self.bars.update(self.task, completed=self.bars.tasks[self.task].total, what="done")


def terminal_progress() -> Progress:
    """Bars if stderr is a terminal, else lines."""
    return Terminal() if sys.stderr.isatty() else Lines()


@contextmanager
def counted(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Progress of one phase, by a function of (number done, of how many, which one)."""
    bars: list[Terminal] = []

    def done(number: int, of: int, label: str) -> None:
        if not sys.stderr.isatty():
            print(f"{number} of {of}: {label}", file=sys.stderr, flush=True)
            return
        if not bars:
            bars.append(Terminal())
            bars[0].phase(title, of)
        bars[0].step(label)

    try:
        yield done
    finally:
        for bar in bars:
            bar.close()


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Show ``what`` takes long while it runs; yields a function that changes the text.

    A terminal shows a line with a spinner, which is gone at the end. A pipe or a log gets one line, after PATIENCE_S.
    """
    if sys.stderr.isatty():
        with Console(stderr=True).status(f"{what} ...") as status:
            yield lambda text: status.update(f"{text} ...")
        return
    late = threading.Timer(PATIENCE_S, lambda: print(f"{what} ...", file=sys.stderr, flush=True))
    late.daemon = True
    late.start()
    try:
        yield lambda text: None
    finally:
        late.cancel()
