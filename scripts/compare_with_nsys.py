#!/usr/bin/env python3
"""Compare the numbers of moeprof with `nsys stats` on the same SQLite export, number for number.

usage: compare_with_nsys.py TRACE.sqlite [TRACE.sqlite ...] [--nsys PATH]

Reports compared: cuda_gpu_kern_sum, cuda_gpu_mem_time_sum, cuda_gpu_mem_size_sum, cuda_api_sum, cuda_kern_exec_sum,
cuda_kern_exec_trace, nvtx_gpu_proj_sum, nvtx_gpu_proj_trace, nvtx_pushpop_sum, nvtx_startend_sum. Prints one line a report
and the first differences; exits 0 if all numbers are equal, 1 if not. Projections are compared as far as nsys makes them.
It omits replays of graphs that were traced whole, and start/end ranges that end on another thread.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

from nsys_reports import REPORTS

from moeprof.errors import MoeprofError, ToolError
from moeprof.machine import tools
from moeprof.trace import read

SHOWN = 4


def stats(nsys: Path, trace: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of `nsys stats`, report by report; a report without data is an empty list."""
    with tempfile.TemporaryDirectory() as folder:
        reports = ",".join(REPORTS)
        argv = [
            nsys,
            "stats",
            "--report",
            reports,
            "--format",
            "csv",
            "--output",
            f"{folder}/out",
            "--force-overwrite",
            "true",
            trace,
        ]
        child = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
        if child.returncode != 0:
            raise ToolError(
                f"nsys stats failed on {trace}: {(child.stderr or child.stdout).strip().splitlines()[-1]}",
                "run it by hand",
            )
        tables = {}
        for name in REPORTS:
            path = Path(folder) / f"out_{name}.csv"
            tables[name] = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
        return tables


def compare(nsys: Path, path: Path) -> bool:
    """Print one line a report; return whether all are equal."""
    trace, equal = read(path), True
    for name, rows in stats(nsys, path).items():
        try:
            theirs, ours = REPORTS[name][0](rows), REPORTS[name][1](trace)
        except KeyError:
            raise ToolError(f"{name} has other columns: {', '.join(rows[0])}", "take the names of this nsys") from None
        same = theirs == ours
        equal &= same
        print(f"{'EQUAL' if same else 'DIFFERENT':<10} {name:<24} {sum(theirs.values()):>6} rows  {path}")
        for label, left in (("only nsys", theirs - ours), ("only moeprof", ours - theirs)):
            for row in list(left)[:SHOWN]:
                print(f"           {label}: {row}")
    return equal


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--nsys", type=Path)
    args = parser.parse_args()
    try:
        tool = tools.find("nsys", args.nsys)
        if tool is None:
            raise ToolError("there is no nsys here", "give --nsys PATH")
        results = [compare(tool.path, path) for path in args.traces]
    except MoeprofError as error:
        print(f"error: {error.message} ({error.hint})", file=sys.stderr)
        return int(error.exit_code)
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
