"""One variant of a study as a row: its clean time, its representative traced iteration, the limit and how near it comes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from moeprof.analysis.model import Copies, Idle, Launch, Ledger, Window
from moeprof.analysis.waterfall import Bar, bars, parts
from moeprof.kernels.roofline import Work, roof, work
from moeprof.loaded.capture import Capture, CapturedVariant, representative
from moeprof.stats import estimates
from moeprof.stats import verdict as verdicts
from moeprof.stats.estimates import Interval
from moeprof.stats.verdict import Verdict
from moeprof.storage.manifest import Manifest

HIGHEST_FRACTION = 1.02  # of the limit: more means that the model of the limit is wrong (docs/reference/metrics.md)
LINKS = {"host": ("D2H", "H2D"), "peer": ("P2P",), "device": ("D2D",)}


@dataclass(frozen=True)
class Limit:
    """The best possible time of one iteration, from the baseline's own solo times."""

    stages: int
    compute_ns: float  # c, one stage's compute
    transfer_ns: float  # x, one stage's transfer
    ideal_ns: float  # max(L c + x, c + L x)

    @property
    def compute_to_transfer(self) -> float:
        """c over x."""
        return self.compute_ns / self.transfer_ns


@dataclass(frozen=True)
class Row:
    """One variant: clean time, its representative traced iteration, and its ratios to the baseline."""

    name: str
    summary: str
    status: str
    reason: str = ""
    proof: str = ""
    proof_ok: bool | None = None
    time_ns: Interval | None = None
    samples: int = 0
    rounds: int = 0  # those that count
    left_out: int = 0  # those that something disturbed
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
    work: Work | None = None  # against a roofline
    facts: dict[str, float | str | tuple[float, ...]] = field(default_factory=dict)

    @property
    def copy_busy_ns(self) -> int:
        """Time in copies, of all directions."""
        return sum(c.busy_ns for c in self.copies)

    @property
    def hidden_copy_ns(self) -> int:
        """Copy time beside compute."""
        return sum(c.overlapped_ns for c in self.copies)

    @property
    def exposed_copy_ns(self) -> int:
        """Copy time during which no kernel runs."""
        return sum(c.exposed_ns for c in self.copies)

    @property
    def host_wait_ns(self) -> int:
        """Time in which the GPU waits for the host: inside launch calls, inside synchronising calls, in host code."""
        return 0 if self.idle is None else self.idle.launch_ns + self.idle.sync_ns + self.idle.host_ns

    @property
    def gpu_work_ns(self) -> int | None:
        """The traced iteration without its idle time."""
        return None if self.traced_ns is None or self.ledger is None else self.traced_ns - self.ledger.idle_ns

    @property
    def parts(self) -> tuple[Bar, ...]:
        """Where the traced iteration goes, the largest part first; empty without a trace."""
        if self.ledger is None or self.idle is None or not self.traced_ns:
            return ()
        spent = parts(self.ledger, self.idle)
        return tuple(sorted(bars(spent, spent), key=lambda b: -b.before_ns))


def pipeline_limit(capture: Capture) -> Limit | None:
    """The pipeline's limit, c and x taken from the sequential baseline's representative iteration."""
    manifest = capture.manifest
    window = representative(capture.variant(manifest.baseline))
    model = manifest.limit or {}
    if window is None or model.get("kind") != "pipeline" or not window.copy_busy_ns:
        return None
    stages = int(manifest.params[model["stages"]])
    c, x = window.compute_busy_ns / stages, window.copy_busy_ns / stages
    return Limit(stages, c, x, max(stages * c + x, c + stages * x))


def make_row(
    variant: CapturedVariant,
    capture: Capture,
    rival: CapturedVariant | None = None,
    paired: bool = True,
    looks: int = 1,
) -> Row:
    """One variant of ``study``: limit, efficiency and compute against the study's own baseline, the verdict against
    ``rival``; ``paired`` where both were timed in the same rounds, ``looks`` as their captures had (manifest.py)."""
    record, baseline = variant.record, capture.variant(capture.manifest.baseline)
    limit, time = pipeline_limit(capture), estimates.interval(times(variant))
    row = Row(
        name=record.name,
        summary=record.summary,
        status=record.status,
        reason=record.reason,
        proof=_proof_text(variant),
        proof_ok=None if record.proof is None else record.proof.ok,
        time_ns=time,
        samples=sum(len(r.times_ns) for r in record.used),
        rounds=len(record.used),
        left_out=verdicts.left_out(record),
        facts=record.facts,
        verdict=None
        if rival is None
        else verdicts.verdict(rival.record, record, looks, paired, tuple(v.record for v in capture.variants)),
    )
    if limit is not None and time is not None and baseline is not None:
        serial = None if baseline is variant else estimates.typical(times(baseline))
        efficiency = _efficiency(serial, time.value, limit.ideal_ns)
        row = replace(row, limit_ratio=_fraction(limit.ideal_ns / time.value), efficiency=efficiency)
    top = roof(capture.manifest, record)
    if top is not None and time is not None:
        achieved = work(variant, top, time.value, representative(variant))
        row = replace(row, limit_ratio=_fraction(top.ideal_ns / time.value), work=achieved)
    return _traced(row, representative(variant), representative(baseline), capture.manifest, record.bytes_moved)


def times(variant: CapturedVariant) -> list[tuple[int, ...]]:
    """The clean times of a variant, round by round, of the rounds that count."""
    return verdicts.times(variant.record.rounds)


def _proof_text(variant: CapturedVariant) -> str:
    proof = variant.record.proof
    if proof is None:
        return ""
    if not proof.ok:
        return f"failed: {proof.reason}"
    if proof.error is None or not (
        proof.error or proof.tolerance
    ):  # equal, or proven by a command: there is no error to show
        return proof.checked
    return f"{proof.checked}; error {proof.error:.1e} of {proof.tolerance:.0e} allowed"


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
    ceiling = manifest.link_ceiling_gb_per_s
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
