"""A capture as loaded for showing: its manifest and, for each variant, what the tools recorded and its analysis.

The seam between measuring and showing: reports take a ``Capture`` and nothing else, so the same capture gives the same
bytes. A file of a variant is read when it is first needed, once; so are its devices, its iterations and its findings.
A single trace file (not a capture) has no Capture: ``loaded.trace`` analyses it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from moeprof.analysis.analyze import analyze, iterations
from moeprof.analysis.device import DeviceView, main_device, views
from moeprof.analysis.model import Analysis, Finding, Window
from moeprof.analysis.unit_windows import unit_windows
from moeprof.errors import CaptureError
from moeprof.findings.find import find
from moeprof.findings.what_if import Scene, scenes_of
from moeprof.loaded.trace import broken_down
from moeprof.storage import manifest
from moeprof.storage.manifest import RUN, Manifest, Part, VariantRecord
from moeprof.trace import Trace, read
from moeprof.trace.ncu.counters import read_counters


@dataclass(frozen=True)
class Recording:
    """What the tools recorded of one variant. Each file is read once, when it is first needed.

    Args:
        trace_file: the export of nsys or the trace of torch.profiler; None where the variant was not traced.
        counters_file: the counters of ncu; None where ncu did not run.
        unit: of a command: the range that is a unit of work, or RUN; "": the worker's iterations.
    """

    trace_file: Path | None = None
    counters_file: Path | None = None
    unit: str = ""

    @cached_property
    def trace(self) -> Trace | None:
        """The trace; None where there is none. Raises TraceError where the file cannot be read."""
        return None if self.trace_file is None else read(self.trace_file)

    @cached_property
    def counters(self) -> pd.DataFrame | None:
        """The COUNTERS table; None where there is none. Raises TraceError where the file cannot be read."""
        return None if self.counters_file is None else read_counters(self.counters_file)

    @cached_property
    def views(self) -> tuple[DeviceView, ...]:
        """The devices of the trace that have work, by index."""
        return () if self.trace is None else views(self.trace)

    @cached_property
    def iterations(self) -> Analysis | None:
        """One window per measured iteration, tiling the measured region of the main device; of a command one window per unit of work.
        None without them."""
        if self.trace is None:
            return None
        if not self.unit:
            return iterations(self.trace, self.views)
        return unit_windows(self.trace, self.views, None if self.unit == RUN else self.unit)

    @cached_property
    def scenes(self) -> tuple[Scene, ...]:
        """What the rules judge on each device of the trace."""
        return () if self.trace is None else scenes_of(self.trace, self.views)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What the built-in rules find in the trace, the largest gain first."""
        return find(self.scenes)

    @cached_property
    def analysis(self) -> Analysis | None:
        """All numbers of the whole trace, with the findings; None without a trace."""
        if self.trace is None:
            return None
        judged = tuple(scene.judged for scene in self.scenes)
        analysis = replace(analyze(self.trace, prepared=self.views), findings=self.findings, judged=judged)
        return broken_down(self.trace, self.scenes, analysis)


@dataclass(frozen=True)
class CapturedVariant:
    """One variant of a capture: its record in the manifest, and what the tools recorded."""

    record: VariantRecord
    recording: Recording = field(default_factory=Recording)

    @property
    def trace(self) -> Trace | None:
        """The variant's trace; None where it has none."""
        return self.recording.trace

    @property
    def counters(self) -> pd.DataFrame | None:
        """The variant's COUNTERS table; None where ncu did not run."""
        return self.recording.counters

    @property
    def views(self) -> tuple[DeviceView, ...]:
        """The devices of the trace that have work, by index."""
        return self.recording.views

    @property
    def main_device(self) -> DeviceView | None:
        """The device that has most of the work: the one whose iterations are analysed. None without work."""
        return main_device(self.views)

    @property
    def iterations(self) -> Analysis | None:
        """One window per measured iteration, tiling the measured region of the main device; None without iterations."""
        return self.recording.iterations

    @property
    def representative(self) -> Window | None:
        """The measured iteration of (lower) median span; None without iterations."""
        if self.iterations is None or not self.iterations.windows:
            return None
        ordered = sorted(self.iterations.windows, key=lambda window: (window.span_ns, window.start_ns))
        return ordered[(len(ordered) - 1) // 2]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the built-in rules find in the trace, the largest gain first; nothing without a trace."""
        return self.recording.findings

    @property
    def analysis(self) -> Analysis | None:
        """All numbers of the whole trace, with the findings, as ``moeprof analyze`` shows them; None without a trace."""
        return self.recording.analysis


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
    """The capture at ``folder``; a ``.partial`` one loads with the parts that were finished. Files are read later, when needed.

    Raises:
        CaptureError: it is no capture, or a part that its manifest names is missing.
    """
    stored = manifest.read(folder)
    return Capture(folder, stored, tuple(_variant(folder, record, stored.unit) for record in stored.variants))


def bare(folder: Path) -> Capture:
    """The capture without its traces and counters: only what its manifest contains, whether or not the parts are there.

    Raises:
        CaptureError: it is no capture.
    """
    stored = manifest.read(folder)
    return Capture(folder, stored, tuple(CapturedVariant(record) for record in stored.variants))


def _variant(folder: Path, record: VariantRecord, unit: str) -> CapturedVariant:
    trace, counters = (_file(folder, record.part(kind)) for kind in ("trace", "counters"))
    return CapturedVariant(record, Recording(trace, counters, unit))


def _file(folder: Path, part: Part | None) -> Path | None:
    if part is None:
        return None
    path = folder / part.file
    if not path.is_file():
        raise CaptureError(f"{folder}: its manifest names {part.file}, which is not there", "capture again")
    return path


def representative(variant: CapturedVariant | None) -> Window | None:
    """The variant's representative iteration; None without a variant or iterations."""
    return None if variant is None else variant.representative
