"""The host calls of a trace, prepared once for any number of windows."""

from __future__ import annotations

import re
from functools import cached_property

import numpy as np
import pandas as pd

from moeprof.analysis.intervals import EARLY, Times, Union, union
from moeprof.trace.classify import BLOCKING


class HostCalls:
    """The table CALLS (sorted by start) as arrays, with repeated selections cached."""

    def __init__(self, calls: pd.DataFrame) -> None:
        self.table = calls
        self._masks: dict[tuple[str, ...], np.ndarray] = {}
        self._rows: dict[tuple[str, ...], dict[int, Times]] = {}

    @cached_property
    def starts(self) -> Times:
        """Start of each call."""
        return self.table["start_ns"].to_numpy()

    @cached_property
    def ends(self) -> Times:
        """End of each call."""
        return self.table["end_ns"].to_numpy()

    @cached_property
    def thread(self) -> Times:
        """One number for each thread (of a process)."""
        pids, tids = (self.table[c].to_numpy().astype(np.int64) for c in ("pid", "tid"))
        return pd.factorize((pids << 32) ^ tids)[0]

    @cached_property
    def names(self) -> Times:
        """The number of each call's name."""
        return self.table["name"].cat.codes.to_numpy().astype(np.int64)

    def of(self, *kinds: str) -> np.ndarray:
        """A mask: the calls of these kinds; all calls, where none is given."""
        if kinds not in self._masks:
            column = self.table["kind"].cat
            hits = np.array([*(column.categories.isin(kinds) | (not kinds)), not kinds], dtype=bool)
            self._masks[kinds] = hits[column.codes.to_numpy()]
        return self._masks[kinds]

    def named(self, pattern: str) -> np.ndarray:
        """A mask: the calls whose names match ``pattern`` (a regular expression, anywhere)."""
        categories = self.table["name"].cat.categories
        hits = np.array([re.search(pattern, str(name)) is not None for name in categories] + [False], dtype=bool)
        return np.asarray(hits[self.names])

    def rows(self, *kinds: str) -> dict[int, Times]:
        """For each thread the rows of its calls of these kinds (of all, where none is given), in order."""
        if kinds not in self._rows:
            chosen = np.flatnonzero(self.of(*kinds))
            thread = self.thread[chosen]
            order = np.argsort(thread, kind="stable")
            numbers, first = np.unique(thread[order], return_index=True)
            parts = np.split(chosen[order], first[1:])
            self._rows[kinds] = {int(n): part for n, part in zip(numbers, parts, strict=False)}
        return self._rows[kinds]

    @cached_property
    def repeated(self) -> np.ndarray:
        """A mask: calls that an older nsys recorded twice, under a name with and without its version: the second of a thread with
        the same name and correlation."""
        keys = pd.DataFrame(
            {"thread": self.thread, "name": self.names, "correlation": self.table["correlation"].to_numpy()}
        )
        return keys.duplicated().to_numpy() & (keys["correlation"] > 0).to_numpy()

    @cached_property
    def waits_for_event(self) -> np.ndarray:
        """A mask: the calls that make a stream wait for an event."""
        return self.named("WaitEvent")

    @cached_property
    def waits(self) -> dict[int, Union]:
        """For each thread the union of its blocking calls."""
        return {thread: union(self.starts[rows], self.ends[rows]) for thread, rows in self.rows(*BLOCKING).items()}

    def last_before(self, calls: Times, *kinds: str) -> Times:
        """For each of ``calls`` (rows, or -1) the row of the last call of these kinds that its thread began before it; or -1."""
        last = np.full(len(calls), -1)
        thread = np.where(calls >= 0, self.thread[calls], -1) if len(self.thread) else last
        for number, rows in self.rows(*kinds).items():
            of_thread = thread == number
            if of_thread.any():
                place = np.searchsorted(self.starts[rows], self.starts[calls[of_thread]]) - 1
                last[of_thread] = np.where(place >= 0, rows[place], -1)
        return last

    def within(self, start: int, end: int, pid: int, tid: int | None) -> pd.DataFrame:
        """The calls that begin and end inside [start, end] in a process, on one thread of it or (None) on any."""
        low, high = np.searchsorted(self.starts, start, side="left"), np.searchsorted(self.starts, end, side="right")
        part = self.table.iloc[low:high]
        inside = (self.ends[low:high] <= end) & (part["pid"].to_numpy() == pid)
        return part[inside if tid is None else inside & (part["tid"].to_numpy() == tid)]


def at(values: Times, rows: Times) -> Times:
    """``values`` at ``rows``; very early where a row is -1."""
    return np.where(rows >= 0, values[np.maximum(rows, 0)], EARLY) if len(values) else np.full(len(rows), EARLY)
