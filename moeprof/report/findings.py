"""Capture -> the findings of each variant's trace, as a table."""

from __future__ import annotations

from moeprof import units
from moeprof.analysis.model import Finding
from moeprof.loaded.capture import Capture
from moeprof.report.narrative import finding as told
from moeprof.report.page import Table


def findings(capture: Capture) -> Table:
    """The findings of each variant, the largest gain first; their numbers are those of the flags in its timeline."""
    rows = []
    for variant in capture.variants:
        for number, f in enumerate(variant.findings if variant.trace is not None else (), start=1):
            claim = " ".join(text for text in (f"{f.claim}.", told.follows(f, {})) if text)
            rows.append((str(number), variant.record.name, f.id, *_gain(f), claim, f.try_))
    header = ("no.", "variant", "finding", "gain at most", "of the time", "claim", "try")
    return Table("Findings, gains per iteration", header, tuple(rows), plain=True)


def _gain(finding: Finding) -> tuple[str, str]:
    """The gain per iteration and its share of the judged time; where passes are not known, the gain in all."""
    if finding.id in told.TRUST:
        return units.DASH, units.DASH
    gain = units.ms(finding.gain_ns / finding.passes) if finding.passes else f"{units.ms(finding.gain_ns)} in all"
    return gain, units.percent(finding.gain_share)
