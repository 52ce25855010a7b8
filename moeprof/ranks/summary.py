"""One rank's trace -> what the comparison of ranks needs: its windows, and its collectives with what the rank did before each.

After this the trace can be dropped: a few numbers a window and a few a collective remain.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from moeprof.analysis.communication import communication
from moeprof.analysis.device import DeviceView, views
from moeprof.analysis.intervals import EMPTY, Times, Union, intersection
from moeprof.analysis.ledger import gaps, idle, ledger
from moeprof.analysis.projection import numbers, projected, tiled
from moeprof.errors import UsageError
from moeprof.ranks.collective import kind_of_kernel, kind_of_message
from moeprof.ranks.model import Place, RankWindow
from moeprof.trace import Trace
from moeprof.worker.nvtx import DOMAIN, ITERATION

SLICES = 60  # equal parts of a trace that has no iterations
NUMBERS = ("bytes", "per_rank", "peers", "group_size", "sequence")  # columns of MESSAGES
STEP = re.compile(r"^ProfilerStep#(\d+)$")  # what torch.profiler calls its steps


@dataclass(frozen=True)
class Key:
    """Collectives are matched within a key: kind, process group, and the ordinal of the stream where the group is not known."""

    kind: str
    group: str
    lane: int


@dataclass(frozen=True)
class Collectives:
    """A rank's communication kernels, by start, in its own clock. ``key`` indexes ``keys``; what is not known is -1.

    ``before`` [6, n] is what the rank did between ``left``, the end of everything that communicated before, and the start,
    by model.CAUSES: each column sums to start - left. ``blocks`` are the thread blocks of the compute kernels that it
    started there. ``instance`` numbers the window in which it starts; ``bytes``, ``per_rank`` and ``peers`` as MESSAGES.
    """

    keys: tuple[Key, ...]
    key: Times
    starts: Times
    ends: Times
    left: Times
    before: Times
    blocks: Times
    instance: Times
    bytes: Times
    per_rank: Times
    peers: Times
    group_size: Times
    sequence: Times


@dataclass(frozen=True)
class RankFacts:
    """One rank. ``hidden`` is the part of its communication under which compute runs; ``reached`` [5, SLICES + 1] the time
    covered by K, K u N, ... before each of ``edges``; ``owners`` K, N, C u M u S where they are to be drawn."""

    place: Place
    windows: tuple[RankWindow, ...]
    collectives: Collectives
    hidden: Union
    edges: Times
    reached: Times
    kernels: int
    owners: tuple[Union, ...] = ()


def facts(place: Place, trace: Trace, range_name: str | None = None, drawn: bool = False) -> RankFacts | None:
    """The facts of a trace of one rank on one device (``split``); None where it has no GPU work.

    Raises:
        UsageError: there is no range of that name.
    """
    if not len(trace.ops):
        return None
    view = views(trace)[0]
    first, last = int(view.starts[0]), int(view.ends.max())
    edges = np.linspace(first, last, SLICES + 1).astype(np.int64)
    compute, comm = view.owners[:2]
    windows = tuple(_window(view, *cut) for cut in _cuts(trace, view, range_name))
    return RankFacts(
        place,
        windows,
        _collectives(trace, view, windows),
        intersection(compute, comm) if len(comm.starts) and len(compute.starts) else EMPTY,
        edges,
        np.stack([reach.covered_before(edges) for reach in view.reaches]),
        int(view.is_kernel.sum()),
        (compute, comm, view.busy) if drawn else (),
    )


Span = tuple[int, int, str | None, int | None]  # start, end, range, instance


def _cuts(trace: Trace, view: DeviceView, range_name: str | None) -> list[Span]:
    """The instances of the range; without one the measured iterations, else torch.profiler's steps, else the whole trace."""
    names = trace.ranges["name"]
    steps = {str(n): int(m[1]) for n in names.cat.categories if (m := STEP.match(str(n)))}
    if range_name is not None:
        instances = _instances(trace, view, (names == range_name).to_numpy())
        if not instances:
            raise UsageError(
                f"{trace.path} has no range {range_name!r} with work on GPU {view.index}",
                "see the ranges of: moeprof analyze on that file",
            )
        return [(a, b, range_name, n) for a, b, _, n in instances]
    ours = ((trace.ranges["domain"] == DOMAIN) & (names == ITERATION)).to_numpy()
    if ours.any():
        return _tiled([(a, b, ITERATION, n) for a, b, _, n in _instances(trace, view, ours)], view)
    if steps:
        instances = _instances(trace, view, names.isin(list(steps)).to_numpy())
        return _tiled([(a, b, "ProfilerStep", steps[str(name)]) for a, b, name, _ in instances], view)
    return [_whole(view)]


def _whole(view: DeviceView) -> Span:
    return int(view.starts[0]), int(view.ends.max()), None, None


def _tiled(spans: list[Span], view: DeviceView) -> list[Span]:
    """Tiled; the whole trace where there is none."""
    ends = tiled([(start, end) for start, end, _, _ in spans])
    return [(start, end, name, n) for (start, _, name, n), end in zip(spans, ends, strict=True)] or [_whole(view)]


