"""A start barrier between a worker and the capture: the worker is ready and waits, the capture opens, the worker goes on.

Setting up takes seconds: several workers set up side by side, and then measure one at a time. The two sides share files:
``FILE.ready`` is made by the worker at the barrier, ``FILE`` by the capture that opens it, ``FILE.over`` by the worker that has
nothing more to do on the device. ``FILE`` may contain text for the worker.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moeprof.errors import CaptureError
from moeprof.storage.files import write_whole

HOLDER = "MOEPROF_HOLDER"  # in the environment: the number of the process that opens barriers
LOOK_S = 0.5  # between two looks whether that process still exists
INTERVAL_S = 0.002


@dataclass(frozen=True)
class StartBarrier:
    """The barrier whose files begin with ``file``."""

    file: Path

    @staticmethod
    def at(file: str) -> StartBarrier:
        """The barrier that a worker's spec names."""
        return StartBarrier(Path(file))

    @property
    def ready(self) -> Path:
        """There once the worker waits."""
        return Path(f"{self.file}.ready")

    @property
    def over(self) -> Path:
        """There once the worker has left the device."""
        return Path(f"{self.file}.over")

    def open(self, text: str = "") -> None:
        """The capture's side: let the worker go on, with ``text`` for it."""
        write_whole(self.file, text)

    def wait(self, interval_s: float = INTERVAL_S) -> bool:
        """The worker's side: be ready, and return once the barrier is open; whether that took any time.

        Raises:
            CaptureError: the process that would open it is gone.
        """
        self.ready.touch()
        waited, looked = False, time.monotonic()
        while not self.file.exists():
            waited = True
            time.sleep(interval_s)
            if time.monotonic() - looked > LOOK_S:
                looked = time.monotonic()
                _check_holder()
        return waited

    def text(self) -> str:
        """The worker's side: what the capture wrote when it opened the barrier."""
        return self.file.read_text(encoding="utf-8")

    def leave(self) -> None:
        """The worker's side: nothing of it is on the device any more."""
        self.over.touch()


def _check_holder() -> None:
    holder = os.environ.get(HOLDER, "")
    if not holder.isdigit():
        return
    with suppress(PermissionError):  # it exists, and is another user's
        try:
            os.kill(int(holder), 0)
        except ProcessLookupError:
            raise CaptureError("the capture that this process waited for is gone", "capture again") from None
