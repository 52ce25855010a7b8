"""Many ranks made from one real rank: its tables read once, its times bent so that what is planted is known exactly.

Between two collectives a rank takes the real rank's time, jittered; it arrives, waits for the last of all, and all leave
together but for a microsecond. Everything else of the trace (kernels, calls, ranges) bends with it, in order. Then the
rank's clock is shifted.
"""

from __future__ import annotations

import functools
import gzip
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from conftest import TRACES

from moeprof.metrics.group import Place
from moeprof.metrics.intervals import Union, union
from moeprof.trace import Trace, read
from moeprof.trace.split import split
from moeprof.trace.tables import RANGES, table

MOVING_NS, LEAVING_NS = 200_000, 1_000
FAR = 10**10


@dataclass(frozen=True)
class Planted:
    """What is put in: each rank's clock, the share by which its own time is jittered, and extra time of some ranks before
    every collective: rank -> (cause, ns)."""

    clocks_ns: tuple[int, ...]
    jitter: float = 0.0
    stragglers: dict[int, tuple[str, int]] = field(default_factory=dict)
    seed: int = 1


@dataclass(frozen=True)
class Truth:
    """What must come out: arrivals [ranks, collectives] and ends on the common clock, and kernel ends as written."""

    arrivals: np.ndarray
    ends: np.ndarray


@functools.cache
def real(collectives: int = 8, per_iteration: int = 4) -> Trace:
    """The first rank of a real training run up to some collective, with iterations of a few collectives each marked."""
    whole = split(read(TRACES / "nsys" / "mfu_2gpu_before.sqlite"))[0].trace
    comm = whole.ops[whole.ops["kind"] == "comm"]
    last = int(comm["end_ns"].iloc[collectives - 1]) + 1
    ops = whole.ops[(whole.ops["start_ns"] < last) & (whole.ops["call"] >= 0)]
    first = int(ops["start_ns"].iloc[0])
    used = whole.calls[(whole.calls["start_ns"] < last) & whole.calls["pid"].isin(ops["pid"].unique())]
    row = pd.Series(np.arange(len(used)), index=used.index)
    ops = ops.assign(call=ops["call"].map(row).astype("int64")).reset_index(drop=True)
    starts = [first, *(int(e) for e in comm["end_ns"].iloc[per_iteration - 1 : collectives - 1 : per_iteration])]
    launched = [int(used["start_ns"].loc[row.index[ops["call"][ops["start_ns"] >= s].iloc[0]]]) for s in starts]
    return replace(
        whole,
        ops=ops.assign(start_ns=ops["start_ns"] - first, end_ns=ops["end_ns"] - first),
        calls=used.assign(start_ns=used["start_ns"] - first, end_ns=used["end_ns"] - first).reset_index(drop=True),
        ranges=_iterations([s - first for s in launched], last - first, int(ops["pid"].iloc[0])),
    )


def _iterations(starts: list[int], end: int, pid: int) -> pd.DataFrame:
    count = len(starts)
    return table(
        RANGES,
        {
            "start_ns": starts, "end_ns": [s - 1 for s in starts[1:]] + [end], "pid": [pid] * count, "tid": [pid] * count,
            "end_tid": [pid] * count, "domain": ["moeprof"] * count, "name": ["iteration"] * count,
            "payload": list(range(count)), "style": ["startend"] * count,
        },
    )  # fmt: skip


def grow(base: Trace, planted: Planted) -> tuple[list[tuple[Place, Trace]], Truth]:
    """One trace a rank, all from ``base``, and the truth."""
    comm = base.ops[base.ops["kind"] == "comm"]
    starts, ends = comm["start_ns"].to_numpy(), comm["end_ns"].to_numpy()
    bends = [_extra(base, starts, ends, *planted.stragglers.get(r, ("", 0))) for r in range(len(planted.clocks_ns))]
    truth, sources, targets = _bent(starts, ends, bends, planted)
    traces = []
    for rank, clock in enumerate(planted.clocks_ns):
        moved = _moved(base, sources[rank], targets[rank] + clock)
        traces.append((Place(rank, "made", f"rank{rank}", 0), moved))
    return traces, truth


