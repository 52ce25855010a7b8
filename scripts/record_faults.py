#!/usr/bin/env python3
"""Trace the programs of faults.py with nsys; save their exports, redacted and packed, and their clean times.

usage: record_faults.py FOLDER [--nsys PATH] [--only NAME ...]

Writes FOLDER/NAME-FORM.sqlite.xz for each program (faulty and mended; a control has one form), for some also of the whole program
and without NVTX, and FOLDER/times.json. With --only the recordings and times of other programs remain. Needs a GPU, nsys and torch.
80 runs take some eight minutes. Programs of two ranks need two GPUs; with one they are left out, and a line names them.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faults

from moeprof.capture import redact
from moeprof.machine import nvml, tools

PROGRAM = Path(__file__).with_name("faults.py")
WHOLE = ("far-ahead", "readback", "sync-api", "host-bound", "same-stream-copy", "first-iteration")
TRACE = ("--trace=cuda,nvtx", "--sample=none", "--cpuctxsw=none", "--cuda-graph-trace=node", "--force-overwrite=true")
SCOPED = ("--capture-range=cudaProfilerApi", "--capture-range-end=stop")


def runs(chosen: list[str]) -> list[tuple[str, list[str]]]:
    """(name of the recording, arguments of faults.py) of the chosen programs."""
    recordings = []
    for name, program in faults.PROGRAMS.items():
        for form in ("faulty", "mended") if program.expected else ("mended",):
            recordings.append((f"{name}-{form}", [name, form]))
    for name in WHOLE:
        form = "faulty" if faults.PROGRAMS[name].expected else "mended"
        recordings.append((f"{name}-{form}-whole", [name, form, "--whole"]))
        recordings.append((f"{name}-{form}-whole-bare", [name, form, "--whole", "--bare"]))
    recordings.append(("first-iteration-faulty-bare", ["first-iteration", "faulty", "--bare"]))
    return [(title, args) for title, args in recordings if args[0] in chosen]


def trace(nsys: Path, folder: Path, title: str, args: list[str]) -> Path | None:
    """The raw report of one run; None if nsys wrote none, whose messages are printed on stderr."""
    report = folder / f"{title}.nsys-rep"
    scope = () if "--whole" in args else SCOPED
    command = [str(nsys), "profile", *TRACE, *scope, "-o", str(report), sys.executable, str(PROGRAM), *args]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if not report.exists():
        print(f"{title}: no report\n{child.stdout[-800:]}{child.stderr[-800:]}", file=sys.stderr)
        return None
    if child.returncode:
        print(f"{title}: exit code {child.returncode}\n{child.stdout[-800:]}{child.stderr[-800:]}", file=sys.stderr)
    return report


def pack(nsys: tools.Tool, report: Path, target: Path) -> int:
    """Export, redact and pack one report; return its packed size."""
    export = tools.export_report(nsys, report, report.with_suffix(".sqlite"))
    clean = report.with_suffix(".redacted")
    redact.nsys_export(export, clean, os.environ)
    packed = lzma.compress(clean.read_bytes(), preset=9)
    target.write_bytes(packed)
    return len(packed)


def keep_times(path: Path, lines: list[dict[str, dict[str, float]]]) -> None:
    """Add clean times, name -> form -> ms per step, to the file that fault_table.py reads."""
    before = json.loads(path.read_text())["times"] if path.exists() else {}
    times = dict(sorted((before | {name: forms for line in lines for name, forms in line.items()}).items()))
    gpu = next((gpu.name for gpu in nvml.gpus()), "no GPU")
    path.write_text(
        json.dumps({"gpu": gpu, "unit": "ms per step, without a profiler", "times": times}, indent=1) + "\n"
    )


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nsys", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    nsys = tools.find("nsys", args.nsys)
    if nsys is None:
        print("error: nsys was not found (--nsys PATH)", file=sys.stderr)
        return 4
    unknown = sorted(set(args.only) - faults.PROGRAMS.keys())
    if unknown:
        print(
            f"error: no program is called {', '.join(unknown)}; there are {', '.join(faults.PROGRAMS)}", file=sys.stderr
        )
        return 2
    left_out = {name: reason for name in args.only or faults.PROGRAMS if (reason := faults.too_few_gpus(name))}
    for reason in left_out.values():
        print(reason, file=sys.stderr)
    names = [name for name in args.only or faults.PROGRAMS if name not in left_out]
    args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(4) as pool:
        waiting = {}
        for title, arguments in runs(names):
            report = trace(nsys.path, Path(scratch), title, arguments)
            if report is not None:
                waiting[title] = pool.submit(pack, nsys, report, args.folder / f"{title}.sqlite.xz")
        for title, size in waiting.items():
            print(f"{title}: {size.result()} bytes", flush=True)
    faulty = [name for name in names if faults.PROGRAMS[name].expected]
    if faulty:
        command = [sys.executable, str(PROGRAM), "--time", *faulty]
        timed = subprocess.run(command, capture_output=True, text=True, check=False)
        keep_times(args.folder / "times.json", [json.loads(line) for line in timed.stdout.splitlines()])
        print(timed.stderr[-500:], file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
