"""Where a trace repeats: the part that findings judge, without the set-up before it and the clean-up after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moeprof.metrics.device import DeviceView
from moeprof.metrics.intervals import EMPTY, Union, union
from moeprof.metrics.projection import projected
from moeprof.trace import Trace

LEAST_PASSES = 3  # repetitions from which a thing counts as a loop
MAJORITY = 0.5  # of the launches between its first and last instance that a range must hold to be the loop
STRANGERS = 0.05  # of the operations of a loop that need not recur


@dataclass(frozen=True)
class Focus:
    """The judged part of a device's time.

    Args:
        pieces: one interval, or one for each window of a named range.
        label: what it is: "step x 10" for a range, "the part that repeats", "the whole trace".
        spans: (start, end) of each pass where a range marks them: from the host's start to the GPU's end; else empty.
        repeats: whether a repetition was found.
    """

    pieces: Union
    label: str
    spans: tuple[tuple[int, int], ...] = ()
    repeats: bool = False

    @property
    def start_ns(self) -> int:
        """Where the judged part begins."""
        return int(self.pieces.starts[0])

    @property
    def end_ns(self) -> int:
        """Where it ends."""
        return int(self.pieces.ends[-1])


def focus(trace: Trace, view: DeviceView) -> Focus:
    """The instances of the outermost repeated range with work on this device; else the operations that recur; else all."""
    ranged = _by_range(trace, view)
    if ranged is not None:
        return ranged
    first, last = _recurring(view)
    if last - first >= LEAST_PASSES:
        ends = view.ends[first : last + 1].max()
        return Focus(Union(view.starts[first : first + 1], np.array([ends])), "the part that repeats", (), True)
    return Focus(union(view.starts[:1], np.array([view.ends.max()])) if len(view.starts) else EMPTY, "the whole trace")


def named(windows: list[tuple[int, int]], label: str) -> Focus:
    """The windows of a range that the user asked for."""
    starts, ends = (np.array([w[i] for w in windows], dtype=np.int64) for i in (0, 1))
    order = np.argsort(starts, kind="stable")
    spans = tuple((int(starts[i]), int(ends[i])) for i in order)
    return Focus(union(starts, ends), label, spans, len(windows) >= LEAST_PASSES)


def _by_range(trace: Trace, view: DeviceView) -> Focus | None:
    found = projected(trace, view.index)
    found = found[found["gpu_ops"] > 0]
    if not len(found):
        return None
    groups = found.groupby(["domain", "name"], observed=True, sort=False)
    table = groups.agg(
        n=("gpu_ops", "size"),
        ops=("gpu_ops", "sum"),
        begin=("start_ns", "min"),
        last=("last_ns", "max"),
        first=("first_ns", "min"),
    )
    table = table[table["n"] >= LEAST_PASSES]
    launches = np.sort(view.starts[np.unique(view.ops["call"].to_numpy(), return_index=True)[1]])
    meanwhile = np.searchsorted(launches, table["last"]) - np.searchsorted(launches, table["first"])
    table = table[table["ops"].to_numpy() >= MAJORITY * meanwhile]
    if not len(table):
        return None
    most = table["ops"].max()  # the outermost of nested ranges holds as many launches as those inside it, or more
    best = table[table["ops"] >= most * (1 - STRANGERS)].sort_values(["n", "begin"], kind="stable").index[0]
    mine = groups.get_group(best).sort_values("first_ns", kind="stable")
    begin, end = int(mine["first_ns"].min()), int(mine["last_ns"].max())
    spans = tuple((int(a), int(b)) for a, b in mine[["start_ns", "last_ns"]].itertuples(index=False))
    return Focus(union(np.array([begin]), np.array([end])), f"{best[1]} x {len(mine)}", spans, True)


def _recurring(view: DeviceView) -> tuple[int, int]:
    """First and last operation of the loop that the trace ends with: what recurs in its second half, traced back."""
    kind = view.signatures
    count = len(kind)
    if count < 2 * LEAST_PASSES:
        return 0, -1
    late = np.bincount(kind[count // 2 :], minlength=kind.max() + 1)
    loops = late[kind] >= LEAST_PASSES
    if not loops.any():
        return 0, -1
    last = int(np.flatnonzero(loops)[-1])
    strangers = np.cumsum(~loops[last::-1])  # going back from the last one
    allowed = strangers <= STRANGERS * np.arange(1, last + 2) + 1
    reach = int(np.flatnonzero(allowed)[-1]) + 1
    inside = np.flatnonzero(loops[last - reach + 1 : last + 1])
    return last - reach + 1 + int(inside[0]), last
