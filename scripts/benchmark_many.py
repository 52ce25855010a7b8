#!/usr/bin/env python3
"""How long `moeprof analyze DIR` takes for many traces, one after the other and on Dask's workers.

usage: benchmark_many.py [TRACE.sqlite] [--traces N] [--kernels K]

Makes N exports of about K kernels each by appending copies of the trace (default: the sample's) to itself, then runs the whole
command both ways, each with a memory of its own, and once more with the memory that it left. The rows of all runs must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from benchmark_analysis import SAMPLE, count, grow

WAYS = (("serial", ()), ("dask", ("--dask",)))


def make(source: Path, folder: Path, traces: int, kernels: int) -> int:
    """The folder of traces, each with a content of its own; the kernels of one."""
    copies = max(1, round(kernels / count(source)[0]))
    first = folder / "trace000.sqlite"
    grow(source, first, copies)
    for number in range(1, traces):
        target = folder / f"trace{number:03d}.sqlite"
        shutil.copyfile(first, target)
        with closing(sqlite3.connect(target)) as db:
            db.execute("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET end = end + ? WHERE rowid = 1", (number,))
            db.commit()
    return count(first)[0]


def run(folder: Path, cache: Path, words: tuple[str, ...]) -> tuple[float, str]:
    """Seconds of the whole command, and its rows."""
    start = time.perf_counter()
    argv = [sys.executable, "-P", "-m", "moeprof", "analyze", folder, "--json", "--cache", cache, *words]
    ran = subprocess.run(argv, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, json.dumps(json.loads(ran.stdout)["rows"])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("trace", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--traces", type=int, default=16)
    parser.add_argument("--kernels", type=int, default=1_000_000)
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "traces"
            folder.mkdir()
            kernels = make(args.trace, folder, args.traces, args.kernels)
            print(f"{args.traces} traces of {kernels} kernels, {os.cpu_count()} cores")
            print(f"{'how':>8} {'first s':>8} {'again s':>8}")
            rows = set()
            for name, words in WAYS:
                cache = Path(scratch) / name
                first, found = run(folder, cache, words)
                again, same = run(folder, cache, words)
                rows |= {found, same}
                print(f"{name:>8} {first:>8.2f} {again:>8.2f}", flush=True)
    except (OSError, sqlite3.Error, subprocess.CalledProcessError) as error:
        print(f"error: {error} {getattr(error, 'stderr', '') or ''}", file=sys.stderr)
        return 1
    if len(rows) != 1:
        print("error: the rows of the runs differ", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
