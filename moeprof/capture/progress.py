"""What a capture reports of its progress; how it is shown is the command's affair (``moeprof.cli.progress``)."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Whoever is told of the progress of a capture."""

    def phase(self, title: str, steps: int) -> None:
        """A phase of ``steps`` steps begins."""

    def step(self, what: str) -> None:
        """One step is done; ``what`` names it."""

    def live(self, text: str) -> None:
        """What a running program does now, or what was done about it."""

    def close(self) -> None:
        """The capture is over, well or not."""


class Silent:
    """Shows nothing."""

    def phase(self, title: str, steps: int) -> None:
        """Nothing."""

    def step(self, what: str) -> None:
        """Nothing."""

    def live(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
