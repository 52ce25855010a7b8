"""The rank of a trace file, from its first lines or one small query: much quicker than reading it."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from moeprof.trace.kineto.reader import opened
from moeprof.trace.nsys.export import Export
from moeprof.trace.origin import of_export
from moeprof.trace.tables import Origin

HEAD = 1 << 18  # characters of a Kineto file that contain its properties
SQLITE_MAGIC = b"SQLite format 3"
_RANK = re.compile(r'"distributedInfo"\s*:\s*\{[^{}]*?"rank"\s*:\s*(\d+)(?:[^{}]*?"world_size"\s*:\s*(\d+))?')


def peek(path: Path) -> Origin:
    """The origin of the file at ``path``; an empty one where it cannot be read (reading it reports why)."""
    try:
        with path.open("rb") as file:
            exported = file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC
        if exported:
            with Export(path) as export:
                return of_export(export)
        with opened(path) as file:
            info = _RANK.search(file.read(HEAD))
    except (OSError, EOFError, UnicodeDecodeError, sqlite3.DatabaseError):
        return Origin()
    return Origin(int(info[1]), int(info[2]) if info[2] else None, "distributedInfo") if info else Origin()
