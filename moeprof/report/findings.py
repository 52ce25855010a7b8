"""Capture -> the findings of each variant's trace, as a table."""

from __future__ import annotations

from moeprof import units
from moeprof.loaded.capture import Capture
from moeprof.report.page import Table


def findings(study: Capture) -> Table:
    """What the rules say of each variant, the largest gain of a variant first; variants without a finding have a line too."""
    rows = []
    for variant in study.variants:
        if variant.trace is not None:
            found = variant.findings
            rows += [(variant.record.name, f.id, units.ms(f.gain_ns), f.claim, f.try_) for f in found]
            rows += [] if found else [(variant.record.name, "none", units.DASH, "no rule finds a cause", units.DASH)]
    return Table(
        "Findings", ("variant", "finding", "gain at most, all passes", "claim", "try"), tuple(rows), plain=True
    )
