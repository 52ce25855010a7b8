#!/usr/bin/env python3
"""Write expected.json of the samples anew: the contrast that the tests compare with. Read its diff before committing it.

usage: expect_sample.py [WORKLOAD ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

from moeprof.loaded import capture
from moeprof.report import build
from moeprof.storage.json import dumps

SAMPLES = Path(__file__).resolve().parents[1] / "reports" / "samples"


def main() -> int:
    """The command."""
    for name in sys.argv[1:] or sorted(p.name for p in SAMPLES.iterdir() if p.is_dir()):
        target = SAMPLES / name / "expected.json"
        target.write_text(dumps(build.page_of((capture.load(SAMPLES / name),)).data), encoding="utf-8")
        print(f"Wrote {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
