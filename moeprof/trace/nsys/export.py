"""Columns of an SQLite export as numpy arrays: through Arrow's ADBC driver where it is installed, through sqlite3 where not.

ADBC reads a million rows of five columns in a fifth of a second, sqlite3 in one; the arrays are the same. Arrow reads large
tables in pieces, some at a time, each with a connection of its own, so that no table is in memory twice.
"""

from __future__ import annotations

import importlib.util
import os
import sqlite3
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moeprof.errors import TraceError
from moeprof.trace.tables import small

PIECE = 250_000  # rows
MOST_PIECES = 10_000  # beyond it row ids are not what they seem
MOST_AT_ONCE = 8

Integers = dict[str, npt.NDArray[np.int64]]


class Export:
    """An open export; use it as a context."""

    def __init__(self, path: Path, fast: bool = True) -> None:
        self.path, self.uri = path, f"{path.resolve().as_uri()}?mode=ro"
        self.db = sqlite3.connect(self.uri, uri=True)
        self.db.text_factory = _text
        try:
            self.tables = {
                row[0] for row in self.rows("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            }
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            self.db.close()
            raise
        self.fast = fast and _installed()

    def __enter__(self) -> Export:
        return self

    def __exit__(self, *error: object) -> None:
        self.db.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a small query."""
        return self.db.execute(query).fetchall()

    def columns(self, table: str) -> set[str]:
        """The names of a table's columns."""
        return {row[1] for row in self.rows(f'PRAGMA table_info("{table}")')}

    def integers(self, table: str, wanted: Mapping[str, int], narrow: Collection[str] = ()) -> Integers:
        """Columns of whole numbers, name -> default: what is NULL, a missing column and a missing table take the default.

        Columns in ``narrow`` are int32; a value there that does not fit (damage) is -1.

        Raises:
            TraceError: a column holds something else; names the table.
        """
        if table not in self.tables:
            return {name: np.empty(0, dtype=np.int64) for name in wanted}
        there = self.columns(table)
        names = [name for name in wanted if name in there]
        picked = ", ".join(f'COALESCE("{name}", {wanted[name]})' for name in names) or "1"
        arrays = self._arrays(table, f'SELECT {picked} FROM "{table}"', [name in narrow for name in names] or [False])
        columns = dict(zip(names, arrays, strict=False))
        return {
            name: columns.get(name, np.full(len(arrays[0]), default, dtype=np.int32 if name in narrow else np.int64))
            for name, default in wanted.items()
        }

    def _arrays(self, table: str, query: str, narrow: list[bool]) -> list[npt.NDArray[np.int64]]:
        fetched = self._fetched(table, query, narrow) if self.fast else None
        if fetched is not None:
            return fetched
        try:
            block = np.array(self.rows(query), dtype=np.int64).reshape(-1, len(narrow))
        except (ValueError, TypeError, OverflowError) as error:
            raise TraceError(
                f"{self.path}: table {table} does not read as whole numbers: {error}", "export it again"
            ) from error
        columns = [np.ascontiguousarray(block[:, i]) for i in range(len(narrow))]
        return [small(column) if tight else column for column, tight in zip(columns, narrow, strict=True)]

    def _fetched(self, table: str, query: str, narrow: list[bool]) -> list[npt.NDArray[np.int64]] | None:
        """The query's columns through Arrow; None where the driver fails: sqlite3 then says what is wrong."""
        try:
            last = self.rows(f'SELECT MAX(rowid) FROM "{table}"')[0][0] or 0
            first = self.rows(f'SELECT MIN(rowid) FROM "{table}"')[0][0] or 0
            if last - first < PIECE or last - first > MOST_PIECES * PIECE:
                return _piece(self.uri, query, narrow)
            limits = [f"{query} WHERE rowid BETWEEN {at} AND {at + PIECE - 1}" for at in range(first, last + 1, PIECE)]
            with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_AT_ONCE)) as pool:
                pieces = list(pool.map(lambda part: _piece(self.uri, part, narrow), limits))
        except Exception:  # kinds of errors differ from driver to driver, and every one of them has the same answer
            return None
        return [np.concatenate([piece.pop(0) for piece in pieces]) for _ in narrow]


def _text(data: bytes) -> str:
    """Text of a damaged file may not be UTF-8: what is not is marked."""
    return data.decode("utf-8", errors="replace")


def _piece(uri: str, query: str, narrow: list[bool]) -> list[npt.NDArray[np.int64]]:
    """The columns of one query, through a connection of its own."""
    with closing(_arrow(uri)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(query)
        columns = cursor.fetch_arrow_table().columns
        whole = [c.to_numpy().astype(np.int64, casting="safe") if len(c) else np.empty(0, np.int64) for c in columns]
    return [small(column) if tight else column for column, tight in zip(whole, narrow, strict=True)]


def _installed() -> bool:
    """Whether Arrow's driver and pyarrow are here."""
    return all(importlib.util.find_spec(name) is not None for name in ("adbc_driver_sqlite", "pyarrow"))


def _arrow(uri: str) -> Any:
    import adbc_driver_sqlite.dbapi as driver

    return driver.connect(uri)