def _instances(trace: Trace, view: DeviceView, wanted: np.ndarray) -> list[tuple[int, int, str, int]]:
    """Start and end on the device, name and number of the wanted ranges that have work, by start."""
    table = projected(replace(trace, ranges=trace.ranges[wanted]), view.index)
    table = table[table["gpu_ops"] > 0].sort_values("first_ns", kind="stable")
    rows = zip(table["first_ns"], table["last_ns"], table["name"], numbers(table), strict=True)
    return [(int(a), int(b), str(name), n) for a, b, name, n in rows]


def _window(view: DeviceView, start: int, end: int, name: str | None, instance: int | None) -> RankWindow:
    return RankWindow(
        name, instance, start, end, end - start, ledger(view, start, end), idle(view, start, end),
        communication(view, start, end) if view.communicates else (),
    )  # fmt: skip


def _collectives(trace: Trace, view: DeviceView, windows: Sequence[RankWindow]) -> Collectives:
    first, last = int(view.starts[0]), int(view.ends.max())
    rows = np.flatnonzero((view.ops["kind"] == "comm").to_numpy() & (view.ends > view.starts))
    starts, ends = view.starts[rows], view.ends[rows]
    left = np.minimum(np.concatenate([[first], np.maximum.accumulate(ends)[:-1]])[: len(rows)], starts).astype(np.int64)
    messages = _messages(trace, view, rows)
    kinds = _kinds(view, rows, messages)
    known = (messages["group"] != "").to_numpy()
    streams = np.unique(view.queue[rows], return_inverse=True)[1] if len(rows) else rows
    lanes = np.where(known, 0, streams)
    codes, unique = pd.factorize(
        pd.Series(list(zip(kinds, messages["group"], lanes.tolist(), strict=True)), dtype=object)
    )
    return Collectives(
        tuple(Key(*key) for key in unique), codes.astype(np.int64), starts, ends, left,
        _before(view, left, starts, first, last), _blocks(view, left, starts), _instance(windows, starts),
        *(messages[name].to_numpy(dtype=np.int64) for name in NUMBERS),
    )  # fmt: skip


def _blocks(view: DeviceView, left: Times, starts: Times) -> Times:
    """Thread blocks of the compute kernels that start in each [left, start); -1 where a launch shape is not known."""
    rows = np.flatnonzero((view.ops["kind"] == "kernel").to_numpy())
    blocks = np.prod([view.ops[f"grid_{axis}"].to_numpy()[rows].astype(np.int64) for axis in "xyz"], axis=0)
    unknown = np.concatenate([[0], np.cumsum(blocks <= 0)])
    summed = np.concatenate([[0], np.cumsum(np.maximum(blocks, 0))])
    low, high = (np.searchsorted(view.starts[rows], edge, side="left") for edge in (left, starts))
    return np.where(unknown[high] > unknown[low], -1, summed[high] - summed[low]).astype(np.int64)


def _instance(windows: Sequence[RankWindow], starts: Times) -> Times:
    """The number of the window in which each starts; -1 where in none, or where windows have no numbers."""
    instance = np.full(len(starts), -1, dtype=np.int64)
    for window in windows:
        if window.instance is not None:
            instance[(starts >= window.start_ns) & (starts < window.end_ns)] = window.instance
    return instance


def _messages(trace: Trace, view: DeviceView, rows: Times) -> pd.DataFrame:
    """The message of each collective: collective and group ("" where not known), NUMBERS (-1)."""
    messages = trace.messages[trace.messages["device"] == view.index]
    if not len(messages) or not len(rows):
        return pd.DataFrame(
            dict.fromkeys(("collective", "group"), np.full(len(rows), "", dtype=object))
            | dict.fromkeys(NUMBERS, np.full(len(rows), -1, dtype=np.int64))
        )
    texts = {name: messages[name].astype(str) for name in ("collective", "group")}
    known = messages.assign(**texts).drop(columns=["end_ns", "device"]).drop_duplicates(["stream", "start_ns"])
    joined = view.ops.iloc[rows][["stream", "start_ns"]].merge(known, on=["stream", "start_ns"], how="left")
    return joined.fillna(dict.fromkeys(texts, "") | dict.fromkeys(NUMBERS, -1))


def _kinds(view: DeviceView, rows: Times, messages: pd.DataFrame) -> list[str]:
    """The kinds by the framework's name where it is known, else by the kernel's name."""
    names = view.ops["name"].cat
    of_kernel = {
        code: kind_of_kernel(str(names.categories[code]), view.classes)
        for code in np.unique(names.codes.to_numpy()[rows])
    }
    of_message = {name: kind_of_message(name) for name in set(messages["collective"]) if name}
    codes = names.codes.to_numpy()[rows]
    return [of_message.get(name) or of_kernel[code] for name, code in zip(messages["collective"], codes, strict=True)]


def _before(view: DeviceView, left: Times, starts: Times, first: int, last: int) -> Times:
    """What ran in each [left, start), by model.CAUSES. No communication does, and no gap reaches across either end.

    Idle time beside operations of no length, which end no gap, is dependency too.
    """
    covered = [reach.covered(left, starts) for reach in view.reaches]
    idle_gaps = gaps(view, first, last)
    low, high = (np.searchsorted(idle_gaps.starts, edge, side="left") for edge in (left, starts))
    waits = []
    for part in (idle_gaps.launch, idle_gaps.sync, idle_gaps.host):
        summed = np.concatenate([[0], np.cumsum(part)])
        waits.append(summed[high] - summed[low])
    idle = starts - left - covered[-1]
    return np.stack([covered[0], covered[-1] - covered[1], *waits, idle - sum(waits)]).astype(np.int64)
