"""One trace of several processes or GPUs as one trace for each (process, GPU): each is a rank."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from moeprof.trace.tables import Trace

STRAY = 0.01  # of a process's kernels: fewer on a GPU on which another process has more are no rank


@dataclass(frozen=True)
class Piece:
    """A process's work on one GPU: its operations and ranges. Host calls stay whole, since operations name their row.

    ``pid`` is None where the trace is of one process only. ``stray`` counts its kernels on the GPUs of other processes.
    """

    pid: int | None
    device: int
    trace: Trace
    stray: int = 0


def split(trace: Trace) -> tuple[Piece, ...]:
    """The pieces that run kernels (all of them, where none does), by GPU and then by process.

    A Kineto trace is of one process, and of one GPU where it tells its rank: then the GPU that has most of the work.
    """
    ops = trace.ops
    if trace.kind == "kineto":
        devices = ops["device"].value_counts(sort=True)
        wanted = list(devices.index[:1]) if trace.origin.rank is not None else sorted(devices.index)
        return tuple(_piece(trace, None, int(d), (ops["device"] == d).to_numpy()) for d in wanted)
    kernels = ops["kind"].isin(["kernel", "comm", "graph"])
    counts = (ops[kernels] if kernels.any() else ops).groupby(["device", "pid"], sort=True).size()
    if ops["pid"].nunique() == 1:
        return tuple(_piece(trace, None, int(d), (ops["device"] == d).to_numpy()) for d, _ in counts.index)
    stray = _stray(counts)
    lost = counts[stray].groupby("pid").sum()
    return tuple(
        _piece(trace, int(p), int(d), ((ops["device"] == d) & (ops["pid"] == p)).to_numpy(), int(lost.get(p, 0)))
        for d, p in counts[~stray].index
    )


def _stray(counts: pd.Series) -> pd.Series:
    """The (device, process) pairs with almost none of the process's work, and less than another process has on that GPU."""
    little = counts < STRAY * counts.groupby("pid").transform("sum")
    return little & (counts < counts.groupby("device").transform("max"))


def _piece(trace: Trace, pid: int | None, device: int, mask: np.ndarray, stray: int = 0) -> Piece:
    ops = trace.ops if mask.all() else trace.ops[mask].reset_index(drop=True)
    ranges = trace.ranges
    if pid is not None:
        ranges = ranges[ranges["pid"] == pid].reset_index(drop=True)
    return Piece(pid, device, replace(trace, ops=ops, ranges=ranges), stray)
