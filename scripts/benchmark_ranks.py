"""Time ``moeprof ranks`` on a simulated program: ranks grown from one real rank, each with jitter and a clock of its own.

usage: python scripts/benchmark_ranks.py [RANKS] [COLLECTIVES]     (default 1024 8)

Needs the folder of real traces that the tests read. Writes a torch.profiler trace for each rank to a temporary folder (some
60 kB each), runs the command on it once for text, JSON and page, and prints seconds, peak memory, sizes, and whether the
two planted stragglers were named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import manyranks

LATE_NS, FACTOR = 200_000, 1.05


def main(count: int, collectives: int) -> None:
    """Write, analyse, report."""
    late, stretched = count * 3 // 4, count // 3
    clocks = np.random.default_rng(0).integers(-(10**9), 10**9, count)
    planted = manyranks.Planted(
        tuple(int(c) for c in clocks), jitter=0.005, late={late: ("compute", LATE_NS)}, stretched={stretched: FACTOR}
    )
    base = manyranks.real(collectives)
    with tempfile.TemporaryDirectory() as scratch:
        folder, page = Path(scratch) / "set", Path(scratch) / "ranks.html"
        manyranks.write_folder(folder, manyranks.grow(base, planted)[0])
        files = list(folder.iterdir())
        print(
            f"{count} ranks, {len(base.ops)} operations and {len(base.calls)} calls each, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB in all"
        )
        began = time.perf_counter()
        words = [sys.executable, "-m", "moeprof", "ranks", str(folder), "-o", str(page), "--json"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            text = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        took = time.perf_counter() - began
        found = json.loads(text)
        print(f"{took:.1f} s ({1e3 * took / count:.0f} ms a rank), {usage.ru_maxrss / 1e3:.0f} MB at the peak")
        print(
            f"JSON {len(text) / 1e6:.1f} MB, page {page.stat().st_size / 1e6:.1f} MB, residual of clocks {found['clocks']['residual_ns']} ns"
        )
        print(
            "stragglers:",
            [(s["rank"], s["cause"], s["late_ns"]) for s in found["stragglers"]],
            f"planted: {stretched} and {late}",
        )


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*given, *(1024, 8)[len(given) :])
