"""Pages of captures, as the command builds them."""

from __future__ import annotations

from moeprof.compare import captures, variants
from moeprof.compare.variants import Comparison
from moeprof.loaded.capture import Capture
from moeprof.report import html, text
from moeprof.report import variants as report
from moeprof.report.narrative.narrative import Narrative, narrate
from moeprof.report.page import Page


def page(capture: Capture, comparison: Comparison | None = None, waterfall: bool = True) -> Page:
    """The page of one capture."""
    comparison = comparison or variants.compare(capture)
    return report.one_capture(capture, comparison, narrate(comparison, capture.manifest.shows), waterfall)


def pair(before: Capture, after: Capture) -> Page:
    """The page of two captures."""
    comparison = captures.compare(before, after)
    return report.two_captures(before, after, comparison, narrate(comparison, after.manifest.shows))


def rendered(capture: Capture, comparison: Comparison | None = None) -> str:
    """The HTML of one capture."""
    return html.render(page(capture, comparison))


def printed(capture: Capture, comparison: Comparison | None = None) -> str:
    """What the terminal shows of one capture."""
    return text.render(page(capture, comparison))


def told(capture: Capture) -> Narrative:
    """The sentences about one capture."""
    return narrate(variants.compare(capture))
