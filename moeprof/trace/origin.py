"""The rank of a trace, and its start by its host's clock, from the contents of its file and from its name.

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
    """The origin of a Kineto document whose earliest event is at ``zero`` ns."""
    info = document.get("distributedInfo")
    info = info if isinstance(info, dict) else {}
    rank, size = (_count(info.get(name)) for name in ("rank", "world_size"))
    base = _count(document.get("baseTimeNanoseconds"))
    utc = zero + base if base else zero if zero > SINCE_1970_NS else None
    return Origin(rank, size, "distributedInfo" if rank is not None else "", utc)


def of_export(export: Export) -> Origin:
    """The origin of an nsys export: its start, and the rank in the environment of the process that nsys started."""
    variables = _environment(export)
    rank, size = (
        next((variables[n] for n in names if n in variables), None) for names in (RANK_VARIABLES, SIZE_VARIABLES)
    )
    variable = next((n for n in RANK_VARIABLES if n in variables), "")
    return Origin(rank, size, f"environment ({variable})" if variable else "", _started(export))


def _started(export: Export) -> int | None:
    table = "TARGET_INFO_SESSION_START_TIME"
    if table not in export.tables or "utcEpochNs" not in export.columns(table):
        return None
    rows = export.rows(f"SELECT utcEpochNs FROM {table}")
    return _count(rows[0][0]) if rows else None


def _environment(export: Export) -> dict[str, int]:
    """Whole numbers among the launchers' variables; nothing else of the environment is read."""
    if "META_DATA_CAPTURE" not in export.tables:
        return {}
    rows = export.rows("SELECT value FROM META_DATA_CAPTURE WHERE name LIKE '%ENVIRONMENT_VARIABLE'")
    entries = [entry for row in rows if (entry := _ENTRY.fullmatch(str(row[0])))]
    return {e[1]: int(e[2]) for e in entries if e[1] in (*RANK_VARIABLES, *SIZE_VARIABLES)}


def _count(value: Any) -> int | None:
    """A whole number that is not negative; also one that was written as text."""
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def in_name(path: Path) -> int | None:
    """The rank in a file's name: rank3.sqlite, trace_rank-12.json.gz; else in its folder's."""
    match = _IN_NAME.search(path.name) or _IN_NAME.search(path.parent.name)
    return int(match[1]) if match else None
