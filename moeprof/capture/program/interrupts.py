"""Ctrl-C, SIGTERM and SIGHUP while a program runs: the first ends the recording in good order, the second stops at once."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

ONE_EVENT_S = 0.5  # `timeout` and some job schedulers send one signal to the process and to its group
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """The signals that came inside the block. The first is only recorded; the second goes to whoever handled it before."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._first_s = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # nohup stays
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received and now - self._first_s < ONE_EVENT_S:
            return
        self._first_s = self._first_s or now
        self.received.append(number)
        if len(self.received) > 1:
            before = self._before[number]
            if callable(before):
                before(number, frame)
            raise KeyboardInterrupt

    @property
    def name(self) -> str:
        """The first signal as a user names it; "" if none came."""
        if not self.received:
            return ""
        number = self.received[0]
        return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
