"""Progress for people, on stderr: bars where it is a terminal, plain lines where it is not."""

from __future__ import annotations

import sys
import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars


class Progress(Protocol):
    """What a capture tells of its progress."""

    def phase(self, title: str, steps: int) -> None:
        """A phase of ``steps`` steps begins."""

    def step(self, what: str) -> None:
        """One step is done; ``what`` says which."""

    def close(self) -> None:
        """The capture is over, well or not."""


class Silent:
    """Tells nothing."""

    def phase(self, title: str, steps: int) -> None:
        """Nothing."""

    def step(self, what: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """One line a phase and a step, with the seconds since the start, for logs."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def phase(self, title: str, steps: int) -> None:
        """A line."""
        self._say(f"{title} ...")

    def step(self, what: str) -> None:
        """A line."""
        self._say(f"  {what}")

    def _say(self, text: str) -> None:
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

    def close(self) -> None:
        """The bars stay as they are."""
        self._finish()
        self.bars.stop()

    def _finish(self) -> None:
        if self.task is not None:
            self.bars.update(self.task, completed=self.bars.tasks[self.task].total, what="done")


def terminal_progress() -> Progress:
    """Bars where stderr is a terminal, lines elsewhere."""
    return Terminal() if sys.stderr.isatty() else Lines()
