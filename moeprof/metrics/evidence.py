"""Why each copy was exposed and each gap idle: cause, call, stream, and what to try, grouped so that nothing is left out.

The rows of a cause add up to its nanoseconds in ``why_exposed`` and in ``idle``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from moeprof.metrics.analysis import Cause
from moeprof.metrics.device import DeviceView
from moeprof.metrics.intervals import EARLY, Times
from moeprof.metrics.ledger import Gaps, gaps
from moeprof.metrics.overlap import exposures
from moeprof.trace.classify import BLOCKING

TRY_COPY = {
    "pageable": "pin the host buffer",
    "same_stream": "copy in a stream of its own, ordered by events",
    "legacy_default_stream": "create the streams with cudaStreamNonBlocking",
    "nothing_to_overlap": "start it earlier, or give it work to hide under",
    "sync_between": "launch the next kernels before waiting for the copy, or let an event order them",
    "engine_busy": "move fewer bytes, or send first what is needed first",
    "issued_late": "issue it before the kernels that it can hide under",
    "dependency": "let it wait only for what it reads; use a second buffer",
}
TRY_IDLE = {
    "launch": "a CUDA graph, or fewer and larger kernels",
    "sync": "take the wait out of the loop",
    "host": "take host work off the loop, or prepare it while the GPU works",
    "dependency": "let streams wait only for what they read",
}
LATENCY = "latency"
MOST = 0.5  # of a gap's host time inside allocations: they are named


def exposed_causes(view: DeviceView, start: int, end: int) -> tuple[Cause, ...]:
    """Exposed copies by cause, direction, stream and launch call, the most time first."""
    rows = exposures(view, start, end)
    rows = rows[rows["exposed_ns"] > 0]
    ops = rows["op"].to_numpy(dtype=np.int64)
    what = _call_names(view, view.ops["call"].to_numpy()[ops])
    labels = rows["direction"].astype(str).to_numpy(dtype=object) + " by " + what
    return _grouped(
        view, rows["cause"].to_numpy(dtype=object), labels, ops, rows["exposed_ns"].to_numpy(np.int64), TRY_COPY
    )


def idle_causes(view: DeviceView, start: int, end: int) -> tuple[Cause, ...]:
    """Idle time by cause, call, and the stream of the operation that ended the gap, the most time first."""
    found = gaps(view, start, end)
    parts = {"launch": found.launch, "sync": found.sync, "host": found.host, "dependency": found.dependency}
    kept = {cause: np.flatnonzero(ns > 0) for cause, ns in parts.items()}
    what = [_what(view, found, cause, rows) for cause, rows in kept.items()]
    causes = np.repeat(np.array(list(kept), dtype=object), [len(rows) for rows in kept.values()])
    ns = np.concatenate([parts[cause][rows] for cause, rows in kept.items()])
    ops = np.concatenate([found.ender[rows] for rows in kept.values()]).astype(np.int64)
    return _grouped(view, causes, np.concatenate(what), ops, ns, TRY_IDLE)


def _what(view: DeviceView, found: Gaps, cause: str, rows: Times) -> np.ndarray:
    """For each gap what the host was in: the launch call, the blocking call, an allocation, or nothing of CUDA."""
    ender = found.ender[rows]
    call = view.ops["call"].to_numpy()[ender]
    if cause == "launch":
        return _call_names(view, call)
    if cause == "dependency":
        return _waited_for(view, found, rows)
    if cause == "sync":
        return _call_names(view, _last_before(view, ender, BLOCKING))
    allocation = _last_before(view, ender, ("alloc",))
    starts, ends = (np.append(view.calls[c].to_numpy(), EARLY) for c in ("start_ns", "end_ns"))
    begun = np.maximum(starts[allocation], found.starts[rows])
    until = np.minimum(ends[allocation], np.minimum(view.call_starts[ender], found.ends[rows]))
    inside = (allocation >= 0) & (until - begun > MOST * found.host[rows])
    return np.where(inside, _call_names(view, allocation), np.where(call >= 0, "outside CUDA", "no launch call known"))


def _waited_for(view: DeviceView, found: Gaps, rows: Times) -> np.ndarray:
    """For each gap after the launch call had returned: the latency of that call, or an event that the stream waits for."""
    ender = found.ender[rows]
    call = view.ops["call"].to_numpy()[ender]
    names = _call_names(view, call)
    late = (call >= 0) & (view.call_ends[ender] > found.starts[rows])
    before = _call_names(view, _last_before(view, ender, None))
    waits = np.array(["WaitEvent" in str(name) for name in before], dtype=bool)
    return np.select(
        [late, waits], [LATENCY + " of " + names, before + " before " + names], default="submitted by " + names
    ).astype(object)


def _last_before(view: DeviceView, ops: Times, kinds: tuple[str, ...] | None) -> Times:
    """The row of the last call of these kinds (of any, with None) that the operation's thread began before its launch call;
    -1 without one."""
    found = np.full(len(ops), -1)
    if not len(view.calls):
        return found
    call, thread = view.ops["call"].to_numpy()[ops], view.thread_of_calls
    chosen = np.ones(len(thread), dtype=bool) if kinds is None else view.calls["kind"].isin(kinds).to_numpy()
    starts = view.calls["start_ns"].to_numpy()
    for number in np.unique(thread[chosen]):
        rows = np.flatnonzero(chosen & (thread == number))
        mine = (call >= 0) & (thread[call] == number)
        found[mine] = np.append(rows, -1)[np.searchsorted(starts[rows], starts[call[mine]]) - 1]
    return found


def _call_names(view: DeviceView, calls: Times) -> np.ndarray:
    names = np.append(view.calls["name"].cat.categories.to_numpy(dtype=object), "a call that was not recorded")
    codes = np.append(view.calls["name"].cat.codes.to_numpy(), -1)
    return np.asarray(names[np.where(calls >= 0, codes[calls], -1)], dtype=object)


def _grouped(
    view: DeviceView, causes: np.ndarray, what: np.ndarray, ops: Times, ns: Times, try_: dict[str, str]
) -> tuple[Cause, ...]:
    if not len(ops):
        return ()
    table = pd.DataFrame(
        {"cause": causes, "what": what, "stream": view.ops["stream"].to_numpy()[ops], "ns": ns, "op": ops}
    )
    groups = table.groupby(["cause", "what", "stream"], sort=False)
    sums = groups["ns"].agg(["size", "sum", "max"])
    longest = table.loc[groups["ns"].idxmax()].set_index(["cause", "what", "stream"])["op"]
    rows = [
        Cause(
            str(c),
            str(w),
            int(s),
            int(n),
            int(total),
            int(most),
            int(view.starts[longest[c, w, s]]),
            _try(str(c), str(w), try_),
        )
        for (c, w, s), n, total, most in sums.itertuples(name=None)
    ]
    return tuple(sorted(rows, key=lambda r: (-r.total_ns, r.cause, r.what, r.stream)))


def _try(cause: str, what: str, table: dict[str, str]) -> str:
    """Latency after a launch call is counted as dependency, but its cure is the launch's."""
    return table["launch"] if what.startswith(LATENCY) and "launch" in table else table[cause]
