"""A capture as loaded for showing: its manifest, and for each variant its trace and the analysis of its iterations.

The seam between measuring and showing: reports take a ``Study`` and nothing else, so the same capture gives the same
bytes. A single trace file (not a capture) has no Study; ``moeprof analyze`` shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from moeprof.manifest import Manifest, VariantRecord
from moeprof.metrics.analysis import Analysis
from moeprof.trace import Trace


@dataclass(frozen=True)
class VariantStudy:
    """One variant of a capture. ``iterations`` holds one window per measured iteration (its main device's), tiling the
    measured region; ``trace`` and ``iterations`` are None where there is no trace, ``counters`` where ncu did not run.
    """

    record: VariantRecord
    trace: Trace | None
    iterations: Analysis | None
    counters: pd.DataFrame | None


@dataclass(frozen=True)
class Study:
    """A loaded capture."""

    folder: Path
    manifest: Manifest
    variants: tuple[VariantStudy, ...]

    def variant(self, name: str | None) -> VariantStudy | None:
        """The variant of that name, if the capture has it."""
        return next((v for v in self.variants if v.record.name == name), None)
