"""The rank that a trace file tells, from its first lines or one small query: much quicker than reading it."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from moeprof.trace.kineto.reader import opened
from moeprof.trace.nsys.export import Export
from moeprof.trace.origin import of_export
from moeprof.trace.tables import Origin

HEAD = 1 << 18  # characters of a Kineto file in which its properties stand
SQLITE_MAGIC = b"SQLite format 3"
_TOLD = re.compile(r'"distributedInfo"\s*:\s*\{[^{}]*?"rank"\s*:\s*(\d+)(?:[^{}]*?"world_size"\s*:\s*(\d+))?')


def peek(path: Path) -> Origin:
    """What the file at ``path`` tells of its rank; nothing where it cannot be read (reading it says why)."""
    try:
        with path.open("rb") as file:
            exported = file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC
        if exported:
            with Export(path) as export:
                return of_export(export)
        with opened(path) as file:
            info = _TOLD.search(file.read(HEAD))
    except (OSError, EOFError, UnicodeDecodeError, sqlite3.DatabaseError):
        return Origin()
    return Origin(int(info[1]), int(info[2]) if info[2] else None, "distributedInfo") if info else Origin()
