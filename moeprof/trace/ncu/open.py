"""A file of Nsight Compute, CSV or raw report: its counters and what its rules said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from moeprof.trace.ncu import counters, report


@dataclass(frozen=True)
class NcuFile:
    """What ncu counted.

    Args:
        path: the file's name.
        table: the COUNTERS table.
        rules: what ncu's rules said, one entry a rule and kernel.
    """

    path: str
    table: pd.DataFrame
    rules: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """The document of ``moeprof analyze --json``: kernels in launch order with their metrics in base units."""
        launches = [
            {
                "launch": int(launch), "kernel": str(rows["kernel"].iloc[0]), "device": int(rows["device"].iloc[0]),
                "stream": int(rows["stream"].iloc[0]), "grid": str(rows["grid"].iloc[0]), "block": str(rows["block"].iloc[0]),
                "metrics": {str(m): {"value": float(v), "unit": str(u)} for m, v, u in zip(rows["metric"], rows["value"], rows["unit"], strict=True)},
            }
            for launch, rows in self.table.groupby("launch", sort=True)
        ]  # fmt: skip
        source = {"path": self.path, "kind": "ncu", "producer": None, "schema": None}
        return {"schema_version": 1, "source": source, "launches": launches, "rules": self.rules}


def read_ncu(path: Path) -> NcuFile | None:
    """The counters of a CSV or raw report of Nsight Compute; None where ``path`` is anything else.

    Raises:
        TraceError: the file is damaged.
    """
    if not path.is_file():
        return None
    if report.is_report(path):
        return NcuFile(path.name, report.read_report(path), report.read_rules(path))
    if counters.is_counters(path):
        return NcuFile(path.name, counters.read_counters(path), counters.read_rules(path))
    return None
