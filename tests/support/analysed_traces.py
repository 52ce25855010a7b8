"""Traces of the checkout and real ones, read, analysed and shown once a test process, however many tests look at them."""

from __future__ import annotations

import functools
from pathlib import Path

from moeprof.analysis.device import views
from moeprof.analysis.model import Analysis
from moeprof.loaded.trace import analysis_of
from moeprof.report import trace_page
from moeprof.report.figures.timeline_data import timeline_data
from moeprof.report.page import Page
from moeprof.trace import Trace, read


def shown(trace: Trace, name: str) -> tuple[Page, Analysis]:
    """The page of a trace as the command builds it, and its analysis."""
    prepared = views(trace)
    analysis = analysis_of(trace, prepared=prepared)
    drawn = timeline_data(trace, prepared, analysis.findings, trace_page.passes_shown(analysis))
    return trace_page.page(trace, analysis, drawn, name), analysis


@functools.cache
def of_file(path: Path) -> tuple[Page, Analysis]:
    """The page and the analysis of a file; not to be changed."""
    return shown(read(path), path.name)


def analysis(path: Path) -> Analysis:
    """The analysis of a file."""
    return of_file(path)[1]
