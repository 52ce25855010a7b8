"""A key-value store in this process: what stands for torch's TCPStore at the seam of ``moeprof.worker.channel.JsonStore``."""

from __future__ import annotations

import threading
from datetime import timedelta

from moeprof.worker.channel import JsonStore


class MemoryStore:
    """The methods of torch's store that moeprof calls, over a dict. ``gone`` makes every call fail as a lost store does."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.changed = threading.Condition()
        self.gone = False
        self.port = 0

    def _alive(self) -> None:
        if self.gone:
            raise RuntimeError("Connection reset by peer\nand more")

    def set(self, key: str, value: str) -> None:
        with self.changed:
            self._alive()
            self.values[key] = value
            self.changed.notify_all()

    def get(self, key: str) -> str:
        self._alive()
        return self.values[key]

    def check(self, keys: list[str]) -> bool:
        self._alive()
        return all(key in self.values for key in keys)

    def add(self, key: str, count: int) -> int:
        with self.changed:
            self._alive()
            self.values[key] = str(int(self.values.get(key, "0")) + count)
            return int(self.values[key])

    def wait(self, keys: list[str], timeout: timedelta) -> None:
        with self.changed:
            there = self.changed.wait_for(lambda: self.gone or self.check(keys), min(timeout.total_seconds(), 20))
            self._alive()
            if not there:
                from torch.distributed import DistStoreError

                raise DistStoreError("timeout")

    def delete_key(self, key: str) -> None:
        with self.changed:
            self._alive()
            self.values.pop(key, None)


def store() -> JsonStore:
    """A new one."""
    raw = MemoryStore()
    return JsonStore(raw, lambda: raw)
