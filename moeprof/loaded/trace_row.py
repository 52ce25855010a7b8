"""One row of the table of many traces: ``moeprof analyze DIR``."""

from __future__ import annotations

from dataclasses import dataclass

from moeprof.analysis.model import Analysis

FINDINGS = 3  # ids of findings that a row names, the largest gain first


@dataclass(frozen=True)
class TraceRow:
    """The main numbers of one GPU of one trace over its whole length, in ns and bytes; of a failed trace ``error`` alone."""

    file: str  # below the folder
    variant: str | None = None  # of a capture
    device: int | None = None
    producer: str | None = None
    span_ns: int | None = None
    compute_ns: int | None = None  # this and the next five are the ledger: they sum to span_ns
    exposed_comm_ns: int | None = None
    exposed_copy_ns: int | None = None
    exposed_migration_ns: int | None = None
    exposed_memset_ns: int | None = None
    idle_ns: int | None = None
    comm_busy_ns: int | None = None
    hidden_comm_ns: int | None = None  # of comm_busy_ns: under compute
    copy_bytes: int | None = None
    kernels: int | None = None
    sync_calls: int | None = None
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # warnings
    error: str | None = None


def row_of(analysis: Analysis) -> TraceRow:
    """The row of the analysis of one device over the whole trace; whose file it is, the caller says."""
    (window,) = analysis.windows
    return TraceRow(
        file="",
        device=window.device,
        producer=analysis.source.producer,
        span_ns=window.span_ns,
        **vars(window.ledger),
        comm_busy_ns=window.comm_busy_ns,
        hidden_comm_ns=window.comm_busy_ns - window.ledger.exposed_comm_ns,
        copy_bytes=sum(c.bytes for c in window.copies),
        kernels=window.launch.kernels,
        sync_calls=window.launch.sync_calls,
        findings=tuple(f.id for f in analysis.findings[:FINDINGS]),
        notes=tuple(n.text for n in analysis.notes if n.severity != "info"),
    )
