"""The time ledger: every nanosecond of a window under exactly one owner, and the idle ones by what the host did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moeprof.analysis.device import DeviceView
from moeprof.analysis.intervals import EMPTY, Times
from moeprof.analysis.model import Idle, Ledger
from moeprof.errors import TraceError


def ledger(view: DeviceView, start: int, end: int) -> Ledger:
    """Owners by the precedence compute, communication, copy, migration, memset; the rest is idle.

    An owner has what the union of it and those before it covers beyond the union of those before it.

    Raises:
        TraceError: the parts do not sum to the window (a defect of moeprof, never of the trace).
    """
    covered = [reach.clip(start, end).total_ns for reach in view.reaches]
    compute, comm, copy, migration, memset = (
        after - before for before, after in zip([0, *covered], covered, strict=False)
    )
    split = Ledger(compute, comm, copy, migration, memset, view.busy.gaps(start, end).total_ns)
    if covered[-1] + split.idle_ns != end - start:
        raise TraceError(
            f"the ledger of device {view.index}, {start} to {end} ns, does not sum: {split}", "report this as a bug"
        )
    return split


def idle(view: DeviceView, start: int, end: int) -> Idle:
    """What the host did while the device starved.

    For each idle gap the operation that ends it is looked up, and its launch call: while that call ran is launch time;
    before it, sync where its thread was inside a blocking call, host otherwise; after it had returned, the operation
    was submitted and waited: dependency. An operation with no known call was submitted before the recording: also
    dependency; in a trace without any calls (CPU operators) all of it is the host's. What lies before the first and after
    the last operation of the window is the edge.
    """
    idle_gaps = gaps(view, start, end)
    total = int(view.busy.gaps(start, end).total_ns)
    return Idle(
        launch_ns=int(idle_gaps.launch.sum()),
        sync_ns=int(idle_gaps.sync.sum()),
        host_ns=int(idle_gaps.host.sum()),
        dependency_ns=int(idle_gaps.dependency.sum()),
        edge_ns=total - int((idle_gaps.ends - idle_gaps.starts).sum()),
    )


@dataclass(frozen=True)
class Gaps:
    """The idle gaps between the first and the last operation of a window, and whose time they are (all in ns).

    ``ender`` is the row of the operation that ends a gap; launch + sync + host + dependency is its length.
    """

    starts: Times
    ends: Times
    ender: Times
    launch: Times
    sync: Times
    host: Times
    dependency: Times


def gaps(view: DeviceView, start: int, end: int) -> Gaps:
    """The gaps of a window (see ``idle``)."""
    first, last = _extent(view, start, end)
    idle_time = view.busy.gaps(first, last) if last > first else EMPTY
    ender = np.searchsorted(view.starts, idle_time.ends, side="left")
    called, returned = (
        (view.call_starts[ender], view.call_ends[ender]) if len(view.calls) else (idle_time.ends, idle_time.ends)
    )
    before = np.clip(called, idle_time.starts, idle_time.ends)
    after = np.clip(returned, idle_time.starts, idle_time.ends)
    waiting = _blocked(view, ender, idle_time.starts, before)
    return Gaps(
        idle_time.starts,
        idle_time.ends,
        ender,
        after - before,
        waiting,
        before - idle_time.starts - waiting,
        idle_time.ends - after,
    )


def _extent(view: DeviceView, start: int, end: int) -> tuple[int, int]:
    """From the first operation's start to the last one's end, inside the window."""
    inside = view.busy.clip(start, end)
    return (int(inside.starts[0]), int(inside.ends[-1])) if len(inside.starts) else (start, start)


def _blocked(view: DeviceView, ender: Times, starts: Times, ends: Times) -> Times:
    """For each gap [start, end) how long the thread that ends it was inside blocking calls."""
    blocked = np.zeros(len(starts), dtype=np.int64)
    call = view.call[ender] if len(view.calls) else np.full(len(ender), -1)
    thread = np.where(call >= 0, view.host.thread[call], -1) if len(view.calls) else call
    for number in np.unique(thread):
        waits, of_thread = view.host.waits.get(int(number)), thread == number
        if waits is not None:
            blocked[of_thread] = waits.covered(starts[of_thread], ends[of_thread])
    return blocked
