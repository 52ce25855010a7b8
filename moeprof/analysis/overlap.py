"""How much of the copies runs under compute or communication, by direction and memory kind, and why the rest does not."""

from __future__ import annotations

import numpy as np
import pandas as pd

from moeprof.analysis.device import DeviceView
from moeprof.analysis.intervals import EARLY, LATE, intersection_ns, newly_covered, union
from moeprof.analysis.model import Copies

ENGINE_TURNAROUND_NS = 5_000  # a copy that starts this soon after one of its direction was waiting for the engine;
# back-to-back copies on an H200 are 1.3 us apart


def copies(view: DeviceView, start: int, end: int) -> tuple[Copies, ...]:
    """The window's copies, clipped to it, grouped by direction and the host side's memory kind."""
    return tuple(_group(view, rows, d, m) for (d, m), rows in _grouped(view, start, end))


def exposures(view: DeviceView, start: int, end: int) -> pd.DataFrame:
    """One row a copy of the window: op (its row in the view), direction, memory, exposed_ns and cause.

    Where copies of one group run side by side a nanosecond belongs to the one that started first.
    """
    tables = [rows.assign(direction=d, memory=m) for (d, m), rows in _grouped(view, start, end)]
    columns = ["op", "direction", "memory", "exposed_ns", "cause"]
    return pd.concat(tables)[columns].reset_index(drop=True) if tables else pd.DataFrame(columns=columns)


def _grouped(view: DeviceView, start: int, end: int) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    """For each direction and memory kind its copies: op, begin and finish inside the window, exposed_ns, cause."""
    index = view.overlapping(start, end)
    index = index[view.is_copy[index]]
    if not len(index):
        return []
    memory = _host_memory(view.ops.iloc[index])
    groups = pd.Series(index).groupby([view.direction[index], memory.astype(str).to_numpy()], sort=True)
    return [((str(d), str(m)), _rows(view, rows.to_numpy(), start, end)) for (d, m), rows in groups]


def _host_memory(rows: pd.DataFrame) -> pd.Series:
    """The memory kind on the host's side; the destination's where both sides are alike."""
    source, target = rows["src_memory"].astype(str), rows["dst_memory"].astype(str)
    return source.where(rows["direction"].isin(["H2D", "H2H"]), target)


def _rows(view: DeviceView, index: np.ndarray, start: int, end: int) -> pd.DataFrame:
    begin, finish = np.maximum(view.starts[index], start), np.minimum(view.ends[index], end)
    left, right = newly_covered(begin, finish)
    exposed = (right - left) - view.working.covered(left, right)
    table = {"op": index, "begin": begin, "finish": finish, "exposed_ns": exposed, "cause": _causes(view, index, end)}
    return pd.DataFrame(table)


def _group(view: DeviceView, rows: pd.DataFrame, direction: str, memory: str) -> Copies:
    begin, finish = rows["begin"].to_numpy(), rows["finish"].to_numpy()
    merged = union(begin, finish)
    index = rows["op"].to_numpy()
    whole, size = view.ends[index] - view.starts[index], view.ops["bytes"].to_numpy()[index]
    share = np.divide(finish - begin, whole, out=np.ones(len(rows)), where=whole > 0)
    moved = int(np.round(np.where(size > 0, size, 0) * share).sum())
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
        why_exposed=_why(rows),
    )


def _why(rows: pd.DataFrame) -> dict[str, int]:
    """Exposed nanoseconds by cause; the sum is exactly the group's exposed time."""
    by_cause = rows["exposed_ns"].groupby(rows["cause"]).sum()
    return {str(cause): int(ns) for cause, ns in by_cause.sort_values(ascending=False).items() if ns > 0}


def _causes(view: DeviceView, index: np.ndarray, end: int) -> np.ndarray:
    """The first cause that holds for each copy, in the order given here (docs/reference/metrics.md defines each)."""
    starts, ends, called = view.starts[index], view.ends[index], view.call_starts[index]
    compute, known = view.owners[0], view.call_ends[index] > EARLY
    last = np.searchsorted(compute.ends, starts, side="right") - 1
    ended = compute.ends[np.maximum(last, 0)] if len(compute.ends) else np.zeros(len(index), dtype=np.int64)
    later = _next_start(compute.starts, ends)
    return np.select(
        [
            view.pageable[index],
            _shares_stream(view, index),
            view.legacy_ordered[index],
            (later < ends) | (later >= end),
            view.host_waited[index],
            known & (_same_direction_ended(view, index) + ENGINE_TURNAROUND_NS >= starts),
            known & (last >= 0) & (called >= ended),
        ],
        [
            "pageable",
            "same_stream",
            "legacy_default_stream",
            "nothing_to_overlap",
            "sync_between",
            "engine_busy",
            "issued_late",
        ],
        default="dependency",
    )


def _next_start(starts: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The first of ``starts`` at or after each time; later than every time where there is none."""
    return np.append(starts, LATE)[np.searchsorted(starts, times)]


def _shares_stream(view: DeviceView, index: np.ndarray) -> np.ndarray:
    """Whether compute runs in the copy's stream; inside a CUDA graph a stream number means nothing."""
    return np.isin(view.queue[index], view.kernel_queues) & ~view.in_graph[index]


def _same_direction_ended(view: DeviceView, index: np.ndarray) -> np.ndarray:
    """When the latest earlier copy of the same direction ended; very early where there is none."""
    alike, reach = view.copies_by_direction[str(view.direction[index[0]])]
    return reach[np.searchsorted(alike, index)]
