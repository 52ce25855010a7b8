"""One row of the table of many traces: ``moeprof analyze DIR``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TraceRow:
    """The main numbers of one rank (a process's work on one GPU) of one trace, over its whole length. ns and bytes."""

    file: str
    variant: str | None = None
    rank: int | None = None
    device: int | None = None
    producer: str | None = None
    span_ns: int | None = None
    compute_ns: int | None = None
    exposed_comm_ns: int | None = None
    exposed_copy_ns: int | None = None
    exposed_migration_ns: int | None = None
    exposed_memset_ns: int | None = None
    idle_ns: int | None = None
    comm_busy_ns: int | None = None
    hidden_comm_ns: int | None = None
    copy_bytes: int | None = None
    kernels: int | None = None
    launches_known: int | None = None  # kernels that join to a launch call
    sync_calls: int | None = None
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None
