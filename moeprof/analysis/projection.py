"""Ranges projected on the GPU: which launch calls lie inside a range, and when their work ran.

A push/pop range holds the calls of its own thread, a start/end range those of any thread of its process; a call counts
when it began and ended inside the range. All work of a call counts, a graph launch's replay included.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from moeprof.analysis.intervals import EARLY, LATE, Times
from moeprof.errors import TraceError
from moeprof.trace import Trace

DEEPEST = 64  # calls inside calls on one thread


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
    for keys, style in ((["pid", "tid"], "pushpop"), (["pid"], "startend")):
        for key, group in ranges[ranges["style"] == style].groupby(keys, sort=False):
            calls = launched
            for name, value in zip(keys, key, strict=True):
                calls = calls[calls[name] == value]
            ranges.loc[group.index, ["gpu_ops", "first_ns", "last_ns"]] = _reduced(group, calls)
    return ranges


def numbers(rows: pd.DataFrame) -> list[int]:
    """What numbers the instances of a range in ``rows``: their payloads, if each has one of its own, else their places."""
    payloads = rows["payload"]
    return [int(n) for n in payloads] if payloads.is_unique and (payloads >= 0).all() else list(range(len(rows)))


def tiled(spans: list[tuple[int, int]]) -> list[int]:
    """Where each span (start, end) ends if it runs to the start of the next one: gaps between them are counted once."""
    ends = [start for start, _ in spans[1:]] + [end for _, end in spans[-1:]]
    return [max(end, start) for (start, _), end in zip(spans, ends, strict=True)]


def _launched(trace: Trace, device: int | None) -> pd.DataFrame:
    """Calls that produced work, sorted by start, with the extent of that work."""
    ops = trace.ops[trace.ops["call"] >= 0]
    if device is not None:
        ops = ops[ops["device"] == device]
    work = ops.groupby("call").agg(first_ns=("start_ns", "min"), last_ns=("end_ns", "max"))
    calls = trace.calls.loc[work.index, ["start_ns", "end_ns", "pid", "tid"]]
    return calls.assign(first_ns=work["first_ns"], last_ns=work["last_ns"]).sort_values("start_ns", kind="stable")


def _reduced(ranges: pd.DataFrame, calls: pd.DataFrame) -> np.ndarray:
    """[count, first, last] of the calls inside each range, thread by thread."""
    begin, finish = ranges["start_ns"].to_numpy(), ranges["end_ns"].to_numpy()
    reduced = np.tile(np.array([0, LATE, EARLY], dtype=np.int64), (len(ranges), 1))
    for _, of_thread in calls.groupby("tid", sort=False):
        starts, ends, first, last = (of_thread[c].to_numpy() for c in ("start_ns", "end_ns", "first_ns", "last_ns"))
        for layer in _layers(ends):  # calls of one layer follow one another, so that those inside a range are a slice
            low = np.searchsorted(starts[layer], begin, side="left")
            high = np.maximum(np.searchsorted(ends[layer], finish, side="right"), low)
            reduced[:, 0] += high - low
            reduced[:, 1] = np.minimum(reduced[:, 1], _slices(np.minimum, first[layer], low, high, LATE))
            reduced[:, 2] = np.maximum(reduced[:, 2], _slices(np.maximum, last[layer], low, high, EARLY))
    return reduced


def _layers(ends: Times) -> list[np.ndarray]:
    """Rows (sorted by start) in layers in which ends rise too: one, where no call lies inside another.

    Raises:
        TraceError: calls lie inside one another deeper than any program nests them.
    """
    layers: list[np.ndarray] = []
    left = np.arange(len(ends))
    while len(left):
        if len(layers) == DEEPEST:
            raise TraceError(f"launch calls lie inside one another more than {DEEPEST} deep", "record it again")
        reach = np.maximum.accumulate(ends[left])
        rising = ends[left] >= reach
        layers.append(left[rising])
        left = left[~rising]
    return layers


def _slices(reduce: np.ufunc, values: Times, low: Times, high: Times, blank: int) -> Times:
    """``reduce`` over each slice [low, high) of ``values``; ``blank`` where it is empty."""
    padded = np.append(values, blank)
    bounds = np.stack([low, high], axis=1).ravel()
    return np.where(high > low, reduce.reduceat(padded, bounds)[::2], blank)


def _by_time(ranges: pd.DataFrame, trace: Trace, device: int | None) -> pd.DataFrame:
    """A trace without host calls (CPU operators): the operations that start while the range is open."""
    ops = trace.ops if device is None else trace.ops[trace.ops["device"] == device]
    starts, ends = ops["start_ns"].to_numpy(), ops["end_ns"].to_numpy()
    low = np.searchsorted(starts, ranges["start_ns"], side="left")
    high = np.searchsorted(starts, ranges["end_ns"], side="right")
    high = np.maximum(high, low)
    first, last = _slices(np.minimum, starts, low, high, LATE), _slices(np.maximum, ends, low, high, EARLY)
    return ranges.assign(gpu_ops=high - low, first_ns=first, last_ns=last)
