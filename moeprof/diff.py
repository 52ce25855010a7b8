"""Study -> Diff: what changed between variants or captures, by how much, and how far from the limit.

The clean times make the verdict; the traced iteration of median length (the representative one) explains it. The
waterfall walks from one ledger to the other, category by category, and sums exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from moeprof import stats, wording
from moeprof.errors import CaptureError
from moeprof.manifest import Manifest
from moeprof.metrics.analysis import Copies, Idle, Launch, Ledger, Window
from moeprof.notes import Note, note
from moeprof.stats import Interval, Verdict
from moeprof.study import Study, VariantStudy

HIGHEST_FRACTION = 1.02  # of the limit: more means that the model of the limit is wrong (docs/metrics.md)
SLOWED_BY_PROFILER = 1.1
SPREAD_TO_NOTE = 0.10  # torch.utils.benchmark warns at the same spread
LINKS = {"host": ("D2H", "H2D"), "peer": ("P2P",), "device": ("D2D",)}


@dataclass(frozen=True)
class Limit:
    """The best possible time of one iteration, from the baseline's own solo times."""

    stages: int
    compute_ns: float  # c, one stage's compute
    transfer_ns: float  # x, one stage's transfer
    ideal_ns: float  # max(L c + x, c + L x)


@dataclass(frozen=True)
class Row:
    """One variant: clean time, what its representative traced iteration shows, and how it stands to the baseline."""

    name: str
    summary: str
    status: str
    reason: str = ""
    proof: str = ""
    proof_ok: bool | None = None
    time_ns: Interval | None = None
    samples: int = 0
    verdict: Verdict | None = None
    limit_ratio: float | None = None  # ideal / time
    efficiency: float | None = None  # overlap efficiency
    traced_ns: int | None = None
    traced_ratio: float | None = None  # traced / clean
    ledger: Ledger | None = None
    idle: Idle | None = None
    copies: tuple[Copies, ...] = ()
    hidden_ratio: float | None = None  # of the copy time
    link_gb_per_s: float | None = None
    link_ratio: float | None = None  # of the measured ceiling
    link_busy_ratio: float | None = None  # of the traced iteration
    compute_ratio: float | None = None  # compute busy time against the baseline's
    launch: Launch | None = None
    calls: int | None = None
    call_ns: int | None = None


@dataclass(frozen=True)
class Bar:
    """One step of the waterfall; delta_ns = after_ns - before_ns."""

    label: str
    before_ns: int
    after_ns: int
    delta_ns: int


@dataclass(frozen=True)
class Diff:
    """A contrast, ready to be shown."""

    title: str
    baseline: str | None
    optimized: str | None
    rows: tuple[Row, ...]
    waterfall: tuple[Bar, ...] = ()
    limit: Limit | None = None
    ceilings: dict[str, float] = field(default_factory=dict)
    sentence: str = ""
    reasons: tuple[str, ...] = ()
    unlike: tuple[Note, ...] = ()
    notes: tuple[Note, ...] = ()
    schema_version: int = 1

    def row(self, name: str | None) -> Row | None:
        """The row of that name."""
        return next((r for r in self.rows if r.name == name), None)


def contrast(study: Study) -> Diff:
    """Baseline against optimized in one capture; every variant has a row."""
    manifest = study.manifest
    baseline = study.variant(manifest.baseline)
    limit = _limit(manifest, baseline)
    rows = tuple(
        _row(v, baseline, limit, manifest, "" if v.record.name == manifest.baseline else "rounds")
        for v in study.variants
    )
    measured = [r.name for r in rows if r.time_ns is not None]
    optimized = manifest.optimized if manifest.optimized in measured else next(iter(measured[::-1]), None)
    found = Diff(
        title=manifest.name,
        baseline=manifest.baseline if manifest.baseline in measured else None,
        optimized=optimized if optimized != manifest.baseline else None,
        rows=rows,
        limit=limit,
        ceilings=manifest.ceilings,
        notes=_notes(study, rows),
    )
    return _completed(found, study.variant(found.baseline), study.variant(found.optimized))


