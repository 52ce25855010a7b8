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
    found = Ledger(compute, comm, copy, migration, memset, view.busy.gaps(start, end).total_ns)
    if covered[-1] + found.idle_ns != end - start:
        raise TraceError(
            f"the ledger of device {view.index}, {start} to {end} ns, does not sum: {found}", "report this as a bug"
        )
    return found


def idle(view: DeviceView, start: int, end: int) -> Idle:
    """What the host did while the device starved.

    For each idle gap the operation that ends it is looked up, and its launch call: while that call ran is launch time;
    before it, sync where its thread was inside a blocking call, host otherwise; after it had returned, the operation
    was submitted and waited: dependency. An operation with no known call was submitted before the recording: also
    dependency; in a trace without any calls (CPU operators) all of it is the host's. What lies before the first and after
    the last operation of the window is the edge.
    """
    found = gaps(view, start, end)
    total = int(view.busy.gaps(start, end).total_ns)
    return Idle(
        launch_ns=int(found.launch.sum()),
        sync_ns=int(found.sync.sum()),
        host_ns=int(found.host.sum()),
        dependency_ns=int(found.dependency.sum()),
        edge_ns=total - int((found.ends - found.starts).sum()),
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
    found = view.busy.gaps(first, last) if last > first else EMPTY
    ender = np.searchsorted(view.starts, found.ends, side="left")
    called, returned = (view.call_starts[ender], view.call_ends[ender]) if len(view.calls) else (found.ends, found.ends)
    before = np.clip(called, found.starts, found.ends)
    after = np.clip(returned, found.starts, found.ends)
    waiting = _blocked(view, ender, found.starts, before)
    return Gaps(
        found.starts, found.ends, ender, after - before, waiting, before - found.starts - waiting, found.ends - after
    )


def _extent(view: DeviceView, start: int, end: int) -> tuple[int, int]:
    """From the first operation's start to the last one's end, inside the window."""
    inside = view.busy.clip(start, end)
    return (int(inside.starts[0]), int(inside.ends[-1])) if len(inside.starts) else (start, start)


def _blocked(view: DeviceView, ender: Times, starts: Times, ends: Times) -> Times:
    """For each gap [start, end) how long the thread that ends it was inside blocking calls."""
    found = np.zeros(len(starts), dtype=np.int64)
    call = view.call[ender] if len(view.calls) else np.full(len(ender), -1)
    thread = np.where(call >= 0, view.host.thread[call], -1) if len(view.calls) else call
    for number in np.unique(thread):
        waits, mine = view.host.waits.get(int(number)), thread == number
        if waits is not None:
            found[mine] = waits.covered(starts[mine], ends[mine])
    return found
