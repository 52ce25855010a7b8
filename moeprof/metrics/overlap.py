"""How much of the copies runs under compute or communication, by direction and memory kind, and why the rest does not."""

from __future__ import annotations

import numpy as np
import pandas as pd

from moeprof.metrics.analysis import Copies
from moeprof.metrics.device import DeviceView
from moeprof.metrics.intervals import EARLY, intersection_ns, newly_covered, union

ENGINE_TURNAROUND_NS = 5_000  # a copy that starts this soon after one of its direction was waiting for the engine;
# back-to-back copies on an H200 are 1.3 us apart


def copies(view: DeviceView, start: int, end: int) -> tuple[Copies, ...]:
    """The window's copies, clipped to it, grouped by direction and the host side's memory kind."""
    inside = view.overlapping(start, end) & (view.ops["kind"] == "copy").to_numpy()
    rows = view.ops[inside]
    memory = _host_memory(rows)
    groups = rows.groupby([rows["direction"].astype(str), memory.astype(str)], sort=True)
    return tuple(_group(view, start, end, str(d), str(m), group) for (d, m), group in groups)


def _host_memory(rows: pd.DataFrame) -> pd.Series:
    """The memory kind on the host's side; the destination's where both sides are alike."""
    source, target = rows["src_memory"].astype(str), rows["dst_memory"].astype(str)
    return source.where(rows["direction"].isin(["H2D", "H2H"]), target)


def _group(view: DeviceView, start: int, end: int, direction: str, memory: str, rows: pd.DataFrame) -> Copies:
    begin = np.maximum(rows["start_ns"].to_numpy(), start)
    finish = np.minimum(rows["end_ns"].to_numpy(), end)
    merged = union(begin, finish)
    whole = (rows["end_ns"] - rows["start_ns"]).to_numpy()
    share = np.divide(finish - begin, whole, out=np.ones(len(rows)), where=whole > 0)
    moved = int(np.round(np.where(rows["bytes"] > 0, rows["bytes"], 0) * share).sum())
    overlapped = intersection_ns(merged, view.working)
    return Copies(
        direction=direction,
        memory=memory,
        count=len(rows),
        bytes=moved,
        busy_ns=merged.total_ns,
        overlapped_ns=overlapped,
        exposed_ns=merged.total_ns - overlapped,
        throughput_gb_per_s=moved / merged.total_ns if moved and merged.total_ns else None,
        why_exposed=_why(view, rows, begin, finish, end),
    )


def _why(view: DeviceView, rows: pd.DataFrame, begin: np.ndarray, finish: np.ndarray, end: int) -> dict[str, int]:
    """Exposed nanoseconds by cause; the sum is exactly the group's exposed time."""
    left, right = newly_covered(begin, finish)
    exposed = (right - left) - view.working.covered(left, right)
    causes = _causes(view, rows, end)
    found = pd.Series(exposed).groupby(pd.Series(causes)).sum()
    return {str(cause): int(ns) for cause, ns in found.sort_values(ascending=False).items() if ns > 0}


def _causes(view: DeviceView, rows: pd.DataFrame, end: int) -> np.ndarray:
    """The first cause that holds for each copy, in the order given here (docs/metrics.md says what each means)."""
    index = rows.index.to_numpy()
    starts, ends = view.starts[index], view.ends[index]
    called, returned = view.call_starts[index], view.call_ends[index]
    compute = view.owners[0]
    last = np.searchsorted(compute.ends, starts, side="right") - 1
    compute_ended = compute.ends[np.maximum(last, 0)] if len(compute.ends) else np.zeros(len(rows), dtype=np.int64)
    later = (
        compute.starts[np.minimum(np.searchsorted(compute.starts, ends), max(len(compute.starts) - 1, 0))]
        if len(compute.starts)
        else ends
    )
    known = returned > EARLY
    pageable = ((rows["src_memory"] == "pageable") | (rows["dst_memory"] == "pageable")).to_numpy()
    return np.select(
        [
            pageable,
            _shares_stream(view, rows),
            (later < ends) | (later >= end) | (len(compute.starts) == 0),
            known & (_same_direction_ended(view, rows) + ENGINE_TURNAROUND_NS >= starts),
            known & (last >= 0) & (called >= compute_ended),
        ],
        ["pageable", "same_stream", "nothing_to_overlap", "engine_busy", "issued_late"],
        default="dependency",
    )


def _shares_stream(view: DeviceView, rows: pd.DataFrame) -> np.ndarray:
    """Whether compute runs in the copy's stream; inside a CUDA graph a stream number means nothing."""
    compute = view.ops[view.ops["kind"].isin(["kernel", "comm"]).to_numpy() & ~view.in_graph]
    used = pd.MultiIndex.from_frame(compute[["context", "stream"]].drop_duplicates())
    shared = pd.MultiIndex.from_frame(rows[["context", "stream"]]).isin(used)
    return shared & ~view.in_graph[rows.index.to_numpy()]


def _same_direction_ended(view: DeviceView, rows: pd.DataFrame) -> np.ndarray:
    """When the latest earlier copy of the same direction ended; very early where there is none."""
    of_direction = view.ops[(view.ops["kind"] == "copy") & (view.ops["direction"] == rows["direction"].iloc[0])]
    reach = of_direction["end_ns"].cummax().shift(fill_value=EARLY // 2)
    return reach.loc[rows.index].to_numpy()
