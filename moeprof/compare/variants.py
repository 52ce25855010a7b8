"""Capture -> Comparison: what the variants of one capture take, by how much they differ, and how far they are from the limit.

The clean times make the verdict; the traced iteration of median length (the representative iteration) explains it. The
waterfall leads from one ledger to the other, category by category, and sums exactly. Numbers only: moeprof.report has the words.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from moeprof.analysis.model import Window
from moeprof.analysis.waterfall import Bar, bars, parts
from moeprof.compare import counters
from moeprof.compare.counters import CounterComparison
from moeprof.compare.row import Limit, Row, make_row, pipeline_limit
from moeprof.errors import CaptureError
from moeprof.kernels import roofline_points
from moeprof.kernels.roofline import Roof, roof
from moeprof.kernels.roofline_points import Roofline
from moeprof.loaded.capture import Capture, CapturedVariant, representative
from moeprof.notes import Note, note
from moeprof.stats import estimates, verdict

SLOWED_BY_PROFILER = 1.1  # traced over clean time, from which a note says so
CLOCK_FELL = 0.97  # the lowest SM clock seen after a round over the highest, from which a note says so
SPREAD_TO_NOTE = 0.10  # torch.utils.benchmark warns at the same spread


@dataclass(frozen=True)
class Comparison:
    """The numbers of a report: a row for each variant, and ``optimized`` against ``baseline`` where both ran.

    ``unlike`` is what differs between two captures besides the variant; every output shows it before any number.
    """

    title: str
    unlike: tuple[Note, ...]
    baseline: str | None
    optimized: str | None
    rows: tuple[Row, ...]
    waterfall: tuple[Bar, ...] = ()
    limit: Limit | None = None
    roof: Roof | None = None
    ceilings: dict[str, float] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    roofline: Roofline = field(default_factory=Roofline)
    counted: CounterComparison | None = None
    schema_version: int = 1

    def row(self, name: str | None) -> Row | None:
        """The row of that name."""
        return next((r for r in self.rows if r.name == name), None)

    @property
    def traced_delta_ns(self) -> int:
        """How much longer the traced iteration of the optimized variant is than the baseline's."""
        return sum(b.delta_ns for b in self.waterfall)

    @property
    def largest_step(self) -> Bar | None:
        """The step of the waterfall that contributes most to the difference."""
        sign = -1 if self.traced_delta_ns < 0 else 1
        return max(self.waterfall, key=lambda b: sign * b.delta_ns, default=None)


def compare(capture: Capture) -> Comparison:
    """Baseline against optimized variant of one capture; every variant has a row."""
    manifest = capture.manifest
    baseline = capture.variant(manifest.baseline)
    rows = tuple(
        make_row(v, capture, None if v is baseline else baseline, looks=manifest.looks) for v in capture.variants
    )
    measured = [r.name for r in rows if r.time_ns is not None]
    optimized = manifest.optimized if manifest.optimized in measured else next(iter(measured[::-1]), None)
    comparison = Comparison(
        title=manifest.name,
        unlike=(),
        baseline=manifest.baseline if manifest.baseline in measured else None,
        optimized=optimized if optimized != manifest.baseline else None,
        rows=rows,
        limit=pipeline_limit(capture),
        roof=roof(manifest, None if baseline is None else baseline.record),
        ceilings=manifest.ceilings,
        notes=notes(capture, rows),
        roofline=roofline_points.roofline(capture),
    )
    return explained(comparison, capture.variant(comparison.baseline), capture.variant(comparison.optimized))


def explained(
    comparison: Comparison, baseline: CapturedVariant | None, optimized: CapturedVariant | None
) -> Comparison:
    """The comparison with the waterfall and the counters of its two sides, where both have them."""
    before, after = representative(baseline), representative(optimized)
    steps = () if before is None or after is None else waterfall(before, after)
    counted = counters.compare(baseline, optimized, (comparison.baseline, comparison.optimized))
    return replace(comparison, waterfall=steps, counted=counted)


def waterfall(before: Window, after: Window) -> tuple[Bar, ...]:
    """The steps from one window's span to the other's, in the ledger's order, idle time by cause; the sum is exact.

    Raises:
        CaptureError: the steps do not sum; this is a bug.
    """
    steps = bars(parts(before.ledger, before.idle), parts(after.ledger, after.idle))
    if before.span_ns + sum(b.delta_ns for b in steps) != after.span_ns:
        raise CaptureError(
            f"the waterfall does not sum: {before.span_ns} to {after.span_ns} ns by {steps}", "report this as a bug"
        )
    return steps


def notes(capture: Capture, rows: tuple[Row, ...]) -> tuple[Note, ...]:
    """The notes of the manifest and of the traces, and those that the numbers give."""
    noted = list(capture.manifest.notes)
    for variant in capture.variants:
        noted += [n for n in (variant.iterations.notes if variant.iterations else ()) if n not in noted]
        wide = estimates.spread(verdict.times(variant.record.rounds))
        if wide is not None and wide > SPREAD_TO_NOTE:
            noted.append(note("spread-high", variant=variant.record.name, spread_percent=100 * wide))
    noted += _clock_notes(capture)
    for row in rows:
        if row.traced_ratio is not None and row.traced_ratio > SLOWED_BY_PROFILER:
            noted.append(note("traced-slower", variant=row.name, ratio=row.traced_ratio))
    return tuple(noted)


def _clock_notes(capture: Capture) -> list[Note]:
    """A GPU that lowered its clock while the variants were timed, and the reason that it reports."""
    states = [r.gpu for v in capture.variants for r in v.record.used if r.gpu is not None and r.gpu.sm_clock_mhz]
    clocks = [gpu.sm_clock_mhz or 0 for gpu in states]
    if not clocks or min(clocks) >= CLOCK_FELL * max(clocks):
        return []
    reasons = sorted({reason for gpu in states for reason in gpu.throttle_reasons})
    return [
        note(
            "clocks-fell",
            before_mhz=max(clocks),
            after_mhz=min(clocks),
            reasons=", ".join(reasons) or "no reason given",
        )
    ]