def _extra(base: Trace, starts: np.ndarray, ends: np.ndarray, cause: str, ns: int) -> tuple[np.ndarray, int]:
    """Where in each stretch between collectives the extra time goes: into its longest kernel, or its longest idle gap."""
    first = np.concatenate([[0], ends[:-1]])
    if not ns:
        return (first + starts) // 2, 0
    ops = base.ops
    busy = union(ops["start_ns"].to_numpy(), ops["end_ns"].to_numpy())
    kernels = ops[ops["kind"] == "kernel"]
    points = []
    for a, b in zip(first, starts, strict=True):
        if cause == "compute":
            inside = kernels[(kernels["start_ns"] >= a) & (kernels["end_ns"] <= b)]
            longest = inside.loc[(inside["end_ns"] - inside["start_ns"]).idxmax()]
            points.append((int(longest["start_ns"]) + int(longest["end_ns"])) // 2)
        else:
            points.append(_starving(base, busy.gaps(int(a), int(b))))
    return np.array(points), ns


def _starving(base: Trace, gaps: Union) -> int:
    """The middle of the longest idle gap in whose middle the host had not yet begun to launch what ends it."""
    middle = (gaps.starts + gaps.ends) // 2
    ender = np.searchsorted(base.ops["start_ns"].to_numpy(), gaps.ends)
    called = base.calls["start_ns"].to_numpy()[base.ops["call"].to_numpy()[ender]]
    return int(middle[np.where(called > middle, gaps.ends - gaps.starts, -1).argmax()])


def _bent(
    starts: np.ndarray, ends: np.ndarray, bends: list[Any], planted: Planted
) -> tuple[Truth, list[Any], list[Any]]:
    """For each rank the anchors of its bending: from the real times to the made ones."""
    random, ranks = np.random.default_rng(planted.seed), len(bends)
    own = np.diff(np.concatenate([[0], np.stack([starts, ends], axis=1).ravel()]))[::2]
    own = own * (1 + planted.jitter * random.uniform(-1, 1, (ranks, len(own))))
    own = own + np.array([ns for _, ns in bends])[:, None]
    leave, arrivals, left = np.zeros(ranks), [], []
    for k in range(len(starts)):
        arrival = np.round(leave + own[:, k])
        leave = np.round(arrival.max() + MOVING_NS + random.uniform(0, LEAVING_NS, ranks))
        arrivals.append(arrival)
        left.append(leave)
    came, went = np.stack(arrivals, axis=1), np.stack(left, axis=1)
    sources, targets = [], []
    for rank, (points, ns) in enumerate(bends):
        before = np.concatenate([[0], went[rank, :-1]])
        share = (points - np.concatenate([[0], ends[:-1]])) / np.maximum(starts - np.concatenate([[0], ends[:-1]]), 1)
        place = np.round(before + share * (came[rank] - before - ns))
        source = np.stack([points, points + 1, starts, ends], axis=1).ravel()
        target = np.stack([place, place + 1 + ns, came[rank], went[rank]], axis=1).ravel()
        sources.append(np.concatenate([[-FAR, 0], source, [ends[-1] + FAR]]))
        targets.append(np.concatenate([[-FAR, 0], target, [went[rank, -1] + FAR]]))
    return Truth(came.astype(np.int64), went.astype(np.int64)), sources, targets


def _moved(base: Trace, source: np.ndarray, target: np.ndarray) -> Trace:
    def bent(frame: pd.DataFrame) -> pd.DataFrame:
        times = {n: np.round(np.interp(frame[n], source, target)).astype(np.int64) for n in ("start_ns", "end_ns")}
        return frame.assign(**times)

    return replace(base, ops=bent(base.ops), calls=bent(base.calls), ranges=bent(base.ranges))


def as_kineto(trace: Trace, rank: int | None, world_size: int, elements: int = 1 << 20) -> dict[str, Any]:
    """A torch.profiler document of the tables: kernels, copies, launch calls and iterations; all-reduces of bfloat16."""
    events = [_gpu(row, elements, world_size) for row in trace.ops.itertuples()]
    for row in trace.calls.itertuples():
        events.append(
            _event("cuda_runtime", row.name, row, {"correlation": int(row.Index) + 1}, pid=1, tid=int(row.tid))
        )
    for row in trace.ranges.itertuples():
        events.append(_event("user_annotation", f"ProfilerStep#{row.payload}", row, {}, pid=1, tid=int(row.tid)))
    told = {} if rank is None else {"distributedInfo": {"backend": "nccl", "rank": rank, "world_size": world_size}}
    return {
        "schemaVersion": 1,
        "deviceProperties": [],
        **told,
        "baseTimeNanoseconds": 1_700_000_000 * 10**9,
        "traceEvents": events,
    }


def _gpu(row: Any, elements: int, world_size: int) -> dict[str, Any]:
    args: dict[str, Any] = {"device": 0, "stream": int(row.stream), "correlation": int(row.call) + 1}
    if row.kind == "comm":
        args |= {
            "Collective name": "allreduce", "In msg nelems": elements, "Out msg nelems": elements, "dtype": "BFloat16",
            "Group size": world_size, "Process Group Name": "0",
        }  # fmt: skip
        return _event("kernel", "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgs)", row, args)
    if row.kind == "copy":
        return _event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", row, args | {"bytes": int(row.bytes)})
    return _event("gpu_memset" if row.kind == "memset" else "kernel", str(row.name), row, args)


def _event(cat: str, name: str, row: Any, args: dict[str, Any], pid: int = 0, tid: int = 7) -> dict[str, Any]:
    times = {"ts": row.start_ns / 1000, "dur": (row.end_ns - row.start_ns) / 1000}
    return {"ph": "X", "cat": cat, "name": str(name), "pid": pid, "tid": tid, **times, "args": args}


def write_folder(folder: Path, made: list[tuple[Place, Trace]], named: bool = False) -> None:
    """One gzipped Kineto trace a rank; ``named``: the rank stands in the file's name alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, trace in made:
        document = as_kineto(trace, None if named else place.rank, len(made))
        name = f"rank{place.rank}.json.gz" if named else f"{'abcdefghij'[-1 - place.rank]}.json.gz"
        (folder / name).write_bytes(gzip.compress(json.dumps(document).encode(), 1))
