"""Who owns a device's time, by a sweep over the events of a trace file. It shares no code with moeprof: sqlite3 and json alone."""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

Event = tuple[int, int, str]  # start and end in ns; compute, communication, copy or memset
ORDER = ("compute", "communication", "copy", "memset")
TABLES = {"MEMCPY": "copy", "MEMSET": "memset"}


def events(path: Path, device: int) -> list[Event]:
    """The operations of a device."""
    return _of_nsys(path, device) if path.suffix == ".sqlite" else _of_kineto(path, device)


def owners(listed: list[Event], start: int, end: int) -> dict[str, int]:
    """Nanoseconds of [start, end) by owner, in the order compute, communication, copy, memset; the rest is idle."""
    marks = sorted(
        (time, change, kind)
        for begin, finish, kind in listed
        if finish > start and begin < end
        for time, change in ((max(begin, start), 1), (min(finish, end), -1))
    )
    spent = dict.fromkeys((*ORDER, "idle"), 0)
    running, before = dict.fromkeys(ORDER, 0), start
    for time, change, kind in marks:
        owner = next((k for k in ORDER if running[k]), "idle")
        spent[owner] += time - before
        running[kind] += change
        before = time
    spent["idle"] += end - before
    return spent


def _of_nsys(path: Path, device: int) -> list[Event]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        kernels = db.execute(
            "SELECT k.start, k.end, s.value FROM CUPTI_ACTIVITY_KIND_KERNEL k JOIN StringIds s ON s.id = k.shortName WHERE deviceId = ?",
            (device,),
        )
        found = [(a, b, "communication" if "nccl" in name.lower() else "compute") for a, b, name in kernels]
        for table, kind in TABLES.items():
            if f"CUPTI_ACTIVITY_KIND_{table}" in tables:
                rows = db.execute(f"SELECT start, end FROM CUPTI_ACTIVITY_KIND_{table} WHERE deviceId = ?", (device,))
                found += [(a, b, kind) for a, b in rows]
    return found


def document(path: Path) -> list[dict[str, Any]]:
    """The events of a Kineto trace."""
    data = path.read_bytes()
    return list(json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)["traceEvents"])


def _of_kineto(path: Path, device: int) -> list[Event]:
    kinds = {"kernel": "compute", "gpu_memcpy": "copy", "gpu_memset": "memset"}
    found = []
    for event in document(path):
        kind = kinds.get(event.get("cat", ""))
        if kind is None or event.get("args", {}).get("device") != device:
            continue
        communicates = kind == "compute" and str(event["name"]).lower().startswith("nccl")
        start = round(float(event["ts"]) * 1000)
        found.append((start, start + round(float(event["dur"]) * 1000), "communication" if communicates else kind))
    return found
