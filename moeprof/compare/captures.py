"""Two captures -> Comparison: the same variants in capture A, then in capture B. Their rounds were not interleaved."""

from __future__ import annotations

from dataclasses import replace

from moeprof.compare.comparable import unlike
from moeprof.compare.row import Row, make_row
from moeprof.compare.variants import Comparison, explained, notes
from moeprof.errors import CaptureError
from moeprof.kernels import roofline_points
from moeprof.loaded.capture import Capture, CapturedVariant


def compare(before: Capture, after: Capture) -> Comparison:
    """Every common variant has two rows; the verdict is about the optimized variant, or the only common one.

    Raises:
        CaptureError: the two captures have no variant in common that ran in both, or they are of commands and timed unlike things.
    """
    clocks = before.manifest.clock, after.manifest.clock
    if clocks[0] != clocks[1]:
        raise CaptureError(
            f"{before.folder} and {after.folder} timed unlike things: {clocks[0] or 'iterations'}, and {clocks[1] or 'iterations'}",
            "capture both with the same --unit and --time",
        )
    common = [v.record.name for v in before.variants if (o := after.variant(v.record.name)) and _ran(v) and _ran(o)]
    if not common:
        raise CaptureError(
            f"{before.folder} and {after.folder} have no variant in common that ran in both",
            "capture the same workload",
        )
    chosen = before.manifest.optimized if before.manifest.optimized in common else common[-1]
    comparison = Comparison(
        title=f"{before.folder.name} and {after.folder.name}",
        unlike=unlike(before.manifest, after.manifest),
        baseline=f"A: {chosen}",
        optimized=f"B: {chosen}",
        rows=_rows(before, after, common),
        ceilings=after.manifest.ceilings,
        notes=notes(before, ()) + notes(after, ()),
        roofline=roofline_points.together(
            roofline_points.roofline(before, (chosen,), "A: "), roofline_points.roofline(after, (chosen,), "B: ")
        ),
    )
    return explained(comparison, before.variant(chosen), after.variant(chosen))


def _rows(before: Capture, after: Capture, common: list[str]) -> tuple[Row, ...]:
    looks = max(before.manifest.looks, after.manifest.looks)
    rows = []
    for label, capture, rival in (("A", before, None), ("B", after, before)):
        for name in common:
            variant = capture.variant(name)
            assert variant is not None
            row = make_row(variant, capture, rival.variant(name) if rival else None, paired=False, looks=looks)
            rows.append(replace(row, name=f"{label}: {name}"))
    return tuple(rows)


def _ran(variant: CapturedVariant) -> bool:
    return bool(variant.record.rounds) or variant.iterations is not None
