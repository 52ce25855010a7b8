"""Signs of life between the captures of several hosts: each counts once a second, and who hears nothing for long acts on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from moeprof.worker.channel import gone
from moeprof.worker.follower import LEFT
from moeprof.worker.host_link import Post

BEAT_S = 1.0
SILENT_S = 20.0  # longer than a machine under load holds up a process that does next to nothing


def name(host: int) -> str:
    """What the capture of a host counts."""
    return f"host/{host}/beats"


class Beats:
    """This host's own signs, and a watch on those of others. ``lost`` is told once of each host that is gone or falls silent and why,
    in a thread; so is it of all hosts where the store cannot be reached."""

    def __init__(self, post: Post, host: int, others: Iterable[int], lost: Callable[[int, str], None]) -> None:
        self._post, self._host, self._others, self._lost = post, host, tuple(others), lost
        self._heard = {other: (0, time.monotonic()) for other in self._others}
        self._gone: set[int] = set()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._beat, self._watch)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """No more signs, and nobody is lost any more; a thread that is in the store when the process ends would abort it."""
        self._over.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(2 * BEAT_S)

    def _beat(self) -> None:
        """May hang where a network is gone without a word; ``_watch`` then sees no news."""
        while not self._over.wait(BEAT_S):
            try:
                self._post.count(name(self._host))
                for other in self._others:
                    self._gone |= {other} if self._post.has(gone(other)) else set()
                    now = self._post.read(name(other))
                    if now != self._heard[other][0]:
                        self._heard[other] = (now, time.monotonic())
            except Exception:  # the store is gone with the process that keeps it
                self._gone = set(self._others)
                return

    def _watch(self) -> None:
        left = set(self._others)
        while left and not self._over.wait(BEAT_S / 4):
            for other in sorted(left):
                silent = time.monotonic() - self._heard[other][1] > SILENT_S
                if silent or other in self._gone:
                    left.discard(other)
                    self._lost(
                        other, LEFT if other in self._gone else f"nothing was heard of its host for {SILENT_S:.0f} s"
                    )
