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


def load_pair(before: Path, after: Path) -> tuple[AnalysedTrace, AnalysedTrace]:
    """Two traces, under names that differ where their paths do: as many folders as it takes stand before equal file names.

    Raises:
        TraceError: one of them cannot be read.
    """
    parts = [path.resolve().parts for path in (before, after)]
    kept = next((n for n in range(1, min(map(len, parts))) if parts[0][-n:] != parts[1][-n:]), 1)
    names = ["/".join(p[-kept:]) for p in parts]
    return load(before, names[0]), load(after, names[1])


def load(path: Path, name: str | None = None) -> AnalysedTrace:
    """The trace at ``path``, under ``name`` or the name of its file.

    Raises:
        TraceError: it cannot be read.
    """
    with open_trace(path) as trace:
        prepared = views(trace)
        return AnalysedTrace(name or path.name, trace, prepared, analysis_of(trace, prepared=prepared))
