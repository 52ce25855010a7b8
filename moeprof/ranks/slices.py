"""One window of each drawn rank as one trace on the joint clock: the device's number is the rank's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from moeprof.ranks.lanes import DrawnWindow, RankLane
from moeprof.trace import Trace
from moeprof.trace.tables import CALLS, OPS, RANGES, Device

BEFORE = 1.0  # windows before the drawn one in which launches for it are shown

Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]  # operations, calls, ranges


@dataclass(frozen=True)
class RankTrace:
    """The trace of one rank, in its own clock."""

    rank: int
    device: int | None
    trace: Trace


@dataclass(frozen=True)
class JointWindow:
    """What the drawn ranks did in one window.

    Args:
        trace: devices and processes are numbered by rank; times are ns from the first start of the window on any rank.
        start_ns: of the first launch call that is shown.
        end_ns: when the last rank's window ends.
        lanes: what each rank's collectives do: wait, move.
    """

    trace: Trace
    start_ns: int
    end_ns: int
    lanes: tuple[RankLane, ...]


def joint(
    traces: Iterable[RankTrace], windows: Mapping[int, DrawnWindow], lanes: Sequence[RankLane]
) -> JointWindow | None:
    """The window of every rank of ``traces`` that has one; None where there is none."""
    parts: list[Tables] = []
    devices: list[Device] = []
    first: Trace | None = None
    calls_before = 0
    for part in sorted(traces, key=lambda t: t.rank):
        if part.rank not in windows or any(d.index == part.rank for d in devices):
            continue
        first = first or part.trace
        cut = _cut(part, windows[part.rank], calls_before)
        calls_before += len(cut[1])
        parts.append(cut)
        name = next((d.name for d in part.trace.devices if d.index == part.device), None)
        devices.append(Device(part.rank, name))
    if first is None:
        return None
    ops, calls, ranges = (
        _joined([part[i] for part in parts], columns) for i, columns in enumerate((OPS, CALLS, RANGES))
    )
    order = np.lexsort((calls["end_ns"], calls["start_ns"]))
    place = np.empty(len(order) + 1, dtype=np.int64)
    place[order], place[-1] = np.arange(len(order)), -1
    calls = calls.iloc[order].reset_index(drop=True)
    ops = _sorted(ops.assign(call=place[ops["call"].to_numpy()]))
    trace = replace(first, ops=ops, calls=calls, ranges=_sorted(ranges), devices=tuple(devices), streams={}, notes=())
    shown = {d.index for d in devices}
    starts = [0, *(int(t["start_ns"].min()) for t in (ops, calls) if len(t))]
    end = max(w.end_ns + w.shift_ns for rank, w in windows.items() if rank in shown)
    return JointWindow(trace, min(starts), end, tuple(lane for lane in lanes if lane.rank in shown))


def _cut(part: RankTrace, window: DrawnWindow, calls_before: int) -> Tables:
    """Operations, calls and ranges of one rank; its calls get the numbers from ``calls_before`` on."""
    trace, ops = part.trace, part.trace.ops
    inside = (ops["start_ns"] < window.end_ns) & (ops["end_ns"] > window.start_ns)
    call_starts, call_ends = (trace.calls[c].to_numpy() for c in ("start_ns", "end_ns"))
    launchers = np.unique(ops.loc[inside, "call"].to_numpy())
    launchers = launchers[launchers >= 0]
    least = window.start_ns - int(BEFORE * (window.end_ns - window.start_ns))
    early = call_starts[launchers][call_starts[launchers] >= least]
    begin = min(int(early.min()), window.start_ns) if len(early) else window.start_ns
    chosen = (ops["start_ns"] < window.end_ns) & (ops["end_ns"] > begin)
    chosen_calls = np.zeros(len(trace.calls), dtype=bool)
    if len(launchers):
        keys = _threads(trace.calls)
        chosen_calls = np.isin(keys, np.unique(keys[launchers])) & (call_starts < window.end_ns) & (call_ends > begin)
    number = np.full(len(trace.calls) + 1, -1, dtype=np.int64)
    number[np.flatnonzero(chosen_calls)] = np.arange(int(chosen_calls.sum())) + calls_before
    ranges = trace.ranges
    open_then = (ranges["start_ns"] < window.end_ns) & (ranges["end_ns"] > begin)
    if len(launchers):
        open_then &= np.isin(_threads(ranges), np.unique(_threads(trace.calls)[launchers]))
    owner = {"pid": part.rank}
    within = ops[chosen]
    return (
        _shifted(within, window.shift_ns, owner | {"device": part.rank, "call": number[within["call"].to_numpy()]}),
        _shifted(trace.calls[chosen_calls], window.shift_ns, owner),
        _shifted(ranges[open_then], window.shift_ns, owner),
    )


def _threads(rows: pd.DataFrame) -> np.ndarray:
    pids, tids = (rows[c].to_numpy().astype(np.int64) for c in ("pid", "tid"))
    return np.asarray((pids << 32) | (tids & 0xFFFFFFFF))


def _shifted(rows: pd.DataFrame, shift_ns: int, changed: Mapping[str, object]) -> pd.DataFrame:
    return rows.assign(start_ns=rows["start_ns"] + shift_ns, end_ns=rows["end_ns"] + shift_ns, **changed)


def _joined(parts: Sequence[pd.DataFrame], columns: dict[str, str]) -> pd.DataFrame:
    """The rows of all parts; texts share their categories."""
    texts = [name for name, kind in columns.items() if kind == "category"]
    rows = pd.concat([part.astype(dict.fromkeys(texts, object)) for part in parts], ignore_index=True)
    return rows.astype(columns)


def _sorted(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.iloc[np.lexsort((rows["end_ns"], rows["start_ns"]))].reset_index(drop=True)
