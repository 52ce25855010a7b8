"""Where the tests find the checkout's folders."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[1]
FAKES = SUPPORT / "fakes"
RECORDED = SUPPORT / "recorded"
TRACES = ROOT.parent / "shared" / "traces"  # real traces with golden numbers; absent on most machines
CASES = TRACES.parent / "cases"  # small inputs of known faults; absent on most machines
