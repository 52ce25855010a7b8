"""What the host did while it launched a device's work: waits, allocations, launches, and stays outside CUDA.

A thread's time falls into segments, one an operation: from the return of the launch call before to the return of its own.
Each question ("how long had this thread waited before this operation's start?") gives one number an operation, which
``Scene.gain`` takes as the time by which the host could have been earlier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moeprof.analysis.device import DeviceView
from moeprof.analysis.intervals import EARLY, EMPTY, Times, Union, both, minus, union
from moeprof.trace.classify import BLOCKING

SHORT_STAY_NS = 50_000  # between two CUDA calls: a shorter stay is the framework launching, a longer one is other work

LOADS = r"^cu(Module|Library|Link)(Load|Create|AddData|Complete)"  # calls that load or compile code
LONG_FIRST_NS = 100_000  # a first launch of a kernel that takes this long loads its code: a slow launch takes 10 us

Chosen = np.ndarray
# ns by each operation's start, and by the end of the last wait in its segment (0 without one)
HostTime = tuple[Times, Times]


@dataclass(frozen=True)
class Host:
    """The threads that launched the operations ``index`` of ``view``; the focus is [start, end).

    ``overhead`` is the profiler's own time: it is nobody's stay.
    """

    view: DeviceView
    index: Times
    focus_start: int
    focus_end: int
    overhead: Union = EMPTY

    @cached_property
    def call(self) -> Times:
        """Row of each operation's launch call, or -1."""
        return self.view.call[self.index]

    @cached_property
    def start(self) -> int:
        """When the host began with the focus: its first launch call."""
        called = self.view.call_starts[self.index]
        called = called[called > EARLY]
        return min(int(called.min()), self.focus_start) if len(called) else self.focus_start

    @cached_property
    def thread(self) -> Times:
        """The launching thread of each operation, or -1."""
        of_call = self.view.host.thread
        return np.where(self.call >= 0, of_call[self.call], -1) if len(of_call) else np.full(len(self.call), -1)

    @cached_property
    def calls(self) -> dict[int, Times]:
        """For each launching thread the rows of its calls that touch the focus."""
        starts, ends = self.view.host.starts, self.view.host.ends
        near = np.flatnonzero((ends > self.start) & (starts < self.focus_end))
        of_call = self.view.host.thread[near]
        return {int(t): near[of_call == t] for t in np.unique(self.thread[self.thread >= 0])}

    @cached_property
    def segments(self) -> tuple[Times, Times]:
        """For each operation its thread's time from the return before to its own call's return; empty where not known."""
        begin, finish = self.view.call_ends[self.index].copy(), self.view.call_ends[self.index]
        order = np.lexsort((finish, self.thread))
        thread, ends = self.thread[order], finish[order]
        fresh = np.concatenate([[True], (thread[1:] != thread[:-1]) | (ends[1:] != ends[:-1])]) if len(order) else order
        first = np.concatenate([[True], thread[1:] != thread[:-1]]) if len(order) else order
        before = np.concatenate([[EARLY], ends[:-1]])
        before = np.where(first, self.start, before)
        begin[order] = before[np.maximum.accumulate(np.where(fresh, np.arange(len(order)), 0))]
        return np.where(self.thread >= 0, begin, finish), finish

    @cached_property
    def last_wait(self) -> Times:
        """For each operation the end of the last blocking call before its own launch call, from the launch call before on;
        very early where there is none. A launch call that blocks (cudaMemcpy) is a wait before the operations after it."""
        begin, _ = self.segments
        called = self.view.call_starts[self.index]
        last_end = np.full(len(self.index), EARLY)
        blocking = self.view.host.of(*BLOCKING)
        for thread, rows in self.calls.items():
            waits, of_thread = rows[blocking[rows]], self.thread == thread
            place = np.searchsorted(self.view.host.starts[waits], called[of_thread], side="left") - 1
            last = np.append(waits, -1)[place]
            ended = self.view.host.ends[last]
            inside = (place >= 0) & (last >= 0) & (ended >= begin[of_thread])
            last_end[of_thread] = np.where(inside, np.minimum(ended, called[of_thread]), EARLY)
        return last_end

    @cached_property
    def _blocking_launches(self) -> np.ndarray:
        """Operations whose own launch call blocks."""
        blocking = self.view.host.of(*BLOCKING)
        return (self.call >= 0) & blocking[self.call] if len(blocking) else np.zeros(len(self.call), dtype=bool)

    @cached_property
    def loads_code(self) -> np.ndarray:
        """Operations before whose launch, or inside of it, their thread loads code: the segment contains a call that loads, or the
        call is the first launch of a kernel of this name and takes ``LONG_FIRST_NS`` or more."""
        begin, finish = self.segments
        view = self.view
        first = ~view.ops.duplicated(["pid", "name"]).to_numpy()[self.index]
        hit = first & (self.call >= 0) & (finish - view.call_starts[self.index] >= LONG_FIRST_NS)
        named = view.host.named(LOADS)
        for thread, rows in self.calls.items():
            of_thread, times = self.thread == thread, view.host.starts[rows[named[rows]]]
            hit[of_thread] |= np.searchsorted(times, finish[of_thread]) > np.searchsorted(times, begin[of_thread])
        return hit

    def spent_in(self, chosen: Chosen) -> int:
        """How long the launching threads were inside the ``chosen`` calls in the focus, in ns, summed over the threads."""
        return sum(
            self._union(rows[chosen[rows]]).clip(self.start, self.focus_end).total_ns for rows in self.calls.values()
        )

    def in_calls(self, chosen: Chosen) -> HostTime:
        """How long each operation's thread had been inside the ``chosen`` calls, from the focus's begin to its start."""
        return self._until_start(lambda thread: self._union(self.calls[thread][chosen[self.calls[thread]]]))

    def in_waits(self) -> HostTime:
        """The same for waits and what leads to them: from the launch before to the end of the wait, and launch calls that block."""
        begin, finish = self.segments
        called = np.where(self._blocking_launches, self.view.call_starts[self.index], finish)

        def spent(thread: int) -> Union:
            blocked = self.thread == thread
            blocked_time = minus(union(called[blocked], finish[blocked]), self._apart[thread])
            return both(self._spent(thread, begin, self.last_wait), blocked_time)

        return self._until_start(spent)

    def in_launches(self, launched: Chosen) -> HostTime:
        """The same for the launching of the operations ``launched``: all of their segments."""
        begin, finish = self.segments
        until = np.where(launched, finish, EARLY)
        return self._until_start(lambda thread: self._spent(thread, begin, until))

    def elsewhere(self) -> HostTime:
        """The same for long stays outside CUDA."""
        return self._until_start(lambda thread: self.stays[thread])

    def _spent(self, thread: int, begin: Times, until: Times) -> Union:
        """The thread's intervals [begin, until) without allocations and long stays elsewhere."""
        of_thread = self.thread == thread
        return minus(union(begin[of_thread], until[of_thread]), self._apart[thread])

    @cached_property
    def _apart(self) -> dict[int, Union]:
        """For each thread its allocations and long stays elsewhere."""
        chosen = self.view.host.of("alloc")
        return {t: both(self._union(rows[chosen[rows]]), self.stays[t]) for t, rows in self.calls.items()}

    def _union(self, rows: Times) -> Union:
        return union(self.view.host.starts[rows], self.view.host.ends[rows])

    @cached_property
    def stays(self) -> dict[int, Union]:
        """For each thread its long stays outside CUDA calls."""
        return {thread: minus(_stays(self._union(rows)), self.overhead) for thread, rows in self.calls.items()}

    def _until_start(self, of_thread: Callable[[int], Union]) -> HostTime:
        by_start, by_wait = np.zeros((2, len(self.index)), dtype=np.int64)
        until = np.minimum(self.view.call_ends[self.index], self.view.starts[self.index])
        for thread in self.calls:
            here = self.thread == thread
            spent, begun = of_thread(thread), np.full(int(here.sum()), self.start)
            by_start[here] = spent.covered(begun, until[here])
            by_wait[here] = spent.covered(begun, self.last_wait[here])
        return by_start, by_wait


def _stays(covered: Union) -> Union:
    left, right = covered.ends[:-1], covered.starts[1:]
    long = right - left >= SHORT_STAY_NS
    return Union(left[long], right[long]) if long.any() else EMPTY
