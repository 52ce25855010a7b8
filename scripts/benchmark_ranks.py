#!/usr/bin/env python3
"""Time ``moeprof ranks`` on a simulated program: ranks derived from one real rank, each with jitter and a separate clock.

usage: benchmark_ranks.py [RANKS] [COLLECTIVES]

Needs the real traces of the tests. Writes a torch.profiler trace of about 60 kB for each rank to a temporary folder and runs
the command on it once. Prints seconds, peak memory, sizes, and the stragglers found beside the two planted ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from builders import rank_traces

LATE_NS, FACTOR = 200_000, 1.05


def benchmark(count: int, collectives: int) -> None:
    """Write the traces, run the command, print what it took."""
    late, stretched = count * 3 // 4, count // 3
    clocks = np.random.default_rng(0).integers(-(10**9), 10**9, count)
    planted = rank_traces.Planted(
        tuple(int(c) for c in clocks), jitter=0.005, late={late: ("compute", LATE_NS)}, stretched={stretched: FACTOR}
    )
    base = rank_traces.real(collectives)
    with tempfile.TemporaryDirectory() as scratch:
        folder, page = Path(scratch) / "set", Path(scratch) / "ranks.html"
        rank_traces.write_folder(folder, rank_traces.grow(base, planted)[0])
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
        print(f"{took:.1f} s ({1e3 * took / count:.0f} ms per rank), {usage.ru_maxrss / 1e3:.0f} MB at the peak")
        print(
            f"JSON {len(text) / 1e6:.1f} MB, page {page.stat().st_size / 1e6:.1f} MB, residual of clocks {found['clocks']['residual_ns']} ns"
        )
        print(
            "stragglers:",
            [(s["rank"], s["cause"], s["late_ns"]) for s in found["stragglers"]],
            f"planted: {stretched} and {late}",
        )


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("ranks", nargs="?", type=int, default=1024)
    parser.add_argument("collectives", nargs="?", type=int, default=8)
    args = parser.parse_args()
    benchmark(args.ranks, args.collectives)
    return 0


if __name__ == "__main__":
    sys.exit(main())
