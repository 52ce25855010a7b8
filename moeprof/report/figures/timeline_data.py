"""A trace as the compact data of the timeline: lanes of events, the overview, flags of findings, passes.

All times are whole nanoseconds from ``zero_ns``. Columns of numbers are LEB128 varints in base64; a column that can fall
is a zigzag of its differences. ``docs`` of each column stand at ``_columns`` of the lane kinds:

    ranges  gap, length, template of the name, then the numbers in the name (differences to the same slot before)
    calls   gap, length, name, correlation (difference; 0 stands for none)
    work    gap, length, shape, launch call (0 for none, else 1 + zigzag of the difference to the call before)
    idle    gap, length, cause

``gap`` is the zigzag of start minus the latest end before it in the lane. The same trace gives the same bytes.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from moeprof.analysis.device import COMM, COPY, MEMSET, MIGRATION, PRECEDENCE, DeviceView, one_of, views
from moeprof.analysis.intervals import EARLY, Times, Union, intersection, minus, newly_covered, union
from moeprof.analysis.ledger import gaps
from moeprof.analysis.model import Finding
from moeprof.report.format import short_kernel
from moeprof.report.figures.timeline_places import Flag, Pass, flags_of, median_pass, passes_of
from moeprof.trace import Trace

VERSION = 1
BUDGET = 150_000  # events: about 1.4 MB of base64, decoded in about 0.1 s
MOST_BINS = 2_000  # of the overview, over all devices; of a lane's busy fractions
AROUND_NS = 10_000_000  # kept in full detail before and after a finding's place
LONG_NS = 20_000_000_000  # a recording of this length and more is counted in seconds
AROUND = "20 ms around finding"
LEAST_CALL_NS = 10_000  # a shorter call of the kinds "event" and "other" is left out: queries that no one looks for
MOST_STREAMS = 8  # lanes of streams on one device; the rest are folded by class
LONGEST_NAME = 300  # characters of a full kernel name
SHRINKS = 6  # how often a window that does not fit is halved before it is given up

# Kernel families, the first pattern that matches; any other kernel is "compute".
FAMILIES = (
    ("attention", re.compile(r"flash|fmha|attention|attn|\bmla|_mla|paged|softmax_warp", re.IGNORECASE)),
    (
        "gemm",
        re.compile(r"gemm|gemv|nvjet|xmma|matmul|cutlass_\d|wgmma|mma_|splitk|_bmm|grouped_mm|dot_kernel", re.IGNORECASE),
    ),
    (
        "elementwise",
        re.compile(
            r"elementwise|vectorized|catarray|fill|reduce|norm|softmax|gelu|silu|index|scatter|gather|embedding|cast|copy_|topk|sort|scan",
            re.IGNORECASE,
        ),
    ),
)
# Class -> what a reader sees. The colours are CSS variables of these names (timeline.css): work is cool, idle is warm.
WORK = {
    "attention": "attention", "gemm": "GEMM", "elementwise": "elementwise and reductions", "compute": "other compute",
    "graph": "CUDA graph, traced as a whole", "comm": "communication", "h2d": "copy H2D", "d2h": "copy D2H",
    "d2d": "copy D2D", "p2p": "copy P2P", "copy": "copy", "migration": "migration", "memset": "memset",
}  # fmt: skip
IDLE = {
    "host": "idle: host code is late", "sync": "idle: host waits", "launch": "idle: inside the launch call",
    "dependency": "idle: launched, not begun", "edge": "idle: before the first or after the last operation",
}  # fmt: skip
CALLS = {
    "launch-call": "launch", "graph-call": "graph launch", "copy-call": "copy call", "wait-call": "call that waits for the GPU",
    "alloc-call": "allocation", "other-call": "other call",
}  # fmt: skip
RANGES = {"range": "range"}
CLASSES = {**WORK, **IDLE, **CALLS, **RANGES}
NUMBER = {name: number for number, name in enumerate(CLASSES)}
CALL_CLASSES = {
    "launch": "launch-call", "graph_launch": "graph-call", "copy": "copy-call", "copy_sync": "wait-call", "sync": "wait-call",
    "memset": "copy-call", "alloc": "alloc-call",
}  # fmt: skip
DIRECTIONS = {"H2D": "h2d", "D2H": "d2h", "D2D": "d2d", "P2P": "p2p"}
OWNERS = {"compute_ns": 0, "exposed_comm_ns": 1, "exposed_copy_ns": 2, "exposed_migration_ns": 3, "exposed_memset_ns": 4}
ROLES = ("compute", "communication", "copies H2D", "copies D2H", "copies D2D", "copies P2P", "copies", "migrations", "memsets")
ROLE_OF = {
    "attention": 0, "gemm": 0, "elementwise": 0, "compute": 0, "graph": 0, "comm": 1, "h2d": 2, "d2h": 3, "d2d": 4, "p2p": 5,
    "copy": 6, "migration": 7, "memset": 8,
}  # fmt: skip
SHAPE = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "registers", "static_shared_bytes", "dynamic_shared_bytes", "bytes")  # fmt: skip
DIGITS = re.compile(r"(?<![\w.])(?:0|[1-9]\d{0,14})(?![\w.])")  # numbers in a range's name that come back as they were
SLOT = "\x00"


@dataclass(frozen=True)
class Timeline:
    """Everything that the figure of one trace needs.

    Args:
        payload: what ``timeline.js`` reads, as JSON-able data.
        note: what was reduced or left out, in one line; "" where nothing was.
        events: how many events the payload holds in full.
        flags: the places of the findings, in their order.
        typical_ns: when the pass of median length begins, in ns after the recording's beginning; 0 where there are no passes.
    """

    payload: dict[str, Any]
    note: str
    events: int
    flags: tuple[Flag, ...]
    typical_ns: int = 0


@dataclass(frozen=True)
class Lane:
    """One row of the figure before it is encoded: ``kind``, labels, and its events sorted by start."""

    kind: str
    group: int
    label: str
    starts: Times
    ends: Times
    classes: np.ndarray  # number of each event's class
    rows: Times  # of the table that the events come from
    thread: int = -1  # number of a host thread
    minor: bool = False  # hidden until it is asked for

    @cached_property
    def reach(self) -> Times:
        """Latest end up to each event."""
        return np.maximum.accumulate(self.ends) if len(self.ends) else self.ends


def timeline_data(
    trace: Trace,
    prepared: Sequence[DeviceView] | None = None,
    findings: Iterable[Finding] = (),
    passes: Sequence[Pass] | None = None,
    budget: int = BUDGET,
) -> Timeline:
    """The data of a trace's timeline.

    Args:
        prepared: the views of the trace, where the caller has them.
        findings: their places become flags; a finding without a place has none.
        passes: the repeated part; found from the trace where it is None.
        budget: events that are kept in full; above it the rest becomes busy fractions.
    """
    devices = tuple(views(trace) if prepared is None else prepared)
    start, end = extent(trace)
    flags = flags_of(findings, devices, start, end)
    found = passes_of(trace, devices) if passes is None else tuple(passes)
    lanes, hidden = _lanes(trace, devices, start, end)
    windows, reduced = _windows(lanes, flags, found, start, end, budget, devices)
    kept = _kept(lanes, windows, start, end, devices)
    note = _note(lanes, kept, windows, reduced, hidden, start, end)
    payload = _Encoder(trace, devices, lanes, kept, start, end).payload()
    payload |= {
        "passes": [[p.start_ns - start, p.end_ns - start, p.label] for p in found],
        "flags": [f.encoded(start) for f in flags],
        "detail": None if windows is None else [[a - start, b - start] for a, b in windows],
        "home": _home(found, flags, start, end),
        "note": note,
    }
    typical = max(median_pass(found).start_ns - start, 0) if found else 0
    return Timeline(payload, note, sum(int(k.sum()) for k in kept), flags, typical)


def extent(trace: Trace) -> tuple[int, int]:
    """From the first launch or operation to the last operation's end; of a trace without operations: its calls and ranges."""
    if len(trace.ops):
        first, last = int(trace.ops["start_ns"].min()), int(trace.ops["end_ns"].max())
        joined = trace.ops["call"].to_numpy()
        joined = joined[joined >= 0]
        if len(joined):
            first = min(first, int(trace.calls["start_ns"].to_numpy()[joined].min()))
        return first, max(last, first + 1)
    rows = [t for t in (trace.calls, trace.ranges) if len(t)]
    if not rows:
        return 0, 1
    first = min(int(t["start_ns"].min()) for t in rows)
    return first, max(first + 1, *(int(t["end_ns"].max()) for t in rows))


