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
import pytest
from paths import TRACES

from moeprof.analysis.intervals import Union, union
from moeprof.ranks.analyze import analyse_ranks
from moeprof.ranks.model import GroupAnalysis, Place
from moeprof.ranks.summary import RankFacts, facts
from moeprof.trace import Trace, read
from moeprof.trace.split import split
from moeprof.trace.tables import RANGES, table

EXPORT = "mfu_2gpu_before.sqlite"
MOVING_NS, LEAVING_NS = 200_000, 1_000
FAR = 10**10
NAMES = "abcdefghij"

Extra = tuple[np.ndarray, np.ndarray, np.ndarray]  # from and to in the real rank's time, and how much longer that takes


@dataclass(frozen=True)
class Planted:
    """What is put in: each rank's clock, the share by which its own time is jittered, extra time of some ranks before every
    collective (rank -> "compute" or "host", ns), and ranks whose compute takes a factor longer."""

    clocks_ns: tuple[int, ...]
    jitter: float = 0.0
    late: dict[int, tuple[str, int]] = field(default_factory=dict)
    stretched: dict[int, float] = field(default_factory=dict)
    seed: int = 1


@dataclass(frozen=True)
class Truth:
    """What must come out: arrivals [ranks, collectives] and ends on the common clock."""

    arrivals: np.ndarray
    ends: np.ndarray


@functools.cache
def real(collectives: int = 8, per_iteration: int = 4) -> Trace:
    """The first rank of a real training run up to some collective, with iterations of a few collectives each marked."""
    whole = split(read(TRACES / "nsys" / EXPORT))[0].trace
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


@pytest.fixture(scope="module")
def base(traces: Path) -> Trace:
    """The rank that others are made from."""
    assert traces
    return real()


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
    """One trace per rank, all from ``base``, and the truth."""
    comm = base.ops[base.ops["kind"] == "comm"]
    begins = np.concatenate([[0], comm["end_ns"].to_numpy()[:-1]])
    spans = list(zip(begins.tolist(), comm["start_ns"].tolist(), strict=True))
    ranks = range(len(planted.clocks_ns))
    extras = [[_extra(base, a, b, rank, planted) for a, b in spans] for rank in ranks]
    scale = 1 + planted.jitter * np.random.default_rng(planted.seed).uniform(-1, 1, (len(ranks), len(spans)))
    own = np.array([[(b - a) * k + x[2].sum() for (a, b), k, x in zip(spans, scale[r], extras[r], strict=True)] for r in ranks])  # fmt: skip
    truth = _met(own, planted)
    traces = []
    for rank in ranks:
        source, target = _anchors(spans, comm["end_ns"].to_numpy(), extras[rank], scale[rank], truth, rank)
        moved = _moved(base, source, target + planted.clocks_ns[rank])
        traces.append((Place(rank, "made", f"rank{rank}", 0), moved))
    return traces, truth


def _met(own: np.ndarray, planted: Planted) -> Truth:
    """Arrivals and ends, collective by collective: all leave together, a little apart."""
    random = np.random.default_rng(planted.seed + 1)
    leave, arrivals, ends = np.zeros(len(own)), [], []
    for k in range(own.shape[1]):
        arrivals.append(np.round(leave + own[:, k]))
        leave = np.round(arrivals[-1].max() + MOVING_NS + random.uniform(0, LEAVING_NS, len(own)))
        ends.append(leave)
    return Truth(np.stack(arrivals, axis=1).astype(np.int64), np.stack(ends, axis=1).astype(np.int64))


def _extra(base: Trace, begin: int, end: int, rank: int, planted: Planted) -> Extra:
    """Where between two collectives a rank takes longer: in all compute, in its longest kernel, or in an idle gap."""
    ops = base.ops
    kernels = ops[(ops["kind"] == "kernel") & (ops["start_ns"] >= begin) & (ops["end_ns"] <= end)]
    if rank in planted.stretched:
        busy = union(kernels["start_ns"].to_numpy(), kernels["end_ns"].to_numpy())
        more = np.round((busy.ends - busy.starts) * (planted.stretched[rank] - 1)).astype(np.int64)
        return busy.starts, busy.ends, more
    cause, ns = planted.late.get(rank, ("", 0))
    if not ns:
        return (np.empty(0, np.int64),) * 3
    if cause == "compute":
        longest = kernels.loc[(kernels["end_ns"] - kernels["start_ns"]).idxmax()]
        point = (int(longest["start_ns"]) + int(longest["end_ns"])) // 2
    else:
        busy = union(ops["start_ns"].to_numpy(), ops["end_ns"].to_numpy())
        point = _starving(base, busy.gaps(begin, end))
    return np.array([point]), np.array([point + 1]), np.array([ns])


def _starving(base: Trace, gaps: Union) -> int:
    """The middle of the longest idle gap in whose middle the host had not yet begun to launch what ends it."""
    middle = (gaps.starts + gaps.ends) // 2
    ender = np.searchsorted(base.ops["start_ns"].to_numpy(), gaps.ends)
    called = base.calls["start_ns"].to_numpy()[base.ops["call"].to_numpy()[ender]]
    return int(middle[np.where(called > middle, gaps.ends - gaps.starts, -1).argmax()])


