"""The lanes of a timeline: ranges and calls of host threads, work of devices by stream, why a device is idle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import pandas as pd

from moeprof.analysis.device import DeviceView
from moeprof.analysis.intervals import Times
from moeprof.report.figures.timeline_classes import IDLE, NUMBER, ROLE_OF, ROLES, WORK, call_classes, op_classes
from moeprof.report.figures.timeline_owners import idle_pieces
from moeprof.trace import Trace

LEAST_CALL_NS = 10_000  # a shorter call of the kinds "event" and "other" is left out: queries that no one looks for
MOST_STREAMS = 8  # lanes of streams on one device; the rest are folded by class


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


@dataclass(frozen=True)
class Part:
    """The part [start_ns, end_ns) of a recording that is shown.

    Args:
        cuts: times inside, in order, at which the causes of idle time begin anew: those between two cuts are the causes of the
            window between them, as the ledger of that window has them.
    """

    start_ns: int
    end_ns: int
    cuts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Recording:
    """A trace, its devices, and the part of time that the timeline shows: [start, end) in ns; ``cuts`` as of ``Part``."""

    trace: Trace
    devices: tuple[DeviceView, ...]
    start: int
    end: int
    cuts: tuple[int, ...] = ()

    @property
    def span(self) -> int:
        """Its length in ns."""
        return self.end - self.start


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


def lanes_of(recording: Recording) -> tuple[list[Lane], int]:
    """The lanes group by group (a device each): ranges and calls of its threads, its work, why it is idle. And how many host
    calls are too short to show."""
    trace, devices, start, end = recording.trace, recording.devices, recording.start, recording.end
    threads = _Threads(trace, devices)
    calls, hidden = _call_lanes(trace, threads, start, end)
    ranges = _range_lanes(trace, threads, start, end)
    lanes: list[Lane] = []
    for group in range(max(len(devices), 1)):
        host = [lane for lane in (*ranges, *calls) if lane.group == group]
        lanes += sorted(host, key=lambda lane: (lane.minor, lane.thread, lane.kind != "ranges"))
        if devices:
            lanes += _work_lanes(devices[group], group)
            lanes.append(_idle_lane(devices[group], group, (start, *recording.cuts, end)))
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
    classes = call_classes(calls)
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
            lane_rows = chosen[(of_thread[chosen] == thread) & (free[chosen] == style)]
            if len(lane_rows):
                number = np.full(len(lane_rows), NUMBER["range"])
                label = f"{name} · {threads.label(thread)}"
                lanes.append(
                    Lane(
                        "ranges", int(threads.group[thread]), label, starts[lane_rows], ends[lane_rows], number, lane_rows, int(thread),
                        threads.minor(thread),
                    )
                )  # fmt: skip
    return lanes


def _work_lanes(view: DeviceView, group: int) -> list[Lane]:
    """A lane for each stream, by what it mostly does; the branches of CUDA graphs, whose numbers mean nothing, by class."""
    if not len(view.ops):
        return []
    classes = op_classes(view)
    role = np.array([ROLE_OF[name] for name in WORK])[classes]
    spent = (view.ends - view.starts).astype(float)
    lanes = []
    outside_graphs = ~view.in_graph
    key = _streams(view)
    numbers, queue = np.unique(key, return_inverse=True)
    time = np.zeros((len(numbers), len(ROLES)))
    np.add.at(time, (queue[outside_graphs], role[outside_graphs]), spent[outside_graphs])
    count = np.bincount(queue[outside_graphs], minlength=len(numbers))
    main = np.where(time.any(axis=1), time.argmax(axis=1), _first_role(role, queue, outside_graphs, len(numbers)))
    live = np.flatnonzero(count)
    live = live[np.lexsort((live, -time[live].sum(axis=1)))]
    streams = view.ops["stream"].to_numpy()
    first = np.unique(key, return_index=True)[1]
    several = len(np.unique(streams[first[live]])) < len(live)
    for number in sorted(live[:MOST_STREAMS], key=lambda q: (main[q], streams[first[q]], q)):
        row = view.ops.iloc[first[number]]
        label = (
            f"stream {row['stream']}" + (f" of process {row['pid']}" if several else "") + f" · {ROLES[main[number]]}"
        )
        lanes.append(_work_lane(view, group, label, np.flatnonzero(outside_graphs & (queue == number)), classes))
    rest = live[MOST_STREAMS:]
    for number in np.unique(main[rest]):
        folded = rest[main[rest] == number]
        label = f"{len(folded)} more stream{'s' * (len(folded) > 1)} · {ROLES[number]}"
        lanes.append(_work_lane(view, group, label, np.flatnonzero(outside_graphs & np.isin(queue, folded)), classes))
    for number in np.unique(role[view.in_graph]):
        rows = np.flatnonzero(view.in_graph & (role == number))
        lanes.append(_work_lane(view, group, f"CUDA graph · {ROLES[number]}", rows, classes))
    return lanes


def _streams(view: DeviceView) -> np.ndarray:
    """A number for each operation's stream; one whose process is not known belongs to the only process there is."""
    owners = view.ops[["pid", "context"]].drop_duplicates()
    known = owners[owners["pid"] >= 0]
    return view.ops["stream"].to_numpy() if len(known) <= 1 < len(owners) else view.queue


def _first_role(role: np.ndarray, queue: np.ndarray, outside_graphs: np.ndarray, count: int) -> np.ndarray:
    roles = np.zeros(count, dtype=np.int64)
    rows = np.flatnonzero(outside_graphs)[::-1]
    roles[queue[rows]] = role[rows]
    return roles


def _work_lane(view: DeviceView, group: int, label: str, rows: Times, classes: np.ndarray) -> Lane:
    return Lane("work", group, label, view.starts[rows], view.ends[rows], classes[rows], rows)


def _idle_lane(view: DeviceView, group: int, edges: tuple[int, ...]) -> Lane:
    pieces = [idle_pieces(view, start, end) for start, end in pairwise(edges)]
    starts, ends, cause = (np.concatenate(column) for column in zip(*pieces, strict=True))
    numbers = np.array([NUMBER[name] for name in IDLE])[cause]
    return Lane("idle", group, "why idle", starts, ends, numbers, np.arange(len(starts)))
