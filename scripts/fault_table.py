#!/usr/bin/env python3
"""Print the table of planted faults: first finding, gain claimed, gain measured after the fault is fixed.

usage: fault_table.py FOLDER

FOLDER is what record_faults.py wrote. Claimed is the first finding's upper bound from the faulty trace; measured are the
differences faulty - mended, traced (the judged part of each trace) and clean (without a profiler), in ms per step.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
import tempfile
from pathlib import Path

import pandas as pd

from moeprof.analysis.device import views
from moeprof.analysis.model import Finding
from moeprof.findings.find import find
from moeprof.findings.what_if import scenes_of
from moeprof.trace import read

STEPS = 10
LOADING = ("slow-loading", "slow-compilation", "slow-modules")  # programs whose fault lies before their steps


def judged(packed: Path, scratch: Path, loads: bool) -> tuple[tuple[Finding, ...], float]:
    """The findings of a packed trace, and ms per step from the host's first step to the GPU's last work.

    ``loads``: from the first call after the profiler's start, since what the program loads is its fault.
    """
    path = scratch / packed.stem
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    trace = read(path)
    scenes = scenes_of(trace, views(trace))
    focus = scenes[0].focus
    spans = focus.spans if focus.warm_up is None else (focus.warm_up, *focus.spans)
    length = (spans[-1][1] - spans[0][0]) if spans else focus.pieces.total_ns
    if loads:
        loading = trace.calls[~trace.calls["name"].astype(str).str.contains("ProfilerStart")]
        length = int(scenes[0].view.ends.max()) - int(loading["start_ns"].min())
    return find(scenes), length / STEPS / 1e6


def rows(folder: Path) -> pd.DataFrame:
    """One row a fault."""
    table_rows, clean = [], json.loads((folder / "times.json").read_text())["times"]
    with tempfile.TemporaryDirectory() as scratch:
        for faulty in sorted(folder.glob("*-faulty.sqlite.xz")):
            name = faulty.name.removesuffix("-faulty.sqlite.xz")
            loads = name in LOADING
            findings, before = judged(faulty, Path(scratch), loads)
            findings_after, after = judged(folder / f"{name}-mended.sqlite.xz", Path(scratch), loads)
            times = clean.get(name, {})
            table_rows.append(
                {
                    "fault": name,
                    "first finding": findings[0].id if findings else "none",
                    "claimed": findings[0].gain_ns / STEPS / 1e6 if findings else 0.0,
                    "measured, traced": before - after,
                    "measured, clean": times.get("faulty", 0.0) - times.get("mended", 0.0),
                    "mended": ", ".join(f.id for f in findings_after) or "silent",
                }
            )
    return pd.DataFrame(table_rows)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    table = rows(parser.parse_args().folder)
    print("| " + " | ".join(table.columns) + " |\n|" + "---|" * len(table.columns))
    for row in table.itertuples(index=False):
        print("| " + " | ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