def _anchors(
    spans: list[tuple[int, int]], ends: np.ndarray, extras: list[Extra], scale: np.ndarray, truth: Truth, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """From the real times to the made ones."""
    source, target, left = [-FAR, 0], [-FAR, 0], 0
    for k, (begin, end) in enumerate(spans):
        longer = 0
        for start, stop, more in zip(*extras[k], strict=True):
            source += [start, stop]
            target += [left + (start - begin) * scale[k] + longer, left + (stop - begin) * scale[k] + longer + more]
            longer += more
        left = int(truth.ends[rank, k])
        source += [end, int(ends[k])]
        target += [int(truth.arrivals[rank, k]), left]
    return np.array([*source, source[-1] + FAR]), np.array([*target, target[-1] + FAR])


def _moved(base: Trace, source: np.ndarray, target: np.ndarray) -> Trace:
    def bent(frame: pd.DataFrame) -> pd.DataFrame:
        times = {n: np.round(np.interp(frame[n], source, target)).astype(np.int64) for n in ("start_ns", "end_ns")}
        return frame.assign(**times)

    return replace(base, ops=bent(base.ops), calls=bent(base.calls), ranges=bent(base.ranges))


def more_blocks(trace: Trace, factor: float) -> Trace:
    """The trace with as many more thread blocks in each compute kernel: more work."""
    grid = np.where(trace.ops["kind"] == "kernel", np.round(trace.ops["grid_x"] * factor), trace.ops["grid_x"])
    return replace(trace, ops=trace.ops.assign(grid_x=grid.astype(np.int32)))


def analysed(made: list[tuple[Place, Trace]], one_clock: bool = True, **known: Any) -> GroupAnalysis:
    """The analysis of made ranks: of one trace (its clock is shared) or of a file each."""
    return analyse_ranks("made", facts_of(made, one_clock), **known)


def facts_of(made: list[tuple[Place, Trace]], one_clock: bool = True, drawn: bool = False) -> list[RankFacts]:
    """The facts of made ranks."""
    places = [replace(place, file="one" if one_clock else place.file) for place, _ in made]
    found = [facts(place, trace, None, drawn) for place, (_, trace) in zip(places, made, strict=True)]
    return [rank for rank in found if rank is not None]


def shifted(rank_facts: RankFacts, rank: int, by_ns: int) -> RankFacts:
    """The facts as those of another rank, whose clock is ``by_ns`` ahead."""
    kernels = rank_facts.collectives
    return replace(
        rank_facts,
        place=replace(rank_facts.place, rank=rank, file=f"rank{rank}"),
        windows=tuple(replace(w, start_ns=w.start_ns + by_ns, end_ns=w.end_ns + by_ns) for w in rank_facts.windows),
        collectives=replace(
            kernels, starts=kernels.starts + by_ns, ends=kernels.ends + by_ns, left=kernels.left + by_ns
        ),
        hidden=Union(rank_facts.hidden.starts + by_ns, rank_facts.hidden.ends + by_ns),
        edges=rank_facts.edges + by_ns,
    )


def assert_consistent(analysis: GroupAnalysis) -> None:
    """What must hold of any group, to the nanosecond."""
    for rank in analysis.ranks:
        for window in rank.windows:
            assert sum(vars(window.ledger).values()) == window.span_ns
            assert sum(vars(window.idle).values()) == window.ledger.idle_ns
            if window.waiting_ns is not None:
                assert 0 <= (window.exposed_waiting_ns or 0) <= min(window.waiting_ns, window.ledger.exposed_comm_ns)
        if rank.lateness is not None:
            assert sum(rank.lateness.because.values()) == rank.lateness.late_ns
    for collective in analysis.collectives:
        for arrival in collective.arrivals:
            assert arrival.skew_ns >= arrival.late_ns >= 0 and arrival.moving_ns >= 0


def as_kineto(trace: Trace, rank: int | None, world_size: int, elements: int = 1 << 20) -> dict[str, Any]:
    """A torch.profiler document of the tables: kernels, copies, launch calls and iterations; all-reduces of bfloat16."""
    events = [_gpu(row, elements, world_size) for row in trace.ops.itertuples()]
    for row in trace.calls.itertuples():
        args = {"correlation": int(row.Index) + 1}
        events.append(_event("cuda_runtime", row.name, row, args, pid=1, tid=int(row.tid)))
    for row in trace.ranges.itertuples():
        events.append(_event("user_annotation", f"ProfilerStep#{row.payload}", row, {}, pid=1, tid=int(row.tid)))
    told = {} if rank is None else {"distributedInfo": {"backend": "nccl", "rank": rank, "world_size": world_size}}
    base = {"schemaVersion": 1, "deviceProperties": [], "baseTimeNanoseconds": 1_700_000_000 * 10**9}
    return base | told | {"traceEvents": events}


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
    args["grid"] = [int(row.grid_x), int(row.grid_y), int(row.grid_z)]
    return _event("gpu_memset" if row.kind == "memset" else "kernel", str(row.name), row, args)


def _event(cat: str, name: str, row: Any, args: dict[str, Any], pid: int = 0, tid: int = 7) -> dict[str, Any]:
    times = {"ts": row.start_ns / 1000, "dur": (row.end_ns - row.start_ns) / 1000}
    return {"ph": "X", "cat": cat, "name": str(name), "pid": pid, "tid": tid, **times, "args": args}


def write_folder(folder: Path, made: list[tuple[Place, Trace]], named: bool = False) -> None:
    """One gzipped Kineto trace per rank; ``named``: the rank stands in the file's name alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, trace in made:
        document = as_kineto(trace, None if named else place.rank, len(made))
        name = f"rank{place.rank}.json.gz" if named else f"{NAMES[-1 - place.rank % len(NAMES)]}{place.rank:04}.json.gz"
        (folder / name).write_bytes(gzip.compress(json.dumps(document).encode(), 1))
