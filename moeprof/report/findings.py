"""Capture -> the findings of each variant's trace, as a table."""

from __future__ import annotations

from moeprof import units
from moeprof.analysis.model import Finding, Window
from moeprof.loaded.capture import Capture
from moeprof.report.page import Table


def findings(capture: Capture) -> Table:
    """The findings of each variant, the largest gain first; their numbers are those of the flags in its timeline."""
    rows = []
    for variant in capture.variants:
        for number, f in enumerate(variant.findings if variant.trace is not None else (), start=1):
            rows.append((str(number), variant.record.name, f.id, *_gain(f, variant.representative), f.claim, f.try_))
    header = ("no.", "variant", "finding", "gain at most", "of an iteration", "claim", "try")
    return Table("Findings, gains per iteration", header, tuple(rows), plain=True)


def _gain(finding: Finding, iteration: Window | None) -> tuple[str, str]:
    """The gain per iteration and its share of one; where passes are not known, of all that was judged, without a share."""
    per_pass = finding.evidence.get("gain_ns_per_pass")
    if per_pass is None or iteration is None:
        return f"{units.ms(finding.gain_ns)} in all", units.DASH
    share = per_pass / iteration.span_ns if iteration.span_ns else None
    return units.ms(per_pass), units.percent(share if share is not None and share <= 1 else None)