def contrast_captures(before: Study, after: Study) -> Diff:
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
    for label, study in (("A", before), ("B", after)):
        limit = _limit(study.manifest, study.variant(study.manifest.baseline))
        for name in common:
            variant, reference = study.variant(name), before.variant(name)
            assert variant is not None
            row = _row(variant, reference, limit, study.manifest, "" if label == "A" else "capture")
            rows.append(replace(row, name=f"{label}: {name}"))
    chosen = before.manifest.optimized if before.manifest.optimized in common else common[-1]
    found = Diff(
        title=f"{before.folder.name} and {after.folder.name}",
        baseline=f"A: {chosen}",
        optimized=f"B: {chosen}",
        rows=tuple(rows),
        ceilings=after.manifest.ceilings,
        unlike=unlike(before.manifest, after.manifest),
        notes=_notes(before, ()) + _notes(after, ()),
    )
    return _completed(found, before.variant(chosen), after.variant(chosen))


def _ran(variant: VariantStudy) -> bool:
    return bool(variant.record.rounds) or variant.iterations is not None


def _completed(found: Diff, baseline: VariantStudy | None, optimized: VariantStudy | None) -> Diff:
    one, other = representative(baseline), representative(optimized)
    if one is not None and other is not None:
        found = replace(found, waterfall=waterfall(one, other))
    return replace(found, sentence=wording.sentence(found), reasons=wording.reasons(found))


