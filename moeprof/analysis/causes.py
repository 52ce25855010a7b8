"""Why each copy was exposed and each gap idle: cause, call, stream, and what to try, grouped so that nothing is left out.

The rows of a cause add up to its nanoseconds in ``why_exposed`` and in ``idle``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from moeprof.analysis.device import DeviceView
from moeprof.analysis.host_calls import at
from moeprof.analysis.intervals import Times
from moeprof.analysis.ledger import Gaps, gaps
from moeprof.analysis.model import Cause
from moeprof.analysis.overlap import exposures
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
    "host": "move this work out of the loop, or do it while the GPU works",
    "dependency": "let streams wait only for what they read",
}
MOST = 0.5  # of a gap's host time inside allocations: they are named

# The evidence beside a cause, as one number: a form, and the number of a call's name (or of a direction and a call's name).
CALL, LATENCY, EVENT, SUBMITTED, OUTSIDE, UNKNOWN, COPY = range(7)
FORMS = {
    CALL: "{call}",
    LATENCY: "latency of {call}",
    EVENT: "a stream's wait for an event before {call}",
    SUBMITTED: "submitted by {call}",
    OUTSIDE: "outside CUDA",
    UNKNOWN: "no launch call known",
    COPY: "{direction} by {call}",
}
NAMES = 1 << 20  # more names of calls or directions than any trace has


def exposed_causes(view: DeviceView, start: int, end: int) -> tuple[Cause, ...]:
    """Exposed copies by cause, direction, stream and launch call, the most time first."""
    rows = exposures(view, start, end)
    rows = rows[rows["exposed_ns"] > 0]
    ops = rows["op"].to_numpy(dtype=np.int64)
    direction = view.ops["direction"].cat.codes.to_numpy().astype(np.int64)[ops]
    what = (COPY * NAMES + direction) * NAMES + _call_codes(view, view.call[ops])
    causes, codes = np.unique(rows["cause"].to_numpy(dtype=object).astype(str), return_inverse=True)
    return _grouped(view, list(causes), codes, what, ops, rows["exposed_ns"].to_numpy(np.int64), TRY_COPY)


def idle_causes(view: DeviceView, start: int, end: int) -> tuple[Cause, ...]:
    """Idle time by cause, call, and the stream of the operation that ended the gap, the most time first."""
    idle_gaps = gaps(view, start, end)
    parts = {
        "launch": idle_gaps.launch,
        "sync": idle_gaps.sync,
        "host": idle_gaps.host,
        "dependency": idle_gaps.dependency,
    }
    rows_of = {cause: np.flatnonzero(ns > 0) for cause, ns in parts.items()}
    what = np.concatenate([_what(view, idle_gaps, cause, rows) for cause, rows in rows_of.items()])
    codes = np.repeat(np.arange(len(rows_of)), [len(rows) for rows in rows_of.values()])
    ns = np.concatenate([parts[cause][rows] for cause, rows in rows_of.items()])
    ops = np.concatenate([idle_gaps.ender[rows] for rows in rows_of.values()]).astype(np.int64)
    return _grouped(view, list(rows_of), codes, what, ops, ns, TRY_IDLE)


def _what(view: DeviceView, idle_gaps: Gaps, cause: str, rows: Times) -> Times:
    """For each gap what the host was in: the launch call, the blocking call, an allocation, or nothing of CUDA."""
    ender = idle_gaps.ender[rows]
    call = view.call[ender]
    if cause == "launch":
        return _form(CALL, _call_codes(view, call))
    if cause == "dependency":
        return _waited_for(view, idle_gaps, rows)
    if cause == "sync":
        return _form(CALL, _call_codes(view, view.host.last_before(call, *BLOCKING)))
    allocation = view.host.last_before(call, "alloc")
    starts, ends = (at(times, allocation) for times in (view.host.starts, view.host.ends))
    begun = np.maximum(starts, idle_gaps.starts[rows])
    until = np.minimum(ends, np.minimum(view.call_starts[ender], idle_gaps.ends[rows]))
    inside = (allocation >= 0) & (until - begun > MOST * idle_gaps.host[rows])
    elsewhere = _form(np.where(call >= 0, OUTSIDE, UNKNOWN), np.zeros(len(rows), dtype=np.int64))
    return np.where(inside, _form(CALL, _call_codes(view, allocation)), elsewhere)


def _waited_for(view: DeviceView, idle_gaps: Gaps, rows: Times) -> Times:
    """For each gap after the launch call had returned: the latency of that call, or an event that the stream waits for."""
    ender = idle_gaps.ender[rows]
    call = view.call[ender]
    late = (call >= 0) & (view.call_ends[ender] > idle_gaps.starts[rows])
    before = view.host.last_before(call)
    waits = (before >= 0) & view.host.waits_for_event[np.maximum(before, 0)] if len(view.calls) else before >= 0
    return _form(np.select([late, waits], [LATENCY, EVENT], default=SUBMITTED), _call_codes(view, call))


def _form(form: int | np.ndarray, code: Times) -> Times:
    return np.asarray(form, dtype=np.int64) * NAMES * NAMES + code


def _call_codes(view: DeviceView, calls: Times) -> Times:
    """The number of each call's name; the last number where the call is not known."""
    return np.where(calls >= 0, at(view.host.names, calls), NAMES - 1)


def _text(view: DeviceView, what: int) -> str:
    names, directions = view.calls["name"].cat.categories, view.ops["direction"].cat.categories
    form, direction, call = what // NAMES // NAMES, what // NAMES % NAMES, what % NAMES
    name = "a call that was not recorded" if call == NAMES - 1 else str(names[call]) if call < len(names) else ""
    return FORMS[form].format(call=name, direction=directions[direction] if direction < len(directions) else "")


def _grouped(
    view: DeviceView, causes: list[str], codes: Times, what: Times, ops: Times, ns: Times, try_: dict[str, str]
) -> tuple[Cause, ...]:
    """One row for each cause, evidence and stream."""
    if not len(ops):
        return ()
    of, evidence = pd.factorize(what)
    on, streams = pd.factorize(view.ops["stream"].to_numpy()[ops])
    group, key = pd.factorize((codes * len(evidence) + of) * len(streams) + on)
    sizes = np.bincount(group)
    total, most = np.zeros(len(key), dtype=np.int64), np.zeros(len(key), dtype=np.int64)
    np.add.at(total, group, ns)
    np.maximum.at(most, group, ns)
    hits = np.flatnonzero(ns == most[group])[::-1]
    longest = np.empty(len(key), dtype=np.int64)
    longest[group[hits]] = hits  # the first of the longest stays
    rows = []
    for number, k in enumerate(key):
        cause, seen, stream = (
            causes[k // len(streams) // len(evidence)],
            evidence[k // len(streams) % len(evidence)],
            streams[k % len(streams)],
        )
        cure = try_["launch"] if seen // NAMES // NAMES == LATENCY else try_[cause]  # latency counts as dependency
        rows.append(
            Cause(
                cause, _text(view, int(seen)), int(stream), int(sizes[number]), int(total[number]), int(most[number]),
                int(view.starts[ops[longest[number]]]), cure,
            )
        )  # fmt: skip
    return tuple(sorted(rows, key=lambda r: (-r.total_ns, r.cause, r.what, r.stream)))
