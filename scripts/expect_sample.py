#!/usr/bin/env python3
"""Write the expected.json of samples again: the comparison that the tests expect. Read the diff before committing it.

usage: expect_sample.py [WORKLOAD ...]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from moeprof.loaded import capture
from moeprof.report import build
from moeprof.storage.json import dumps

SAMPLES = Path(__file__).resolve().parents[1] / "reports" / "samples"


def main() -> int:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="default: all samples")
    args = parser.parse_args()
    for name in args.workloads or sorted(p.name for p in SAMPLES.iterdir() if p.is_dir()):
        target = SAMPLES / name / "expected.json"
        target.write_text(dumps(build.page_of((capture.load(SAMPLES / name),)).data), encoding="utf-8")
        print(f"Wrote {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
