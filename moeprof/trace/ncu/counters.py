"""Read the CSV of Nsight Compute, raw or details page: the only place that knows its columns and units."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd

from moeprof.errors import TraceError
from moeprof.trace.tables import COUNTERS, table

PREFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
TIMES_NS = {"ns": 1.0, "nsecond": 1.0, "us": 1e3, "usecond": 1e3, "ms": 1e6, "msecond": 1e6, "s": 1e9, "second": 1e9}
_IDENTITY = ("ID", "Kernel Name", "Stream", "Block Size", "Grid Size", "Device")


def read_counters(path: Path) -> pd.DataFrame:
    """The COUNTERS table of an ncu CSV; times in ns, bytes in byte, rates a second, whatever units the file uses.

    Raises:
        TraceError: the file holds no ncu table, for example only the tool's error messages.
    """
    rows = _records(path)
    if len(rows) < 2 or not set(_IDENTITY) <= set(rows[0]):
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise TraceError(
            f"{path} holds no ncu table (it says: {lines[-1][:120] if lines else 'nothing'})",
            "run ncu again with --csv",
        )
    return _details(rows) if "Metric Name" in rows[0] else _raw(rows)


def _records(path: Path) -> list[list[str]]:
    """The lines of the table, header first; the tool's own lines begin with ==."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        lines = [line for line in file if not line.startswith("==") and line.strip()]
    try:
        return list(csv.reader(lines))
    except csv.Error as error:
        raise TraceError(f"{path} is a damaged CSV: {error}", "run ncu again with --csv") from error


def is_counters(path: Path) -> bool:
    """Whether the file looks like a CSV of ncu: its header begins with "ID", after lines of the tool's own."""
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = (line.strip() for _, line in zip(range(200), file, strict=False))
        first = next((line for line in lines if line and not line.startswith("==")), "")
    return first.startswith('"ID",')


def read_rules(path: Path) -> list[dict[str, Any]]:
    """What ncu's rules said, from a details page, one entry a rule and kernel; a raw page holds none."""
    header, *body = _records(path) or [[]]
    rows = (dict(zip(header, row, strict=False)) for row in body)
    return [
        {
            "launch": int(row["ID"]), "kernel": row["Kernel Name"], "rule": row["Rule Name"], "type": row.get("Rule Type") or "",
            "description": row.get("Rule Description") or "", "speedup_percent": _number(row.get("Estimated Speedup") or ""),
        }
        for row in rows if row.get("Rule Name") and str(row.get("ID")).isdigit()
    ]  # fmt: skip


def _raw(rows: list[list[str]]) -> pd.DataFrame:
    header, units, *body = rows
    at = {name: index for index, name in enumerate(header)}
    metrics = [(i, n) for i, n in enumerate(header) if "__" in n and not n.startswith(("device__", "c2clink__"))]
    cells = [(row, i, name) for row in body for i, name in metrics if _number(row[i]) is not None]
    return _table(
        [row for row, _, _ in cells],
        at,
        [n for _, _, n in cells],
        [units[i] for _, i, _ in cells],
        [r[i] for r, i, _ in cells],
    )


def _details(rows: list[list[str]]) -> pd.DataFrame:
    at = {name: index for index, name in enumerate(rows[0])}
    body = [row for row in rows[1:] if row[at["Metric Name"]] and _number(row[at["Metric Value"]]) is not None]
    columns = ([row[at[name]] for row in body] for name in ("Metric Name", "Metric Unit", "Metric Value"))
    return _table(body, at, *columns)


def _table(
    rows: list[list[str]], at: dict[str, int], metrics: list[str], units: list[str], values: list[str]
) -> pd.DataFrame:
    based = [base_unit(unit) for unit in units]
    return table(
        COUNTERS,
        {
            "launch": [int(row[at["ID"]]) for row in rows],
            "kernel": [row[at["Kernel Name"]] for row in rows],
            "device": [int(row[at["Device"]]) for row in rows],
            "stream": [int(row[at["Stream"]]) for row in rows],
            "grid": [row[at["Grid Size"]] for row in rows],
            "block": [row[at["Block Size"]] for row in rows],
            "metric": metrics,
            "unit": [unit for unit, _ in based],
            "value": [(_number(value) or 0.0) * factor for value, (_, factor) in zip(values, based, strict=True)],
        },
    )


def _number(text: str) -> float | None:
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None  # n/a, or a text such as a device's name
    return None if value != value else value  # noqa: PLR0124 - nan means that the counter was not collected


def base_unit(unit: str) -> tuple[str, float]:
    """The base unit of a scaled one, and the factor: ``Gbyte/s`` -> ("byte/s", 1e9), ``us`` -> ("ns", 1e3)."""
    if unit in TIMES_NS:
        return "ns", TIMES_NS[unit]
    numerator, slash, denominator = unit.partition("/")
    for word in ("byte", "hz", "inst", "sector", "cycle"):
        prefix = numerator[: -len(word)]
        if numerator.lower().endswith(word) and prefix in PREFIXES:
            return word + slash + denominator.replace("second", "s"), PREFIXES[prefix]
    return unit, 1.0
