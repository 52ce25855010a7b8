#!/usr/bin/env python3
"""Record the sample captures that ship with moeprof, on a machine with a GPU, nsys and ncu.

usage: record_samples.py [WORKLOAD ...] [--samples DIR]
       record_samples.py --from CAPTURE [--samples DIR]
       record_samples.py --from-session DIR --name NAME

Captures each workload (default: kv_transfer) with its default preset, checks that it is complete and small, and puts it
under reports/samples/WORKLOAD without logs. The capture is redacted as every capture is. A session, with its log and captures, is put under
reports/sessions/NAME.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from moeprof.capture import Request, capture
from moeprof.cli.progress import terminal_progress
from moeprof.errors import CaptureError, MoeprofError
from moeprof.session import log
from moeprof.storage import manifest
from moeprof.storage.capture_folder import LOGS
from moeprof.storage.files import whole_folder
from moeprof.storage.json import dumps

MAX_BYTES = 3_000_000
SAMPLES = Path(__file__).resolve().parents[1] / "reports" / "samples"


def record(workload: str, samples: Path) -> Path:
    """Capture one workload and install it as a sample."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / workload
        request = Request(
            workload=workload, tools=("nsys", "ncu"), output=folder, argv=("moeprof", "capture", workload)
        )
        result = capture(request, terminal_progress())
        if result.exit_code != 0:
            raise CaptureError(f"the capture of {workload} failed: {result.message}", "see: moeprof doctor")
        return install(folder, samples)


def install(folder: Path, samples: Path) -> Path:
    """Put a finished capture under the samples, without logs, in place of an earlier one."""
    recorded = manifest.read(folder)
    if not recorded.complete:
        raise CaptureError(f"{folder} is not complete", "capture again")
    sample_files = [p for p in folder.rglob("*") if p.is_file() and LOGS not in p.relative_to(folder).parts]
    size = sum(p.stat().st_size for p in sample_files)
    if size > MAX_BYTES:
        raise CaptureError(f"{folder} has {size} bytes, {MAX_BYTES} are allowed", "record fewer iterations")
    target = samples / recorded.name
    with whole_folder(target) as partial:
        shutil.copytree(folder, partial, ignore=shutil.ignore_patterns(LOGS), dirs_exist_ok=True)
        shorten(partial)
    return target


def install_session(folder: Path, name: str) -> Path:
    """Put a session under reports/sessions/NAME: its log, and its captures without their logs."""
    log.read(folder)  # raises where it is none
    target = SAMPLES.parent / "sessions" / name
    with whole_folder(target) as partial:
        shutil.copytree(folder, partial, ignore=shutil.ignore_patterns(LOGS, "*.html", "*.lock"), dirs_exist_ok=True)
        for capture_folder in (partial / "captures").iterdir():
            shorten(capture_folder)
    return target


def shorten(folder: Path) -> None:
    """Remove the time of day and the output option from the manifest: they do not matter to a reader."""
    recorded = manifest.read(folder)
    plain = replace(recorded, created=recorded.created[:10], argv=("moeprof", "capture", recorded.name))
    (folder / manifest.FILE).write_text(dumps(plain), encoding="utf-8")


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("workloads", nargs="*", default=["kv_transfer"])
    parser.add_argument("--from", dest="capture", type=Path, metavar="CAPTURE")
    parser.add_argument("--from-session", type=Path, metavar="DIR")
    parser.add_argument("--name", help="of the session")
    parser.add_argument("--samples", type=Path, default=SAMPLES)
    args = parser.parse_args()
    try:
        if args.from_session is not None:
            print(f"Wrote {install_session(args.from_session, args.name or args.from_session.name)}")
            return 0
        if args.capture is not None:
            print(f"Wrote {install(args.capture, args.samples)}")
            return 0
        for workload in args.workloads:
            print(f"Wrote {record(workload, args.samples)}")
    except MoeprofError as error:
        print(f"error: {error.message} ({error.hint})", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
