"""One trace of several processes or GPUs as one trace for each (process, GPU): each is a rank."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from moeprof.trace.tables import Trace


@dataclass(frozen=True)
class Piece:
    """A process's work on one GPU: its operations and ranges. Host calls stay whole, since operations name their row.

    ``pid`` is None where the trace is of one process only.
    """

    pid: int | None
    device: int
    trace: Trace


def split(trace: Trace) -> tuple[Piece, ...]:
    """The pieces that run kernels (all of them, where none does), by GPU and then by process.

    A Kineto trace is of one process, and of one GPU where it tells its rank: then the GPU that has most of the work.
    """
    ops = trace.ops
    if trace.kind == "kineto":
        devices = ops["device"].value_counts(sort=True)
        wanted = list(devices.index[:1]) if trace.origin.rank is not None else sorted(devices.index)
        return tuple(_piece(trace, None, int(d), (ops["device"] == d).to_numpy()) for d in wanted)
    pairs = ops.groupby(["device", "pid"], sort=True).ngroup().to_numpy()
    kernels = ops["kind"].isin(["kernel", "comm", "graph"]).to_numpy()
    chosen = np.unique(pairs[kernels]) if kernels.any() else np.unique(pairs)
    processes = ops["pid"].nunique() > 1
    found = []
    for number in chosen:
        mask = pairs == number
        row = ops.iloc[int(mask.argmax())]
        found.append(_piece(trace, int(row["pid"]) if processes else None, int(row["device"]), mask))
    return tuple(found)


def _piece(trace: Trace, pid: int | None, device: int, mask: np.ndarray) -> Piece:
    ops = trace.ops if mask.all() else trace.ops[mask].reset_index(drop=True)
    ranges = trace.ranges
    if pid is not None:
        ranges = ranges[ranges["pid"] == pid].reset_index(drop=True)
    return Piece(pid, device, replace(trace, ops=ops, ranges=ranges))
