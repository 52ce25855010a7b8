"""Capture -> Diff: what changed between variants or captures, by how much, and how far from the limit.

The clean times make the verdict; the traced iteration of median length (the representative one) explains it. The
waterfall walks from one ledger to the other, category by category, and sums exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import median

from moeprof.analysis.model import Window
from moeprof.analysis.waterfall import Bar, bars, parts
from moeprof.compare import counters
from moeprof.compare.counters import CounterDiff
from moeprof.compare.row import Limit, Row, make_row, pipeline_limit
from moeprof.errors import CaptureError
from moeprof.kernels import roofline_points
from moeprof.kernels.roofline import Roof, roof
from moeprof.kernels.roofline_points import Roofline
from moeprof.loaded.capture import Capture, CapturedVariant, representative
from moeprof.notes import Note, note
from moeprof.report.narrative import sentences
from moeprof.report.narrative import summary as closing
from moeprof.stats import estimates, verdict
from moeprof.storage.manifest import Manifest, VariantRecord

SLOWED_BY_PROFILER = 1.1
CLOCK_FELL = 0.97  # the lowest SM clock seen after a round against the highest
CLOCKS_APART = 0.03  # median SM clocks of one variant in two captures, from which the captures are unlike
SPREAD_TO_NOTE = 0.10  # torch.utils.benchmark warns at the same spread


@dataclass(frozen=True)
class Diff:
    """A contrast, ready to be shown. What makes its sides unlike stands before any number."""

    title: str
    unlike: tuple[Note, ...]
    baseline: str | None
    optimized: str | None
    rows: tuple[Row, ...]
    waterfall: tuple[Bar, ...] = ()
    limit: Limit | None = None
    roof: Roof | None = None
    ceilings: dict[str, float] = field(default_factory=dict)
    sentence: str = ""
    reasons: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    roofline: Roofline = field(default_factory=Roofline)
    counted: CounterDiff | None = None
    closing: tuple[str, ...] = ()
    schema_version: int = 1

    def row(self, name: str | None) -> Row | None:
        """The row of that name."""
        return next((r for r in self.rows if r.name == name), None)


def contrast(study: Capture) -> Diff:
    """Baseline against optimized in one capture; every variant has a row."""
    manifest = study.manifest
    baseline = study.variant(manifest.baseline)
    looks = manifest.looks
    rows = tuple(make_row(v, study, None if v is baseline else baseline, looks=looks) for v in study.variants)
    measured = [r.name for r in rows if r.time_ns is not None]
    optimized = manifest.optimized if manifest.optimized in measured else next(iter(measured[::-1]), None)
    found = Diff(
        title=manifest.name,
        unlike=(),
        baseline=manifest.baseline if manifest.baseline in measured else None,
        optimized=optimized if optimized != manifest.baseline else None,
        rows=rows,
        limit=pipeline_limit(study),
        roof=roof(manifest, None if baseline is None else baseline.record),
        ceilings=manifest.ceilings,
        notes=_notes(study, rows),
        roofline=roofline_points.roofline(study),
    )
    return _completed(found, study.variant(found.baseline), study.variant(found.optimized))


def contrast_captures(before: Capture, after: Capture) -> Diff:
    """The same variant in two captures (the optimized one, or the only one): A, then B. Their rounds were not interleaved.

    Raises:
        CaptureError: the two captures have no variant in common that ran in both.
    """
    common = [v.record.name for v in before.variants if (o := after.variant(v.record.name)) and _ran(v) and _ran(o)]
    if not common:
        raise CaptureError(
            f"{before.folder} and {after.folder} have no variant in common that ran in both",
            "capture the same workload",
        )
    rows = []
    for label, study, other in (("A", before, None), ("B", after, before)):
        for name in common:
            variant = study.variant(name)
            assert variant is not None
            looks = max(before.manifest.looks, after.manifest.looks)
            row = make_row(variant, study, other.variant(name) if other else None, paired=False, looks=looks)
            rows.append(replace(row, name=f"{label}: {name}"))
    chosen = before.manifest.optimized if before.manifest.optimized in common else common[-1]
    found = Diff(
        title=f"{before.folder.name} and {after.folder.name}",
        unlike=unlike(before.manifest, after.manifest),
        baseline=f"A: {chosen}",
        optimized=f"B: {chosen}",
        rows=tuple(rows),
        ceilings=after.manifest.ceilings,
        notes=_notes(before, ()) + _notes(after, ()),
        roofline=roofline_points.together(
            roofline_points.roofline(before, (chosen,), "A: "), roofline_points.roofline(after, (chosen,), "B: ")
        ),
    )
    return _completed(found, before.variant(chosen), after.variant(chosen))


def _ran(variant: CapturedVariant) -> bool:
    return bool(variant.record.rounds) or variant.iterations is not None


def _completed(found: Diff, baseline: CapturedVariant | None, optimized: CapturedVariant | None) -> Diff:
    one, other = representative(baseline), representative(optimized)
    if one is not None and other is not None:
        found = replace(found, waterfall=waterfall(one, other))
    found = replace(found, counted=counters.contrast(baseline, optimized, (found.baseline, found.optimized)))
    found = replace(found, sentence=sentences.sentence(found), reasons=sentences.reasons(found))
    return replace(found, closing=closing.closing(found))


def waterfall(before: Window, after: Window) -> tuple[Bar, ...]:
    """The steps from one window's span to the other's, in the ledger's order, idle by its cause; the sum is exact."""
    found = bars(parts(before.ledger, before.idle), parts(after.ledger, after.idle))
    if before.span_ns + sum(b.delta_ns for b in found) != after.span_ns:
        raise CaptureError(
            f"the waterfall does not sum: {before.span_ns} to {after.span_ns} ns by {found}", "report this as a bug"
        )
    return found


