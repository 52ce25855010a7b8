#!/usr/bin/env python3
"""Time how long moeprof takes to read and analyse nsys exports of rising size, compared with `nsys stats` if nsys is installed.

usage: benchmark_analysis.py [TRACE.sqlite] [--kernels N ...]

Copies of the trace (by default that of the sample) are appended to it until it has about N kernels. Times, correlation ids and
graph-node ids are shifted. Each size runs in a child process. The first line of a size uses Arrow's driver, the second sqlite3
(up to a million kernels). "command" is `moeprof analyze --json` with Arrow's driver, from start to exit.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from moeprof.errors import MoeprofError
from moeprof.machine import tools

SAMPLE = Path(__file__).resolve().parents[1] / "reports" / "samples" / "kv_transfer" / "overlap" / "trace.sqlite"
GROWN = (
    "CUPTI_ACTIVITY_KIND_KERNEL",
    "CUPTI_ACTIVITY_KIND_MEMCPY",
    "CUPTI_ACTIVITY_KIND_MEMSET",
    "CUPTI_ACTIVITY_KIND_RUNTIME",
    "NVTX_EVENTS",
)
REPORTS = "cuda_gpu_kern_sum,cuda_gpu_mem_time_sum,cuda_api_sum,cuda_kern_exec_sum,nvtx_gpu_proj_sum"
MEASURE = """
import json, resource, sys, time
from pathlib import Path
from moeprof.loaded.trace import analysis_of
from moeprof.trace.nsys.reader import read_nsys
start = time.perf_counter()
trace = read_nsys(Path(sys.argv[1]), fast=sys.argv[2] == "fast")
read = time.perf_counter()
analysis_of(trace)
print(json.dumps([read - start, time.perf_counter() - read, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6]))
"""


def grow(source: Path, target: Path, copies: int) -> None:
    """Write ``copies`` of the events of ``source`` in sequence: every statistic scales by ``copies``."""
    shutil.copyfile(source, target)
    with closing(sqlite3.connect(target)) as db:
        db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; CREATE TEMP TABLE k(n INTEGER)")
        db.executemany("INSERT INTO k VALUES (?)", [(n,) for n in range(1, copies)])
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        shift = {"start": "end", "end": "end", "correlationId": "correlationId", "graphNodeId": "graphNodeId"}
        maxima = {column: _maximum(db, tables, column) for column in set(shift.values())}
        for name in (table for table in GROWN if table in tables):
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({name})")]
            picked = [f's."{c}" + k.n * {maxima[shift[c]] + 1}' if c in shift else f's."{c}"' for c in columns]
            db.execute(f"CREATE TEMP TABLE s AS SELECT * FROM {name}")
            db.execute(f"INSERT INTO {name} SELECT {', '.join(picked)} FROM k, s ORDER BY k.n")
            db.execute("DROP TABLE s")
        db.commit()


def _maximum(db: sqlite3.Connection, tables: set[str], column: str) -> int:
    values = [0]
    for name in (table for table in GROWN if table in tables):
        if column in {row[1] for row in db.execute(f"PRAGMA table_info({name})")}:
            values.append(db.execute(f'SELECT MAX("{column}") FROM {name}').fetchone()[0] or 0)
    return max(values)


def count(path: Path) -> tuple[int, int]:
    """Kernels and API calls of an export."""
    with closing(sqlite3.connect(path)) as db:
        counts = [db.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for name in (GROWN[0], GROWN[3])]
    return counts[0], counts[1]


def measure(path: Path, how: str) -> tuple[float, float, float]:
    """Seconds to read, seconds to analyse, peak memory in GB."""
    child = subprocess.run([sys.executable, "-P", "-c", MEASURE, path, how], capture_output=True, text=True, check=True)
    read, analyse, memory = json.loads(child.stdout)
    return read, analyse, memory


def command_seconds(path: Path) -> float:
    """Seconds of `moeprof analyze`, from start to exit."""
    start = time.perf_counter()
    argv = [sys.executable, "-P", "-m", "moeprof", "analyze", path, "--json"]
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def nsys_seconds(path: Path) -> float | None:
    """Seconds that `nsys stats` takes for the reports with the same numbers; None without nsys."""
    nsys = tools.find("nsys")
    if nsys is None:
        return None
    start = time.perf_counter()
    subprocess.run(
        [
            nsys.path,
            "stats",
            "--report",
            REPORTS,
            "--format",
            "csv",
            "--force-overwrite",
            "true",
            "--output",
            path.with_suffix(""),
            path,
        ],
        capture_output=True,
        check=True,
    )
    return time.perf_counter() - start


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("trace", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--kernels", nargs="+", type=int, default=[100_000, 900_000, 9_000_000])
    args = parser.parse_args()
    try:
        kernels_of_trace = count(args.trace)[0]
        print(
            f"{'kernels':>10} {'API calls':>10} {'how':>8} {'read s':>8} {'analyse s':>10} {'command s':>10} {'peak GB':>8} {'nsys stats s':>13}"
        )
        with tempfile.TemporaryDirectory() as folder:
            for kernels_wanted in args.kernels:
                path = Path(folder) / "grown.sqlite"
                grow(args.trace, path, max(1, round(kernels_wanted / kernels_of_trace)))
                kernels, calls = count(path)
                whole, theirs = command_seconds(path), nsys_seconds(path)
                for how in ("fast", "sqlite3") if kernels <= 1_100_000 else ("fast",):
                    read, analyse, memory = measure(path, how)
                    beside = "-" if theirs is None else f"{theirs:.1f}"
                    print(
                        f"{kernels:>10} {calls:>10} {how:>8} {read:>8.2f} {analyse:>10.2f} {whole:>10.2f} {memory:>8.2f} {beside:>13}",
                        flush=True,
                    )
    except (MoeprofError, sqlite3.Error, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