# What the lanes are


def _lanes(trace: Trace, devices: Sequence[DeviceView], start: int, end: int) -> tuple[list[Lane], int]:
    """The lanes group by group (a device each): ranges and calls of its threads, its work, why it is idle. And how many host
    calls are too short to show."""
    threads = _Threads(trace, devices)
    calls, hidden = _call_lanes(trace, threads, start, end)
    ranges = _range_lanes(trace, threads, start, end)
    lanes: list[Lane] = []
    for group in range(max(len(devices), 1)):
        host = [lane for lane in (*ranges, *calls) if lane.group == group]
        lanes += sorted(host, key=lambda lane: (lane.minor, lane.thread, lane.kind != "ranges"))
        if devices:
            lanes += _work_lanes(devices[group], group)
            lanes.append(_idle_lane(devices[group], group, start, end))
    return lanes, hidden


class _Threads:
    """Host threads: their numbers, and the device that each works for."""

    def __init__(self, trace: Trace, devices: Sequence[DeviceView]) -> None:
        self.of_calls, self.of_ranges = _keys(trace.calls), _keys(trace.ranges)
        self.keys = np.unique(np.concatenate([self.of_calls, self.of_ranges]))
        launches = np.zeros((len(self.keys), max(len(devices), 1)), dtype=np.int64)
        for group, view in enumerate(devices):
            joined = view.call[view.call >= 0]
            if len(joined):
                np.add.at(launches[:, group], np.searchsorted(self.keys, self.of_calls[joined]), 1)
        self.launches = launches.sum(axis=1) > 0
        process = self.keys >> 32
        of_process = np.zeros_like(launches)
        for pid in np.unique(process):
            of_process[process == pid] = launches[process == pid].sum(axis=0)
        for group, view in enumerate(devices):
            of_process[:, group] += np.isin(process, view.ops["pid"].unique()) & (of_process.sum(axis=1) == 0)
        self.group = np.where(self.launches, launches.argmax(axis=1), of_process.argmax(axis=1))
        self.several = len(np.unique(process)) > 1

    def number(self, keys: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.keys, keys)

    def label(self, number: int) -> str:
        pid, tid = int(self.keys[number] >> 32), int(self.keys[number] & 0xFFFFFFFF)
        return f"thread {tid}" if not self.several or pid == tid else f"process {pid}, thread {tid}"

    def minor(self, number: int) -> bool:
        group = self.group[number]
        return not self.launches[number] and bool(self.launches[self.group == group].any())


