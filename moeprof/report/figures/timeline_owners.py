"""Who owns each nanosecond of a device, by class of work or cause of idle time: the ledger, piece by piece."""

from __future__ import annotations

import numpy as np

from moeprof.analysis.device import PRECEDENCE, DeviceView, one_of
from moeprof.analysis.intervals import Times, Union, intersection, minus, newly_covered, union
from moeprof.analysis.ledger import gaps
from moeprof.report.figures.timeline_classes import CLASSES, IDLE, op_classes


def owners(view: DeviceView, start: int, end: int) -> dict[str, Union]:
    """Every nanosecond of [start, end) under exactly one class: work by the ledger's precedence, idle time by its cause."""
    classes = op_classes(view)
    owned: dict[str, Union] = {}
    names = list(CLASSES)
    for number, kinds in enumerate(PRECEDENCE):
        rows = np.flatnonzero(one_of(view.ops["kind"], kinds))
        left, right = newly_covered(view.starts[rows], view.ends[rows])
        for code in np.unique(classes[rows]):
            part = classes[rows] == code
            pieces = union(left[part], right[part])
            owned[names[code]] = minus(pieces, view.reaches[number - 1]) if number else pieces
    starts, ends, cause = idle_pieces(view, start, end)
    for number, name in enumerate(IDLE):
        owned[name] = union(starts[cause == number], ends[cause == number])
    return owned


def idle_pieces(view: DeviceView, start: int, end: int) -> tuple[Times, Times, np.ndarray]:
    """The idle time of [start, end) in pieces of one cause each (number of a key of IDLE), in order; the sums by cause are
    those of ``ledger.idle``."""
    pieces = gaps(view, start, end)
    called = pieces.starts + pieces.host + pieces.sync
    returned = called + pieces.launch
    waits, late = _before_launch(view, pieces.ender, pieces.starts, called)
    inside = view.busy.clip(start, end)
    first, last = (inside.starts[:1], inside.ends[-1:]) if len(inside.starts) else (np.array([end]), np.array([end]))
    edges = Union(np.concatenate([[start], last]), np.concatenate([first, [end]]))
    parts = {
        "host": (late.starts, late.ends), "sync": (waits.starts, waits.ends), "launch": (called, returned),
        "dependency": (returned, pieces.ends), "edge": (edges.starts, edges.ends),
    }  # fmt: skip
    starts, ends = (np.concatenate([parts[name][i] for name in IDLE]).astype(np.int64) for i in (0, 1))
    cause = np.repeat(np.arange(len(IDLE)), [len(parts[name][0]) for name in IDLE])
    keep = np.flatnonzero(ends > starts)
    keep = keep[np.argsort(starts[keep], kind="stable")]
    return starts[keep], ends[keep], cause[keep]


def _before_launch(view: DeviceView, ender: Times, starts: Times, ends: Times) -> tuple[Union, Union]:
    """[start, end) of each gap before its launch call: where the launching thread was blocked, and the rest."""
    whole = union(starts, ends)
    if not len(view.calls) or not len(ender):
        return Union(starts[:0], ends[:0]), whole
    call = view.call[ender]
    thread = np.where(call >= 0, view.host.thread[call], -1)
    blocked = [
        intersection(union(starts[thread == n], ends[thread == n]), view.host.waits[int(n)])
        for n in np.unique(thread)
        if int(n) in view.host.waits
    ]
    if not blocked:
        return Union(starts[:0], ends[:0]), whole
    waits = union(np.concatenate([u.starts for u in blocked]), np.concatenate([u.ends for u in blocked]))
    return waits, minus(whole, waits)


def waiting(view: DeviceView) -> tuple[Times, Times]:
    """(returned, begun) of each launch call whose first operation began after it had returned: it waited in between."""
    known = np.flatnonzero(view.call >= 0)
    call, first = np.unique(view.call[known], return_index=True)  # operations are sorted by start
    if not len(call):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    returned, begun = view.host.ends[call], view.starts[known[first]]
    waits = begun > returned
    return returned[waits], begun[waits]
