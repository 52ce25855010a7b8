"""Ranges projected on the GPU: which launch calls lie inside a range, and when their work ran.

A push/pop range holds the calls of its own thread, a start/end range those of any thread of its process; a call counts
when it began and ended inside the range. All work of a call counts, a graph launch's replay included.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from moeprof.metrics.intervals import EARLY, LATE
from moeprof.trace import Trace


def projected(trace: Trace, device: int | None = None) -> pd.DataFrame:
    """The trace's ranges with gpu_ops (launch calls that produced work), first_ns and last_ns of that work.

    With ``device`` only the work of that device counts. Where gpu_ops is 0, first_ns and last_ns mean nothing.
    """
    ranges = trace.ranges.copy()
    launched = _launched(trace, device)
    for column, blank in (("gpu_ops", 0), ("first_ns", LATE), ("last_ns", EARLY)):
        ranges[column] = blank
    if not len(trace.calls) and len(trace.ops):
        return _by_time(ranges, trace, device)
    for style, keys in (("pushpop", ["pid", "tid"]), ("startend", ["pid"])):
        of_style = ranges[ranges["style"] == style]
        for key, mine in of_style.groupby(keys, sort=False):
            calls = launched
            for name, value in zip(keys, key if isinstance(key, tuple) else (key,), strict=True):
                calls = calls[calls[name] == value]
            ranges.loc[mine.index, ["gpu_ops", "first_ns", "last_ns"]] = _reduced(mine, calls)
    return ranges


def _launched(trace: Trace, device: int | None) -> pd.DataFrame:
    """Calls that produced work, sorted by start, with the extent of that work."""
    ops = trace.ops[trace.ops["call"] >= 0]
    if device is not None:
        ops = ops[ops["device"] == device]
    work = ops.groupby("call").agg(first_ns=("start_ns", "min"), last_ns=("end_ns", "max"))
    calls = trace.calls.loc[work.index, ["start_ns", "end_ns", "pid", "tid"]]
    return calls.assign(first_ns=work["first_ns"], last_ns=work["last_ns"]).sort_values("start_ns", kind="stable")


def _reduced(ranges: pd.DataFrame, calls: pd.DataFrame) -> np.ndarray:
    """[count, first, last] of the calls inside each range: a slice by start, then those that also ended inside."""
    starts, ends = calls["start_ns"].to_numpy(), calls["end_ns"].to_numpy()
    first, last = calls["first_ns"].to_numpy(), calls["last_ns"].to_numpy()
    begin, finish = ranges["start_ns"].to_numpy(), ranges["end_ns"].to_numpy()
    low, high = np.searchsorted(starts, begin, side="left"), np.searchsorted(starts, finish, side="right")
    rows = np.empty((len(ranges), 3), dtype=np.int64)
    for row, (a, b, until) in enumerate(zip(low, high, finish, strict=True)):
        whole = ends[a:b] <= until
        count = int(whole.sum())
        rows[row] = (count, first[a:b][whole].min(), last[a:b][whole].max()) if count else (0, LATE, EARLY)
    return rows


def _by_time(ranges: pd.DataFrame, trace: Trace, device: int | None) -> pd.DataFrame:
    """A trace without host calls (CPU operators): the operations that start while the range is open."""
    ops = trace.ops if device is None else trace.ops[trace.ops["device"] == device]
    starts, ends = ops["start_ns"].to_numpy(), ops["end_ns"].to_numpy()
    low = np.searchsorted(starts, ranges["start_ns"], side="left")
    high = np.searchsorted(starts, ranges["end_ns"], side="right")
    spans = [(b - a, starts[a], ends[a:b].max()) if b > a else (0, LATE, EARLY) for a, b in zip(low, high, strict=True)]
    ranges[["gpu_ops", "first_ns", "last_ns"]] = np.array(spans, dtype=np.int64).reshape(-1, 3)
    return ranges
