"""Which rank a trace is of, and when by its host's clock it began: what its file tells, and what its name tells.

A torch.profiler trace holds ``distributedInfo`` with the rank and ``baseTimeNanoseconds``, the UTC moment that its times
count from (older ones count from 1970). An nsys export holds the UTC moment that its session started, and the environment
of the process that nsys started, in which launchers leave the rank.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from moeprof.machine.launcher import RANK_VARIABLES, SIZE_VARIABLES
from moeprof.trace.nsys.export import Export
from moeprof.trace.tables import Origin

SINCE_1970_NS = 10**18  # a Kineto time beyond this (the year 2001) counts from 1970
_IN_NAME = re.compile(r"(?:^|[^a-z])rank[-_.=]?(\d+)(?!\d)", re.IGNORECASE)
_ENTRY = re.compile(r'(\w+)="?(\d+)"?')


def of_document(document: dict[str, Any], zero: int) -> Origin:
    """Of a Kineto document whose earliest event is at ``zero`` ns."""
    told = document.get("distributedInfo")
    told = told if isinstance(told, dict) else {}
    rank, size = (_count(told.get(name)) for name in ("rank", "world_size"))
    base = _count(document.get("baseTimeNanoseconds"))
    utc = zero + base if base else zero if zero > SINCE_1970_NS else None
    return Origin(rank, size, "distributedInfo" if rank is not None else "", utc)


def of_export(export: Export) -> Origin:
    """Of an nsys export: its start, and the rank in the environment of the process that nsys started."""
    found = _environment(export)
    rank, size = (next((found[n] for n in names if n in found), None) for names in (RANK_VARIABLES, SIZE_VARIABLES))
    told = next((n for n in RANK_VARIABLES if n in found), "")
    return Origin(rank, size, f"environment ({told})" if told else "", _started(export))


def _started(export: Export) -> int | None:
    table = "TARGET_INFO_SESSION_START_TIME"
    if table not in export.tables or "utcEpochNs" not in export.columns(table):
        return None
    rows = export.rows(f"SELECT utcEpochNs FROM {table}")
    return _count(rows[0][0]) if rows else None


def _environment(export: Export) -> dict[str, int]:
    """Whole numbers among the launchers' variables; nothing else of the environment is looked at."""
    if "META_DATA_CAPTURE" not in export.tables:
        return {}
    rows = export.rows("SELECT value FROM META_DATA_CAPTURE WHERE name LIKE '%ENVIRONMENT_VARIABLE'")
    entries = [found for row in rows if (found := _ENTRY.fullmatch(str(row[0])))]
    return {e[1]: int(e[2]) for e in entries if e[1] in (*RANK_VARIABLES, *SIZE_VARIABLES)}


def _count(value: Any) -> int | None:
    """A whole number that is not negative; also one that was written as text."""
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def in_name(path: Path) -> int | None:
    """The rank in a file's name: rank3.sqlite, trace_rank-12.json.gz; else in its folder's."""
    found = _IN_NAME.search(path.name) or _IN_NAME.search(path.parent.name)
    return int(found[1]) if found else None
