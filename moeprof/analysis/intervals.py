"""Interval algebra on int64 nanoseconds. A ``Union`` is a set of disjoint, sorted, half-open intervals [start, end)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]
_NONE: Times = np.empty(0, dtype=np.int64)
EARLY, LATE = np.iinfo(np.int64).min, np.iinfo(np.int64).max  # before and after every time; stand for "not known"


@dataclass(frozen=True)
class Union:
    """Disjoint intervals, sorted; two that touch are one. Made by ``union``."""

    starts: Times
    ends: Times

    @cached_property
    def _before(self) -> Times:
        """Length covered before each interval; one more entry for the whole."""
        return np.concatenate([[0], np.cumsum(self.ends - self.starts)]).astype(np.int64)

    @property
    def total_ns(self) -> int:
        """|U|."""
        return int(self._before[-1])

    def covered_before(self, times: Times) -> Times:
        """For each time t the length of U below t."""
        index = np.searchsorted(self.starts, times, side="right")
        started = self._before[index]
        overshoot = (
            np.where(index > 0, np.maximum(self.ends[np.maximum(index - 1, 0)] - times, 0), 0) if len(self.ends) else 0
        )
        return started - overshoot

    def covered(self, starts: Times, ends: Times) -> Times:
        """For each [start, end) the length of U inside it; 0 where end <= start."""
        return np.where(ends > starts, self.covered_before(ends) - self.covered_before(starts), 0)

    def clip(self, start: int, end: int) -> Union:
        """U inside [start, end)."""
        first = np.searchsorted(self.ends, start, side="right")
        last = np.searchsorted(self.starts, end, side="left")
        return Union(np.maximum(self.starts[first:last], start), np.minimum(self.ends[first:last], end))

    def contains(self, times: Times) -> npt.NDArray[np.bool_]:
        """Whether each time lies in U."""
        return np.searchsorted(self.starts, times, side="right") > np.searchsorted(self.ends, times, side="right")

    def gaps(self, start: int, end: int) -> Union:
        """[start, end) without U."""
        inside = self.clip(start, end)
        starts = np.concatenate([[start], inside.ends]).astype(np.int64)
        ends = np.concatenate([inside.starts, [end]]).astype(np.int64)
        keep = ends > starts
        return Union(starts[keep], ends[keep])


EMPTY = Union(_NONE, _NONE)


def union(starts: Times, ends: Times) -> Union:
    """The merged union of any intervals; empty and inverted ones are left out."""
    keep = ends > starts
    starts, ends = starts[keep], ends[keep]
    if not len(starts):
        return EMPTY
    if (starts[1:] < starts[:-1]).any():
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], ends[order]
    reach = np.maximum.accumulate(ends)
    first = np.concatenate([[True], starts[1:] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return Union(starts[first], reach[last])


def both(*unions: Union) -> Union:
    """The union of unions."""
    return union(np.concatenate([u.starts for u in unions]), np.concatenate([u.ends for u in unions]))


def intersection_ns(a: Union, b: Union) -> int:
    """|A n B|."""
    return int(a.covered(b.starts, b.ends).sum())


def intersection(a: Union, b: Union) -> Union:
    """A n B."""
    low, high = np.searchsorted(b.ends, a.starts, side="right"), np.searchsorted(b.starts, a.ends, side="left")
    count = np.maximum(high - low, 0)
    of_a = np.repeat(np.arange(len(count)), count)
    of_b = np.arange(len(of_a)) - np.repeat(np.cumsum(count) - count, count) + low[of_a]
    return union(np.maximum(a.starts[of_a], b.starts[of_b]), np.minimum(a.ends[of_a], b.ends[of_b]))


def minus(a: Union, b: Union) -> Union:
    """A without B."""
    return intersection(a, b.gaps(int(a.starts[0]), int(a.ends[-1]))) if len(a.starts) else a


def newly_covered(starts: Times, ends: Times) -> tuple[Times, Times]:
    """For intervals sorted by start, the part of each that none before it covers; the parts tile the union exactly."""
    if not len(starts):
        return _NONE, _NONE
    reach = np.maximum.accumulate(ends)
    before = np.concatenate([[EARLY], reach[:-1]])
    return np.maximum(starts, before), np.maximum(ends, before)
