"""Where a trace repeats: the part that findings judge, without the set-up before it and the clean-up after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from moeprof.analysis.device import DeviceView
from moeprof.analysis.intervals import EMPTY, Union, union
from moeprof.analysis.projection import projected
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
    """The windows of the range that the user named."""
    starts, ends = (np.array([w[i] for w in windows], dtype=np.int64) for i in (0, 1))
    order = np.argsort(starts, kind="stable")
    spans = tuple((int(starts[i]), int(ends[i])) for i in order)
    return Focus(union(starts, ends), label, spans, len(windows) >= LEAST_PASSES)


def loops(ranges: pd.DataFrame, view: DeviceView) -> pd.DataFrame:
    """Ranges (``projected`` on this device) by domain and name, those with work: n instances, ops launched in them, first_ns and last_ns of that
    work, begin_ns and finish_ns on the host; share: of the launches from first_ns to last_ns, those that they hold; of_all:
    of all launches."""
    ranges = ranges[ranges["gpu_ops"] > 0]
    table = ranges.groupby(["domain", "name"], observed=True, sort=True).agg(
        n=("gpu_ops", "size"), ops=("gpu_ops", "sum"), first_ns=("first_ns", "min"), last_ns=("last_ns", "max"),
        begin_ns=("start_ns", "min"), finish_ns=("end_ns", "max"),
    )  # fmt: skip
    launches = np.sort(view.starts[np.unique(view.call, return_index=True)[1]])
    meanwhile = np.searchsorted(launches, table["last_ns"]) - np.searchsorted(launches, table["first_ns"])
    return table.assign(share=table["ops"] / np.maximum(meanwhile, 1), of_all=table["ops"] / max(len(launches), 1))


def _by_range(trace: Trace, view: DeviceView) -> Focus | None:
    ranges = projected(trace, view.index)
    table = loops(ranges, view)
    table = table[(table["n"] >= LEAST_PASSES) & (table["share"] >= MAJORITY)]
    if not len(table):
        return None
    most = table["ops"].max()  # the outermost of nested ranges holds as many launches as those inside it, or more
    best = table[table["ops"] >= most * (1 - STRANGERS)].sort_values(["n", "begin_ns"], kind="stable").iloc[:1]
    domain, name = best.index[0]
    instances = ranges[(ranges["gpu_ops"] > 0) & (ranges["name"] == name) & (ranges["domain"] == domain)].sort_values(
        "first_ns", kind="stable"
    )
    spans = tuple((int(a), int(b)) for a, b in instances[["start_ns", "last_ns"]].itertuples(index=False))
    pieces = union(best["first_ns"].to_numpy(), best["last_ns"].to_numpy())
    return Focus(pieces, f"{name} x {len(instances)}", spans, True)


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