def unlike(before: Manifest, after: Manifest) -> tuple[Note, ...]:
    """What makes two captures unlike: workload, parameters, hardware and its state, software; then the checkout, by a note
    of its own, since two states of the code may be what is to be compared."""
    one, other = _facts(before), _facts(after)
    one, other = ({key: side.get(key, "none") for key in {**one, **other}} for side in (one, other))
    found = [note("unlike", what=key, before=one[key], after=other[key]) for key in one if one[key] != other[key]]
    found += _clocks_apart(before, after)
    if before.git != after.git:
        found.append(note("unlike-code", before=before.git or "none", after=after.git or "none"))
    return tuple(found)


def apart(before: Manifest, after: Manifest) -> tuple[Note, ...]:
    """What forbids to compare times of two captures: as ``unlike``, the checkout left out."""
    return tuple(n for n in unlike(before, after) if n.id == "unlike")


def _facts(manifest: Manifest) -> dict[str, str]:
    """What must be equal for two captures to be alike. A state that a capture does not hold (an older one) is left out."""
    e, gpus = manifest.environment, manifest.environment.gpus_before
    facts = {
        "workload": manifest.name,
        "device": manifest.device,
        "GPU": ", ".join(g.name for g in gpus) or "none",
        "driver": (gpus[0].driver if gpus else None) or "none",
        "torch": e.torch or "none",
        "CUDA": e.cuda or "none",
        "CPU": f"{e.cpu}, {e.cpus} cores",
        "Python": e.python,
        "moeprof": e.moeprof,
    }
    facts |= {f"package {name}": version for name, version in sorted(e.packages.items()) if name != "torch"}
    return facts | {f"parameter {key}": str(value) for key, value in sorted(manifest.params.items())}


def _states_apart(before: Manifest, after: Manifest) -> list[Note]:
    """Settings of the GPUs that both captures hold and that differ."""
    found = []
    pairs = zip(before.environment.gpus_before, after.environment.gpus_before, strict=False)
    for one, other in pairs:
        for what, key in (("ECC", "ecc"), ("MIG", "mig"), ("power limit (W)", "power_limit_w")):
            values = getattr(one, key), getattr(other, key)
            if None not in values and values[0] != values[1]:
                found.append(note("unlike", what=what, before=_said(values[0]), after=_said(values[1])))
    return found


def _said(value: bool | float) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else f"{value:g}"


def _clocks_apart(before: Manifest, after: Manifest) -> list[Note]:
    """Settings and clocks: the median clock of each common variant's rounds that count."""
    found = _states_apart(before, after)
    for record in before.variants:
        other = after.variant(record.name)
        for what, key in (("SM clock", "sm_clock_mhz"), ("memory clock", "memory_clock_mhz")):
            one, two = (_clock(r, key) for r in (record, other))
            if one and two and abs(one / two - 1) > CLOCKS_APART:
                where = f"the {what} while {record.name} was timed (MHz)"
                found.append(note("unlike", what=where, before=f"{one:.0f}", after=f"{two:.0f}"))
    return found


def _clock(record: VariantRecord | None, key: str) -> float | None:
    values = [v for r in (record.used if record else ()) if r.gpu is not None and (v := getattr(r.gpu, key))]
    return median(values) if values else None


def _notes(study: Capture, rows: tuple[Row, ...]) -> tuple[Note, ...]:
    """The manifest's notes, the traces' and those that the numbers give."""
    found = list(study.manifest.notes)
    for variant in study.variants:
        found += [n for n in (variant.iterations.notes if variant.iterations else ()) if n not in found]
        wide = estimates.spread(verdict.times(variant.record.rounds))
        if wide is not None and wide > SPREAD_TO_NOTE:
            found.append(note("spread-high", variant=variant.record.name, spread_percent=100 * wide))
    found += _clock_notes(study)
    for row in rows:
        if row.traced_ratio is not None and row.traced_ratio > SLOWED_BY_PROFILER:
            found.append(note("traced-slower", variant=row.name, ratio=row.traced_ratio))
    return tuple(found)


def _clock_notes(study: Capture) -> list[Note]:
    """A GPU that lowered its clock while the variants were timed, and why it says it did."""
    states = [r.gpu for v in study.variants for r in v.record.used if r.gpu is not None and r.gpu.sm_clock_mhz]
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