def representative(variant: VariantStudy | None) -> Window | None:
    """The traced iteration of (lower) median span; None without a trace."""
    if variant is None or variant.iterations is None or not variant.iterations.windows:
        return None
    ordered = sorted(variant.iterations.windows, key=lambda w: (w.span_ns, w.start_ns))
    return ordered[(len(ordered) - 1) // 2]


def waterfall(before: Window, after: Window) -> tuple[Bar, ...]:
    """The steps from one window's span to the other's, in the ledger's order, idle by its cause; the sum is exact."""
    pairs = []
    for label, key in (
        ("compute", "compute_ns"),
        ("exposed communication", "exposed_comm_ns"),
        ("exposed copy", "exposed_copy_ns"),
        ("exposed migration", "exposed_migration_ns"),
        ("exposed memset", "exposed_memset_ns"),
    ):
        pairs.append((label, getattr(before.ledger, key), getattr(after.ledger, key)))
    for cause in ("launch", "sync", "host", "dependency", "edge"):
        pairs.append((f"idle: {cause}", getattr(before.idle, f"{cause}_ns"), getattr(after.idle, f"{cause}_ns")))
    bars = tuple(Bar(label, a, b, b - a) for label, a, b in pairs if a or b)
    if before.span_ns + sum(b.delta_ns for b in bars) != after.span_ns:
        raise CaptureError(
            f"the waterfall does not sum: {before.span_ns} to {after.span_ns} ns by {bars}", "report this as a bug"
        )
    return bars


def _limit(manifest: Manifest, baseline: VariantStudy | None) -> Limit | None:
    """The pipeline's limit, c and x taken from the sequential baseline's representative iteration."""
    window = representative(baseline)
    model = manifest.limit or {}
    if window is None or model.get("kind") != "pipeline" or not window.copy_busy_ns:
        return None
    stages = int(manifest.params[model["stages"]])
    c, x = window.compute_busy_ns / stages, window.copy_busy_ns / stages
    return Limit(stages, c, x, max(stages * c + x, c + stages * x))


def _row(
    variant: VariantStudy,
    baseline: VariantStudy | None,
    limit: Limit | None,
    manifest: Manifest,
    against: str = "rounds",
) -> Row:
    """``against``: "rounds" compares with the baseline round by round, "capture" with another capture, "" with nothing."""
    record = variant.record
    rounds = [r.times_ns for r in record.rounds]
    reference = [r.times_ns for r in baseline.record.rounds] if baseline is not None else []
    time = stats.interval(rounds)
    proof = record.proof
    row = Row(
        name=record.name,
        summary=record.summary,
        status=record.status,
        reason=record.reason,
        proof=_proof_text(variant),
        proof_ok=None if proof is None else proof.ok,
        time_ns=time,
        samples=len(record.times_ns),
        verdict=stats.verdict(reference, rounds, against == "rounds") if against else None,
    )
    serial = stats.typical(reference)
    if limit is not None and time is not None:
        row = replace(
            row,
            limit_ratio=_fraction(limit.ideal_ns / time.value),
            efficiency=_efficiency(serial, time.value, limit.ideal_ns),
        )
    return _traced(row, representative(variant), representative(baseline), manifest, record.bytes_moved)


def _proof_text(variant: VariantStudy) -> str:
    proof = variant.record.proof
    if proof is None:
        return ""
    if not proof.ok:
        return f"failed: {proof.reason}"
    error = "-" if proof.error is None else f"{proof.error:.1e}"
    return f"{proof.checked}; error {error} of {proof.tolerance:.0e} allowed"


def _fraction(value: float) -> float | None:
    return value if value <= HIGHEST_FRACTION else None


def _efficiency(serial_ns: float | None, time_ns: float, ideal_ns: float) -> float | None:
    """(T_serial - T) / (T_serial - T_ideal); absent where there is nothing to gain."""
    if serial_ns is None or serial_ns <= ideal_ns:
        return None
    return (serial_ns - time_ns) / (serial_ns - ideal_ns)


def _traced(
    row: Row, window: Window | None, baseline: Window | None, manifest: Manifest, bytes_moved: int | None
) -> Row:
    """Add what the representative iteration shows."""
    if window is None:
        return row
    moved = _link_copies(window, manifest)
    busy = sum(c.busy_ns for c in window.copies)
    link_busy = sum(c.busy_ns for c in moved)
    sent = sum(c.bytes for c in moved) or bytes_moved or 0  # CPU operators carry no sizes: then as declared
    speed = sent / link_busy if sent and link_busy else None
    ceiling = manifest.ceilings.get((manifest.limit or {}).get("ceiling", ""))
    return replace(
        row,
        traced_ns=window.span_ns,
        traced_ratio=window.span_ns / row.time_ns.value if row.time_ns else None,
        ledger=window.ledger,
        idle=window.idle,
        copies=window.copies,
        hidden_ratio=sum(c.overlapped_ns for c in window.copies) / busy if busy else None,
        link_gb_per_s=speed,
        link_ratio=_fraction(speed / ceiling) if speed and ceiling else None,
        link_busy_ratio=busy / window.span_ns if busy else None,
        compute_ratio=window.compute_busy_ns / baseline.compute_busy_ns
        if baseline and baseline.compute_busy_ns
        else None,
        launch=window.launch,
        calls=sum(c.count for c in window.launch.calls),
        call_ns=sum(c.total_ns for c in window.launch.calls),
    )


def _link_copies(window: Window, manifest: Manifest) -> tuple[Copies, ...]:
    """The copies over the workload's own link; all of them where it names none."""
    directions = LINKS.get(str(manifest.params.get("link", "")))
    chosen = tuple(c for c in window.copies if directions is None or c.direction in directions)
    return chosen or window.copies


def unlike(before: Manifest, after: Manifest) -> tuple[Note, ...]:
    """What makes two captures unlike: GPU, driver, versions, parameters, device, workload."""

    def facts(manifest: Manifest) -> dict[str, str]:
        gpus = manifest.environment.gpus_before
        return {
            "workload": manifest.name,
            "device": manifest.device,
            "GPU": ", ".join(g.name for g in gpus) or "none",
            "driver": (gpus[0].driver if gpus else None) or "none",
            "torch": manifest.environment.torch or "none",
            "CUDA": manifest.environment.cuda or "none",
            "parameters": ", ".join(f"{k}={v}" for k, v in sorted(manifest.params.items())),
        }

    one, other = facts(before), facts(after)
    return tuple(note("unlike", what=key, before=one[key], after=other[key]) for key in one if one[key] != other[key])


def _notes(study: Study, rows: tuple[Row, ...]) -> tuple[Note, ...]:
    """The manifest's notes, the traces' and those that the numbers give."""
    found = list(study.manifest.notes)
    for variant in study.variants:
        found += [n for n in (variant.iterations.notes if variant.iterations else ()) if n not in found]
        wide = stats.spread([r.times_ns for r in variant.record.rounds])
        if wide is not None and wide > SPREAD_TO_NOTE:
            found.append(note("spread-high", variant=variant.record.name, spread_percent=100 * wide))
    for row in rows:
        if row.traced_ratio is not None and row.traced_ratio > SLOWED_BY_PROFILER:
            found.append(note("traced-slower", variant=row.name, ratio=row.traced_ratio))
    return tuple(found)
