"""Cut a recording to NVTX ranges: what the host did between the first one's start and the last one's end, and the GPU work that it
launched then.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from moeprof.capture.program.window import Window
from moeprof.capture.redact import Verbatim
from moeprof.errors import CaptureError

TIMED = "CUPTI_ACTIVITY_KIND_"
CALLS = "CUPTI_ACTIVITY_KIND_RUNTIME"
NVTX_INSTANCES = (34, 59, 60)  # marks, push/pop and start/end ranges: other rows name domains
MOST_NAMES = 8  # of ranges that an error lists
CALL_CATEGORIES = ("cuda_runtime", "cuda_driver")
NO_KERNELS = "the ranges that --start-on matches launched no GPU work: give another expression, or leave it out"
GPU_CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset", "gpu_user_annotation")


@dataclass(frozen=True)
class Bounds:
    """From the first chosen range's start to the last one's end, by the recording's own clock; how many ranges of the process that
    has most."""

    start: float
    end: float
    steps: int

    def holds(self, at: float) -> bool:
        """Whether something that began at ``at`` is inside."""
        return self.start <= at < self.end


def bounds(ranges: pd.DataFrame, window: Window) -> Bounds:
    """The bounds of the window's ranges: of each process its first ``steps`` ranges that match, not counting those inside another.

    ``ranges`` has columns pid, start_ns, end_ns and name.

    Raises:
        CaptureError: none matches; names some that there are.
    """
    pattern = re.compile(window.start_on or "")
    names = ranges["name"].astype(str)
    matching = ranges[names.map(lambda name: pattern.fullmatch(name) is not None).astype(bool)]
    if matching.empty:
        known = ", ".join(repr(name) for name in names.value_counts().index[:MOST_NAMES]) or "none"
        raise CaptureError(
            f"no NVTX range has a name that matches {window.start_on!r}; recorded are: {known}",
            "the whole recording was kept; give --start-on a regular expression of the whole name",
        )
    chosen = [_outermost(rows, window.steps) for _, rows in matching.groupby("pid")]
    start = min(rows["start_ns"].min() for rows in chosen)
    end = max(rows["end_ns"].max() for rows in chosen) if window.steps else float("inf")
    return Bounds(start, end, max(map(len, chosen)))


def _outermost(rows: pd.DataFrame, most: int | None) -> pd.DataFrame:
    """The first ``most`` ranges of a process that do not begin inside another of them."""
    rows = rows.sort_values(["start_ns", "end_ns"], ascending=[True, False])
    outer = rows["start_ns"] >= rows["end_ns"].cummax().shift(fill_value=-1)
    return rows[outer].head(most) if most else rows[outer]


def nsys_export(path: Path, within: Bounds) -> None:
    """Delete what is outside from an nsys SQLite export."""
    inside = f"start >= {within.start:.0f}" + (f" AND start < {within.end:.0f}" if within.end != float("inf") else "")
    with closing(sqlite3.connect(path)) as db:
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        columns = {name: {row[1] for row in db.execute(f'PRAGMA table_info("{name}")')} for name in tables}
        launched = _launches(db, columns, inside)
        for name in sorted(tables, key=lambda name: name == CALLS):
            if name == "NVTX_EVENTS":
                db.execute(f"DELETE FROM NVTX_EVENTS WHERE eventType IN {NVTX_INSTANCES} AND NOT ({inside})")
            elif name.startswith(TIMED) and name != CALLS and {"correlationId", "globalPid"} <= columns[name]:
                db.execute(f"DELETE FROM {name} WHERE NOT {launched}")
            elif "start" in columns[name] and name.startswith((TIMED, "CUDA_GPU_MEMORY", "PROFILER_OVERHEAD")):
                db.execute(f"DELETE FROM {name} WHERE NOT ({inside})")
        db.commit()


def _launches(db: sqlite3.Connection, columns: dict[str, set[str]], inside: str) -> str:
    """The condition of GPU work that was launched inside: its call is, or it has no call and began inside."""
    if CALLS not in columns:
        return f"({inside})"
    process = "(globalTid & ~0xFFFFFF)"
    db.execute(
        f"CREATE TEMP TABLE called AS SELECT {process} AS process, correlationId AS id, MAX({inside}) AS inside "
        f"FROM {CALLS} GROUP BY 1, 2"
    )
    db.execute("CREATE UNIQUE INDEX temp.called_by ON called(process, id)")
    of_launch = "(SELECT inside FROM called WHERE process = globalPid AND id = correlationId)"
    return f"COALESCE({of_launch}, ({inside}))"


def kineto_json(path: Path, window: Window) -> None:
    """Cut a torch.profiler trace in place.

    Raises:
        CaptureError: no range matches.
        ValueError: it is not JSON.
    """
    document = json.loads(path.read_text(encoding="utf-8"), parse_float=Verbatim)
    events = document["traceEvents"]
    document["traceEvents"] = kineto_events(events, bounds(kineto_ranges(events), window))
    path.write_text(json.dumps(document), encoding="utf-8")


def kineto_ranges(events: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """The ranges of a torch.profiler trace as ``bounds`` takes them, in its own microseconds."""
    rows = [
        (event.get("pid"), float(event["ts"]), float(event["ts"]) + float(event.get("dur", 0)), event.get("name"))
        for event in events
        if event.get("cat") == "user_annotation" and event.get("ph") == "X" and "ts" in event
    ]
    return pd.DataFrame(rows, columns=["pid", "start_ns", "end_ns", "name"])


def kineto_events(events: list[dict[str, Any]], within: Bounds) -> list[dict[str, Any]]:
    """The events inside; those of the GPU if their call is, and what has no time."""
    calls = {
        _correlation(event): within.holds(float(event["ts"]))
        for event in events
        if event.get("cat") in CALL_CATEGORIES and "ts" in event
    }

    def kept(event: dict[str, Any]) -> bool:
        if "ts" not in event or event.get("ph") == "M":
            return True
        inside = within.holds(float(event["ts"]))
        if event.get("cat") in GPU_CATEGORIES:
            return calls.get(_correlation(event), inside)
        if event.get("cat") == "ac2g":
            return calls.get(event.get("id"), inside)
        return inside

    return [event for event in events if isinstance(event, dict) and kept(event)]


def _correlation(event: dict[str, Any]) -> Any:
    return event.get("args", {}).get("correlation")
