"""The pages of one report of Nsight Compute, read from CSV files in any order: counters, rules, instructions, source lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from moeprof.errors import TraceError
from moeprof.trace.ncu import counters as ncu
from moeprof.trace.ncu import source
from moeprof.trace.tables import COUNTERS, table


@dataclass(frozen=True)
class Pages:
    """COUNTERS, what ncu's rules said (``trace.ncu.read_rules``), and the SOURCE tables of instructions and of lines."""

    counters: pd.DataFrame = field(default_factory=lambda: table(COUNTERS, {}))
    rules: tuple[dict[str, Any], ...] = ()
    sass: pd.DataFrame | None = None
    lines: pd.DataFrame | None = None


def read_pages(files: Iterable[Path]) -> Pages:
    """The pages in ``files``, each told by what it holds. The counters are those of the raw page where there is one: a details page
    rounds its values.

    Raises:
        TraceError: a file is no page of ncu, or none has counters.
    """
    raw: list[pd.DataFrame] = []
    details: list[pd.DataFrame] = []
    rules: list[dict[str, Any]] = []
    sass = lines = None
    for file in files:
        if source.is_source(file):
            page = source.read_source(file)
            if (page["line"] >= 0).any():
                lines = page
            elif len(page):
                sass = page
            continue
        rules += ncu.read_rules(file)
        counted = ncu.read_counters(file)
        (raw if counted["metric"].astype(str).str.contains("__").any() else details).append(counted)
    if not raw and not details:
        raise TraceError(
            "there are no counters in these files", "give the raw page too: ncu --import X --page raw --csv"
        )
    chosen = raw or details
    frame = chosen[0] if len(chosen) == 1 else pd.concat(chosen, ignore_index=True)
    return Pages(frame, tuple(rules), lines if sass is None else sass, lines)
