#!/usr/bin/env python3
"""Record the sample captures that ship with moeprof, on a machine with a GPU, nsys and ncu.

usage: record_samples.py [WORKLOAD ...] [--samples DIR]

Captures each workload (default: kv_transfer) with its default preset, checks that it is complete and small, and puts it
under reports/samples/WORKLOAD without logs. The capture is redacted as every capture is.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from moeprof import manifest
from moeprof.capture import Request, capture, terminal_progress
from moeprof.capture.store import LOGS
from moeprof.codec import dumps
from moeprof.errors import CaptureError, MoeprofError

MAX_BYTES = 3_000_000
SAMPLES = Path(__file__).resolve().parents[1] / "reports" / "samples"


def record(workload: str, samples: Path) -> Path:
    """Capture and install one sample; the one that is there stays until the new one is whole."""
    with tempfile.TemporaryDirectory() as scratch:
        request = Request(
            workload=workload,
            tools=("nsys", "ncu"),
            output=Path(scratch) / workload,
            argv=("moeprof", "capture", workload),
        )
        result = capture(request, terminal_progress())
        if result.exit_code != 0:
            raise CaptureError(f"the capture of {workload} failed: {result.message}", "see: moeprof doctor")
        shutil.rmtree(result.folder / LOGS)
        shorten(result.folder)
        size = sum(p.stat().st_size for p in result.folder.rglob("*") if p.is_file())
        if size > MAX_BYTES:
            raise CaptureError(
                f"the sample of {workload} has {size} bytes, {MAX_BYTES} are allowed", "record fewer iterations"
            )
        shutil.rmtree(samples / workload, ignore_errors=True)
        samples.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copytree(result.folder, samples / workload))


def shorten(folder: Path) -> None:
    """The exact time of day of a recording says nothing to a reader: keep the date."""
    found = manifest.read(folder)
    (folder / manifest.FILE).write_text(dumps(replace(found, created=found.created[:10])), encoding="utf-8")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("workloads", nargs="*", default=["kv_transfer"])
    parser.add_argument("--samples", type=Path, default=SAMPLES)
    args = parser.parse_args()
    try:
        for workload in args.workloads:
            print(f"Wrote {record(workload, args.samples)}")
    except MoeprofError as error:
        print(f"error: {error.message} ({error.hint})", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
