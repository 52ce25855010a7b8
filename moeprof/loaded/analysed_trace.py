"""One trace file, read and analysed once: what a page of one trace and a comparison of two start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moeprof.analysis.device import DeviceView, views
from moeprof.analysis.model import Analysis
from moeprof.loaded.trace import analysis_of
from moeprof.trace import Trace, open_trace


@dataclass(frozen=True)
class AnalysedTrace:
    """A trace under its name; ``views`` are its devices, ``analysis`` is of its whole length, with the findings."""

    name: str
    trace: Trace
    views: tuple[DeviceView, ...]
    analysis: Analysis


def load(path: Path) -> AnalysedTrace:
    """The trace at ``path``, under the name of its file.

    Raises:
        TraceError: it cannot be read.
    """
    with open_trace(path) as trace:
        prepared = views(trace)
        return AnalysedTrace(path.name, trace, prepared, analysis_of(trace, prepared=prepared))