def _keys(rows: pd.DataFrame) -> np.ndarray:
    pids, tids = (rows[c].to_numpy().astype(np.int64) for c in ("pid", "tid"))
    return np.asarray((pids << 32) | (tids & 0xFFFFFFFF))


def _call_lanes(trace: Trace, threads: _Threads, start: int, end: int) -> tuple[list[Lane], int]:
    calls = trace.calls
    starts, ends = calls["start_ns"].to_numpy(), calls["end_ns"].to_numpy()
    classes = _call_classes(calls)
    inside = (starts < end) & (ends > start)
    joined = np.zeros(len(calls), dtype=bool)
    of_ops = trace.ops["call"].to_numpy()
    joined[of_ops[of_ops >= 0]] = True
    matters = (classes != NUMBER["other-call"]) | (ends - starts >= LEAST_CALL_NS) | joined
    chosen = np.flatnonzero(inside & matters)
    lanes = []
    of_thread = threads.number(threads.of_calls)
    for thread in np.unique(of_thread[chosen]):
        rows = chosen[of_thread[chosen] == thread]
        label = f"CUDA calls · {threads.label(thread)}"
        lanes.append(
            Lane(
                "calls", int(threads.group[thread]), label, starts[rows], ends[rows], classes[rows], rows, int(thread),
                threads.minor(thread),
            )
        )  # fmt: skip
    return lanes, int((inside & ~matters).sum())


def _call_classes(calls: pd.DataFrame) -> np.ndarray:
    kinds = calls["kind"].cat
    numbers = [NUMBER[CALL_CLASSES.get(str(kind), "other-call")] for kind in kinds.categories]
    return np.array([*numbers, NUMBER["other-call"]], dtype=np.int64)[kinds.codes.to_numpy()]


def _range_lanes(trace: Trace, threads: _Threads, start: int, end: int) -> list[Lane]:
    """Push/pop ranges of each thread; start/end ranges, which overlap freely, in a lane beside them."""
    rows = trace.ranges
    starts, ends = rows["start_ns"].to_numpy(), rows["end_ns"].to_numpy()
    chosen = np.flatnonzero((starts < end) & (ends > start))
    chosen = chosen[np.lexsort((-ends[chosen], starts[chosen]))]
    free = (rows["style"] == "startend").to_numpy()
    of_thread = threads.number(threads.of_ranges)
    lanes = []
    for thread in np.unique(of_thread[chosen]):
        for style, name in ((False, "ranges"), (True, "start/end ranges")):
            mine = chosen[(of_thread[chosen] == thread) & (free[chosen] == style)]
            if len(mine):
                number = np.full(len(mine), NUMBER["range"])
                label = f"{name} · {threads.label(thread)}"
                lanes.append(
                    Lane(
                        "ranges", int(threads.group[thread]), label, starts[mine], ends[mine], number, mine, int(thread),
                        threads.minor(thread),
                    )
                )  # fmt: skip
    return lanes


def op_classes(view: DeviceView) -> np.ndarray:
    """The number of each operation's class."""
    kind, names = view.ops["kind"], view.ops["name"].cat
    family = np.array([NUMBER[family_of(str(name))] for name in names.categories] + [NUMBER["compute"]])
    found = family[names.codes.to_numpy()]
    for label, kinds in (("comm", COMM), ("graph", ("graph",)), ("migration", MIGRATION), ("memset", MEMSET)):
        found = np.where(one_of(kind, kinds), NUMBER[label], found)
    ways = view.ops["direction"].cat
    way = np.array([NUMBER[DIRECTIONS.get(str(d), "copy")] for d in ways.categories] + [NUMBER["copy"]])
    return np.where(one_of(kind, COPY), way[ways.codes.to_numpy()], found)


