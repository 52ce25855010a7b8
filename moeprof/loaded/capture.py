"""A capture as loaded for showing: its manifest, and for each variant its trace and the analysis of its iterations.

The seam between measuring and showing: reports take a ``Capture`` and nothing else, so the same capture gives the same
bytes. A single trace file (not a capture) has no Capture; ``moeprof analyze`` shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from moeprof.analysis.analyze import iterations
from moeprof.analysis.model import Analysis, Window
from moeprof.errors import CaptureError
from moeprof.storage import manifest
from moeprof.storage.manifest import Manifest, Part, VariantRecord
from moeprof.trace import Trace, read
from moeprof.trace.ncu.counters import read_counters


@dataclass(frozen=True)
class CapturedVariant:
    """One variant of a capture. ``iterations`` holds one window per measured iteration (its main device's), tiling the
    measured region; ``trace`` and ``iterations`` are None where there is no trace, ``counters`` where ncu did not run.
    """

    record: VariantRecord
    trace: Trace | None
    iterations: Analysis | None
    counters: pd.DataFrame | None


@dataclass(frozen=True)
class Capture:
    """A loaded capture."""

    folder: Path
    manifest: Manifest
    variants: tuple[CapturedVariant, ...]

    def variant(self, name: str | None) -> CapturedVariant | None:
        """The variant of that name, if the capture has it."""
        return next((v for v in self.variants if v.record.name == name), None)


def load(folder: Path) -> Capture:
    """The study of the capture at ``folder``; a ``.partial`` one loads with the parts that were finished.

    Raises:
        CaptureError: it is no capture, or a part that its manifest names is missing.
        TraceError: a part cannot be read.
    """
    found = manifest.read(folder)
    return Capture(folder, found, tuple(_variant(folder, record) for record in found.variants))


def bare(folder: Path) -> Capture:
    """The study of a capture without its traces and counters: what its manifest alone tells, read in no time.

    Raises:
        CaptureError: it is no capture.
    """
    found = manifest.read(folder)
    return Capture(folder, found, tuple(CapturedVariant(record, None, None, None) for record in found.variants))


def _variant(folder: Path, record: VariantRecord) -> CapturedVariant:
    trace_part, counters_part = record.part("trace"), record.part("counters")
    trace = read(_existing(folder, trace_part)) if trace_part else None
    counters = read_counters(_existing(folder, counters_part)) if counters_part else None
    return CapturedVariant(record, trace, iterations(trace) if trace else None, counters)


def _existing(folder: Path, part: Part) -> Path:
    path = folder / part.file
    if not path.is_file():
        raise CaptureError(f"{folder}: its manifest names {part.file}, which is not there", "capture again")
    return path


def representative(variant: CapturedVariant | None) -> Window | None:
    """The traced iteration of (lower) median span; None without a trace."""
    if variant is None or variant.iterations is None or not variant.iterations.windows:
        return None
    ordered = sorted(variant.iterations.windows, key=lambda w: (w.span_ns, w.start_ns))
    return ordered[(len(ordered) - 1) // 2]
