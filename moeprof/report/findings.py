"""Capture -> the findings of each variant's trace, as a table."""

from __future__ import annotations

from moeprof import units
from moeprof.loaded.capture import Capture
from moeprof.report.page import Table


def findings(capture: Capture) -> Table:
    """The findings of each variant, the largest gain first; a variant without findings has a row too."""
    rows = []
    for variant in capture.variants:
        if variant.trace is not None:
            listed = variant.findings
            rows += [(variant.record.name, f.id, units.ms(f.gain_ns), f.claim, f.try_) for f in listed]
            rows += [] if listed else [(variant.record.name, "none", units.DASH, "no rule finds a cause", units.DASH)]
    return Table(
        "Findings", ("variant", "finding", "gain at most, all passes", "claim", "try"), tuple(rows), plain=True
    )