def family_of(name: str) -> str:
    """The class of a compute kernel by its name."""
    plain = name if len(name) < 40 else f"{short_kernel(name, 200)} {name[:400]}"
    return next((family for family, pattern in FAMILIES if pattern.search(plain)), "compute")


def _work_lanes(view: DeviceView, group: int) -> list[Lane]:
    """A lane for each stream, by what it mostly does; the branches of CUDA graphs, whose numbers mean nothing, by class."""
    if not len(view.ops):
        return []
    classes = op_classes(view)
    role = np.array([ROLE_OF[name] for name in WORK])[classes]
    spent = (view.ends - view.starts).astype(float)
    lanes = []
    own = ~view.in_graph
    numbers, queue = np.unique(view.queue, return_inverse=True)
    time = np.zeros((len(numbers), len(ROLES)))
    np.add.at(time, (queue[own], role[own]), spent[own])
    count = np.bincount(queue[own], minlength=len(numbers))
    main = np.where(time.any(axis=1), time.argmax(axis=1), _first_role(role, queue, own, len(numbers)))
    live = np.flatnonzero(count)
    live = live[np.lexsort((live, -time[live].sum(axis=1)))]
    streams = view.ops["stream"].to_numpy()
    first = np.unique(view.queue, return_index=True)[1]
    several = len(np.unique(streams[first[live]])) < len(live)
    for number in sorted(live[:MOST_STREAMS], key=lambda q: (main[q], streams[first[q]], q)):
        row = view.ops.iloc[first[number]]
        label = f"stream {row['stream']}" + (f" of process {row['pid']}" if several else "") + f" · {ROLES[main[number]]}"
        lanes.append(_work_lane(view, group, label, np.flatnonzero(own & (queue == number)), classes))
    rest = live[MOST_STREAMS:]
    for number in np.unique(main[rest]):
        folded = rest[main[rest] == number]
        label = f"{len(folded)} more stream{'s' * (len(folded) > 1)} · {ROLES[number]}"
        lanes.append(_work_lane(view, group, label, np.flatnonzero(own & np.isin(queue, folded)), classes))
    for number in np.unique(role[view.in_graph]):
        rows = np.flatnonzero(view.in_graph & (role == number))
        lanes.append(_work_lane(view, group, f"CUDA graph · {ROLES[number]}", rows, classes))
    return lanes


def _first_role(role: np.ndarray, queue: np.ndarray, own: np.ndarray, count: int) -> np.ndarray:
    found = np.zeros(count, dtype=np.int64)
    rows = np.flatnonzero(own)[::-1]
    found[queue[rows]] = role[rows]
    return found


def _work_lane(view: DeviceView, group: int, label: str, rows: Times, classes: np.ndarray) -> Lane:
    return Lane("work", group, label, view.starts[rows], view.ends[rows], classes[rows], rows)


def _idle_lane(view: DeviceView, group: int, start: int, end: int) -> Lane:
    starts, ends, cause = idle_pieces(view, start, end)
    numbers = np.array([NUMBER[name] for name in IDLE])[cause]
    return Lane("idle", group, "why idle", starts, ends, numbers, np.arange(len(starts)))


def idle_pieces(view: DeviceView, start: int, end: int) -> tuple[Times, Times, np.ndarray]:
    """The idle time of [start, end) in pieces of one cause each (number of a key of IDLE), in order; the sums by cause are
    those of ``ledger.idle``."""
    found = gaps(view, start, end)
    called = found.starts + found.host + found.sync
    returned = called + found.launch
    waits, late = _before_launch(view, found.ender, found.starts, called)
    inside = view.busy.clip(start, end)
    first, last = (inside.starts[:1], inside.ends[-1:]) if len(inside.starts) else (np.array([end]), np.array([end]))
    edges = Union(np.concatenate([[start], last]), np.concatenate([first, [end]]))
    parts = {
        "host": (late.starts, late.ends), "sync": (waits.starts, waits.ends), "launch": (called, returned),
        "dependency": (returned, found.ends), "edge": (edges.starts, edges.ends),
    }  # fmt: skip
    starts, ends = (np.concatenate([parts[name][i] for name in IDLE]).astype(np.int64) for i in (0, 1))
    cause = np.repeat(np.arange(len(IDLE)), [len(parts[name][0]) for name in IDLE])
    keep = np.flatnonzero(ends > starts)
    keep = keep[np.argsort(starts[keep], kind="stable")]
    return starts[keep], ends[keep], cause[keep]


def _before_launch(view: DeviceView, ender: Times, starts: Times, ends: Times) -> tuple[Union, Union]:
    """[start, end) of each gap before its launch call: where the launching thread was blocked, and the rest."""
    whole = union(starts, ends)
    if not len(view.calls) or not len(ender):
        return Union(starts[:0], ends[:0]), whole
    call = view.call[ender]
    thread = np.where(call >= 0, view.host.thread[call], -1)
    blocked = [
        intersection(union(starts[thread == n], ends[thread == n]), view.host.waits[int(n)])
        for n in np.unique(thread)
        if int(n) in view.host.waits
    ]
    if not blocked:
        return Union(starts[:0], ends[:0]), whole
    waits = union(np.concatenate([u.starts for u in blocked]), np.concatenate([u.ends for u in blocked]))
    return waits, minus(whole, waits)


# What is kept


Windows = list[tuple[int, int]]


def _windows(
    lanes: list[Lane],
    flags: Sequence[Flag],
    passes: Sequence[Pass],
    start: int,
    end: int,
    budget: int,
    devices: Sequence[DeviceView],
) -> tuple[Windows | None, list[str]]:
    """The windows to keep in full detail and what each is; None where all fits the budget."""
    if sum(len(lane.starts) for lane in lanes) <= budget:
        return None, []
    candidates: list[tuple[str, int, int]] = []
    if passes:
        median, slowest = median_pass(passes), max(passes, key=lambda p: (p.end_ns - p.start_ns, -p.start_ns))
        candidates.append(("the median pass", median.start_ns, median.end_ns))
        if slowest != median:
            candidates.append(("the slowest pass", slowest.start_ns, slowest.end_ns))
    for flag in flags:
        candidates.append((f"{AROUND} {flag.number}", flag.start_ns - AROUND_NS, flag.start_ns + AROUND_NS))
    if not candidates:
        middle = _busiest(lanes, start, end)
        candidates.append(("20 ms in the middle of the work", middle - AROUND_NS, middle + AROUND_NS))
    windows: Windows = []
    names: list[str] = []
    for name, low, high in candidates:
        for _ in range(SHRINKS):
            widened = _merged([*windows, (max(low, start), min(high, end))])
            if sum(int(k.sum()) for k in _kept(lanes, widened, start, end, devices)) <= budget:
                windows = widened
                names.append(name)
                break
            quarter = (high - low) // 4
            low, high = low + quarter, high - quarter
            name = name if name.startswith("part of ") else f"part of {name}"
    return _grown(lanes, windows, candidates[0], start, end, budget, devices), names


def _grown(
    lanes: list[Lane],
    windows: Windows,
    first: tuple[str, int, int],
    start: int,
    end: int,
    budget: int,
    devices: Sequence[DeviceView],
) -> Windows:
    """The windows, and as much around the first one as the budget allows: twice as far each time."""
    middle, reach = (first[1] + first[2]) // 2, max(first[2] - first[1], 1)
    while windows and reach < end - start:
        wider = _merged([*windows, (max(middle - reach, start), min(middle + reach, end))])
        if sum(int(k.sum()) for k in _kept(lanes, wider, start, end, devices)) > budget:
            break
        windows, reach = wider, 2 * reach
    return windows


def _busiest(lanes: list[Lane], start: int, end: int) -> int:
    """Where half of the operations have begun."""
    starts = np.concatenate([lane.starts for lane in lanes if lane.kind == "work"] or [np.array([(start + end) // 2])])
    return int(np.sort(starts)[len(starts) // 2]) if len(starts) else (start + end) // 2


def _merged(windows: Windows) -> Windows:
    low, high = np.array(windows, dtype=np.int64).reshape(-1, 2).T
    found = union(low, high)
    return [(int(a), int(b)) for a, b in zip(found.starts, found.ends, strict=True)]


def _kept(
    lanes: list[Lane], windows: Windows | None, start: int, end: int, devices: Sequence[DeviceView]
) -> list[np.ndarray]:
    """For each lane a mask of the events that are kept: those that overlap a window, the calls that launched them, and the
    ranges that are longer than a bin."""
    if windows is None:
        return [np.ones(len(lane.starts), dtype=bool) for lane in lanes]
    kept = []
    launchers = np.zeros(len(devices[0].calls) if devices else 0, dtype=bool)
    for lane in lanes:
        mask = np.zeros(len(lane.starts), dtype=bool)
        for low, high in windows:
            a, b = np.searchsorted(lane.reach, low, side="right"), np.searchsorted(lane.starts, high, side="left")
            mask[a:b] |= lane.ends[a:b] > low
        if lane.kind == "ranges":
            mask |= lane.ends - lane.starts >= max((end - start) // MOST_BINS, 1) * 4
        if lane.kind == "work":
            call = devices[lane.group].call[lane.rows[mask]]
            launchers[call[call >= 0]] = True
        kept.append(mask)
    return [
        mask | launchers[lane.rows] if lane.kind == "calls" and devices else mask
        for lane, mask in zip(lanes, kept, strict=True)
    ]


def _note(
    lanes: list[Lane], kept: list[np.ndarray], windows: Windows | None, names: list[str], hidden: int, start: int, end: int
) -> str:
    """What was reduced, in one line."""
    parts = []
    total = sum(len(lane.starts) for lane in lanes)
    if windows is not None:
        unit, scale = ("s", 1e9) if end - start >= LONG_NS else ("ms", 1e6)
        places = ", ".join(f"{(a - start) / scale:.1f} to {(b - start) / scale:.1f} {unit}" for a, b in windows)
        drawn = sum(int(k.sum()) for k in kept)
        what = f"In full detail: {', '.join(_folded(names))} and what lies around ({places})." if names else "No part fits in full detail."
        parts.append(
            f"{total:,} events, {drawn:,} of them drawn one by one. {what} Elsewhere each lane shows the share of busy "
            "time. `moeprof export --format chrome-trace` writes every event."
        )
    if hidden:
        parts.append(f"{hidden:,} short host calls (below {LEAST_CALL_NS // 1000} µs, no launch, copy or wait) are left out.")
    return " ".join(parts)


def _folded(names: list[str]) -> list[str]:
    """The windows around findings as one entry."""
    around = [name.rpartition(" ")[2] for name in names if name.startswith(AROUND)]
    rest = [name for name in names if not name.startswith(AROUND)]
    return rest + ([f"{AROUND}{'s' * (len(around) > 1)} {', '.join(around)}"] if around else [])


def _home(passes: Sequence[Pass], flags: Sequence[Flag], start: int, end: int) -> list[int]:
    """What is shown first: two typical passes; else the first finding; else all."""
    span = end - start
    if len(passes) > 2:
        median = min(list(passes).index(median_pass(passes)), len(passes) - 2)
        low, high = passes[median].start_ns - start, passes[median + 1].end_ns - start
        pad = (high - low) // 50
        return [max(low - pad, 0), min(high + pad, span)]
    if flags and span > 4 * AROUND_NS:
        middle = flags[0].start_ns - start
        return [max(middle - AROUND_NS, 0), min(middle + AROUND_NS, span)]
    return [0, span]


# How it is written


def varints(values: np.ndarray) -> bytes:
    """Whole numbers from 0 up as LEB128."""
    numbers = np.asarray(values).astype(np.uint64, copy=False)
    if not len(numbers):
        return b""
    size = np.ones(len(numbers), dtype=np.int64)
    for bits in range(7, 64, 7):
        more = numbers >= np.uint64(1 << bits)
        if not more.any():
            break
        size += more
    at = np.cumsum(size) - size
    out = np.empty(int(size.sum()), dtype=np.uint8)
    for place in range(int(size.max())):
        wide = size > place
        low = (numbers[wide] >> np.uint64(7 * place)) & np.uint64(127)
        out[at[wide] + place] = low | np.where(size[wide] > place + 1, 128, 0).astype(np.uint64)
    return out.tobytes()


def zigzag(values: np.ndarray) -> np.ndarray:
    """0, -1, 1, -2 ... as 0, 1, 2, 3 ..."""
    numbers = np.asarray(values, dtype=np.int64)
    return np.asarray((numbers << 1) ^ (numbers >> 63)).astype(np.uint64)


def sparse(values: np.ndarray) -> bytes:
    """Whole numbers as varints where a run of zeros is a 0 and its length."""
    numbers = np.asarray(values, dtype=np.int64)
    zero = numbers == 0
    starts = np.flatnonzero(zero & ~np.concatenate([[False], zero[:-1]]))
    ends = np.flatnonzero(zero & ~np.concatenate([zero[1:], [False]])) + 1
    keep = ~zero
    keep[starts] = True
    place = np.cumsum(keep)[starts]
    return varints(np.insert(numbers[keep], place, ends - starts))


def text(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode("ascii")


def bin_edges(span: int, count: int) -> Times:
    """The edges of ``count`` bins of [0, span): floor(span * i / count)."""
    return np.array([span * i // count for i in range(count + 1)], dtype=np.int64)


@dataclass
class _Names:
    """Texts in order of their first use; a number in a range's name is taken out of it."""

    texts: list[str] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)

    def __call__(self, name: str) -> int:
        if name not in self.places:
            self.places[name] = len(self.texts)
            self.texts.append(name)
        return self.places[name]


class _Encoder:
    """Writes lanes into the payload."""

    def __init__(
        self, trace: Trace, devices: Sequence[DeviceView], lanes: list[Lane], kept: list[np.ndarray], start: int, end: int
    ) -> None:
        self.trace, self.devices, self.lanes, self.kept = trace, devices, lanes, kept
        self.start, self.end, self.span = start, end, end - start
        self.names = _Names()
        self.full: dict[str, str] = {}
        self.reduced = any(not mask.all() for mask in kept)

    def payload(self) -> dict[str, Any]:
        self._number_calls()
        shapes, of_lane = self._shapes()
        lanes = [self._lane(i, lane, of_lane.get(i)) for i, lane in enumerate(self.lanes)]
        bins = max(min(MOST_BINS // max(len(self.devices), 1), MOST_BINS // 2, self.span), 1)
        return {
            "version": VERSION,
            "zero_ns": str(self.start),
            "span_ns": self.span,
            "classes": [[name, label] for name, label in CLASSES.items()],
            "names": self.names.texts,
            "full": self.full,
            "shapes": shapes,
            "groups": [self._group(view) for view in self.devices] or [{"device": -1, "label": "host"}],
            "lanes": lanes,
            "overview": {"bins": bins, "devices": [self._overview(view, bins) for view in self.devices]},
        }

    def _group(self, view: DeviceView) -> dict[str, Any]:
        name = next((d.name for d in self.trace.devices if d.index == view.index and d.name), None)
        label = "CPU" if view.index < 0 else f"GPU {view.index}"
        found = {"device": view.index, "label": label, "name": name or ""}
        if self.reduced:
            found["queue"] = text(sparse(self._queue(view)))
        return found

    def _queue(self, view: DeviceView) -> np.ndarray:
        """Launches that wait, on average over each bin, in tenths."""
        edges = bin_edges(self.span, _lane_bins(len(self.lanes), self.span)) + self.start
        called, begun = waiting(view)
        total = np.zeros(len(edges) - 1)
        for times, sign in ((called, 1.0), (begun, -1.0)):
            ordered = np.sort(times)
            index = np.searchsorted(ordered, edges)
            before = np.concatenate([[0], np.cumsum(ordered - self.start)])[index]
            total += sign * np.diff(index * (edges - self.start) - before)
        return np.round(10 * total / np.maximum(np.diff(edges), 1)).astype(np.int64)

    def _number_calls(self) -> None:
        """Kept calls get numbers in the order of their lanes."""
        self.call_number = np.full(len(self.trace.calls), -1, dtype=np.int64)
        count = 0
        for lane, mask in zip(self.lanes, self.kept, strict=True):
            if lane.kind == "calls":
                rows = lane.rows[mask]
                self.call_number[rows] = np.arange(count, count + len(rows))
                count += len(rows)

    def _shapes(self) -> tuple[dict[str, Any], dict[int, np.ndarray]]:
        """Different operations (name, class, launch shape, bytes, memories), the most frequent first; and each kept event's."""
        parts = [
            (i, lane, lane.rows[mask])
            for i, (lane, mask) in enumerate(zip(self.lanes, self.kept, strict=True))
            if lane.kind == "work"
        ]
        frames = []
        for i, lane, rows in parts:
            ops = self.devices[lane.group].ops.iloc[rows]
            frame = ops[["name", *SHAPE, "src_memory", "dst_memory"]].astype({"name": object, "src_memory": object, "dst_memory": object})
            frames.append(frame.assign(cls=lane.classes[self.kept[i]]))
        table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
        if not len(table):
            return {"n": 0, "data": "", "memories": []}, {i: np.empty(0, np.int64) for i, _, _ in parts}
        code = _tuples(table)
        order = np.argsort(-np.bincount(code), kind="stable")
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        first = np.unique(code, return_index=True)[1][order]
        unique = table.iloc[first]
        memories = _Names()
        names = [self._operation_name(str(name)) for name in unique["name"]]
        both = [memories(f"{a} to {b}" if a and b else a or b) for a, b in zip(unique["src_memory"], unique["dst_memory"], strict=True)]
        columns = [names, unique["cls"], *(unique[c] + 1 for c in SHAPE), both]
        data = b"".join(varints(np.maximum(np.asarray(c, dtype=np.int64), 0)) for c in columns)
        code = rank[code]
        ends = np.cumsum([len(rows) for _, _, rows in parts])
        of_lane = {i: code[end - len(rows) : end] for (i, _, rows), end in zip(parts, ends, strict=True)}
        return {"n": len(unique), "data": text(data), "memories": memories.texts}, of_lane

    def _operation_name(self, name: str) -> int:
        short = short_kernel(name, 80) or name
        number = self.names(short)
        if short != name:
            self.full.setdefault(str(number), name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…")
        return number

    def _lane(self, number: int, lane: Lane, shapes: np.ndarray | None) -> dict[str, Any]:
        mask = self.kept[number]
        starts, ends, rows = lane.starts[mask] - self.start, lane.ends[mask] - self.start, lane.rows[mask]
        reach = np.concatenate([[0], np.maximum.accumulate(ends)[:-1]]) if len(ends) else ends
        columns = [varints(zigzag(starts - reach)), varints(np.maximum(ends - starts, 0))]
        if lane.kind == "work":
            columns += [varints(shapes), self._links(self.devices[lane.group].call[rows])]
        elif lane.kind == "calls":
            columns += self._calls(rows)
        elif lane.kind == "ranges":
            columns += self._ranges(rows)
        else:
            columns.append(varints(lane.classes[mask]))
        found: dict[str, Any] = {
            "kind": lane.kind, "group": lane.group, "label": lane.label, "n": int(mask.sum()), "data": text(b"".join(columns)),
        }  # fmt: skip
        if lane.thread >= 0:
            found["thread"] = lane.thread
        if lane.minor:
            found["minor"] = 1
        if self.reduced and lane.kind != "ranges":
            found["bins"] = self._bins(lane)
        return found

    def _links(self, calls: Times) -> bytes:
        number = np.where(calls >= 0, self.call_number[calls], -1) if len(self.call_number) else np.full(len(calls), -1)
        known = number >= 0
        before = np.concatenate([[0], number[known][:-1]])
        link = np.zeros(len(number), dtype=np.uint64)
        link[known] = zigzag(number[known] - before)[: known.sum()] + np.uint64(1)
        return varints(link)

    def _calls(self, rows: Times) -> list[bytes]:
        names = self.trace.calls["name"].cat
        places = np.array([-1] * (len(names.categories) + 1))
        codes = names.codes.to_numpy()[rows]
        for code in pd.unique(codes):
            places[code] = self.names(str(names.categories[code]) if code >= 0 else "")
        correlation = self.trace.calls["correlation"].to_numpy()[rows]
        known = correlation >= 0
        link = np.zeros(len(rows), dtype=np.uint64)
        step = np.diff(correlation[known], prepend=0)
        link[known] = zigzag(step) + np.uint64(1)
        classes = _call_classes(self.trace.calls)[rows]
        return [varints(places[codes]), varints(link), varints(classes)]

    def _ranges(self, rows: Times) -> list[bytes]:
        """The template of each name, then slot by slot the numbers in it."""
        column = self.trace.ranges["name"].cat
        codes, distinct = pd.factorize(column.codes.to_numpy()[rows])
        templates, counts, numbers = [], [], []
        for code in distinct:
            name = str(column.categories[code]) if code >= 0 else ""
            found = [] if SLOT in name else [int(m) for m in DIGITS.findall(name)]
            templates.append(self.names(DIGITS.sub(SLOT, name) if found else name))
            counts.append(len(found))
            numbers.append(found)
        columns = [varints(np.array(templates, dtype=np.int64)[codes])]
        count = np.array(counts, dtype=np.int64)[codes] if len(codes) else codes
        for slot in range(int(count.max()) if len(count) else 0):
            values = np.array([found[slot] if len(found) > slot else 0 for found in numbers], dtype=np.int64)
            columns.append(varints(zigzag(np.diff(values[codes[count > slot]], prepend=0))))
        return columns

    def _bins(self, lane: Lane) -> dict[str, Any]:
        """The busy time of each class in each bin of the whole recording."""
        count = _lane_bins(len(self.lanes), self.span)
        edges = bin_edges(self.span, count) + self.start
        found = {}
        for number in np.unique(lane.classes):
            mask = lane.classes == number
            covered = np.diff(union(lane.starts[mask], lane.ends[mask]).covered_before(edges))
            found[str(int(number))] = text(sparse(covered))
        return {"count": count, "classes": found}

    def _overview(self, view: DeviceView, bins: int) -> dict[str, Any]:
        edges = bin_edges(self.span, bins) + self.start
        found = []
        for name, owned in owners(view, self.start, self.end).items():
            total = owned.clip(self.start, self.end).total_ns
            if total:
                found.append([NUMBER[name], total, text(sparse(np.diff(owned.covered_before(edges))))])
        return {"device": view.index, "classes": found}


def waiting(view: DeviceView) -> tuple[Times, Times]:
    """(returned, begun) of each launch call whose first operation began after it had returned: it waited in between."""
    known = np.flatnonzero(view.call >= 0)
    call, first = np.unique(view.call[known], return_index=True)  # operations are sorted by start
    if not len(call):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    returned, begun = view.host.ends[call], view.starts[known[first]]
    waits = begun > returned
    return returned[waits], begun[waits]


def owners(view: DeviceView, start: int, end: int) -> dict[str, Union]:
    """Every nanosecond of [start, end) under exactly one class: work by the ledger's precedence, idle time by its cause."""
    classes = op_classes(view)
    found: dict[str, Union] = {}
    names = list(CLASSES)
    for number, kinds in enumerate(PRECEDENCE):
        rows = np.flatnonzero(one_of(view.ops["kind"], kinds))
        left, right = newly_covered(view.starts[rows], view.ends[rows])
        for code in np.unique(classes[rows]):
            part = classes[rows] == code
            pieces = union(left[part], right[part])
            found[names[code]] = minus(pieces, view.reaches[number - 1]) if number else pieces
    starts, ends, cause = idle_pieces(view, start, end)
    for number, name in enumerate(IDLE):
        found[name] = union(starts[cause == number], ends[cause == number])
    return found


def _lane_bins(lanes: int, span: int) -> int:
    return int(max(min(MOST_BINS, 24_000 // max(lanes, 1), span), 1))


def _tuples(table: pd.DataFrame) -> np.ndarray:
    """One small number for each different row, in order of first appearance."""
    code = np.zeros(len(table), dtype=np.int64)
    for column in table:
        values, distinct = pd.factorize(table[column])
        code = pd.factorize(code * (len(distinct) + 1) + values)[0].astype(np.int64)
    return code
