"""One row per GPU of a trace: the unit of work of ``moeprof analyze DIR``, and its cache on disk.

Nothing of a trace's events leaves ``rows_of``, so that it can run in any process or machine that sees the file.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import moeprof
from moeprof.analysis.device import views
from moeprof.analysis.model import Analysis
from moeprof.errors import CaptureError, MoeprofError, TraceError
from moeprof.loaded.trace import analysis_of
from moeprof.storage.files import PARTIAL
from moeprof.storage.json import decode, dumps
from moeprof.trace import open_trace
from moeprof.trace.classify import COMMUNICATION, communication
from moeprof.trace.discover import TraceFile

FORM = 1  # of the cached rows; a change of their fields or meaning raises it
FINDINGS = 3  # ids of findings that a row names, the largest gain first


@dataclass(frozen=True)
class TraceRow:
    """The main numbers of one GPU of one trace over its whole length, in ns and bytes; for a failed trace only ``error``."""

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


@dataclass(frozen=True)
class TraceTask:
    """A trace to analyse. Only paths and texts, since other processes receive it."""

    trace: TraceFile
    results: Path  # the folder of cached rows
    classes: Path | None  # a user's file of classes of communication
    moeprof: str  # the version of the command


@dataclass(frozen=True)
class CachedRows:
    """The rows of one trace's content, as a JSON file."""

    form: int
    moeprof: str
    rows: tuple[TraceRow, ...]


def rows_of(task: TraceTask) -> tuple[TraceRow, ...]:
    """A row for each GPU of a trace, from the cache or analysed now; one row with ``error`` where the analysis fails."""
    if task.trace.error is not None:
        return failed(task, task.trace.error)
    if task.moeprof != moeprof.__version__:
        return failed(task, f"this worker has moeprof {moeprof.__version__}, the command has {task.moeprof}")
    try:
        rows = _rows(task)
    except MoeprofError as error:
        return failed(task, error.message)
    except Exception as error:  # a trace may be broken in any way; its row reports it, and the others go on
        return failed(task, f"{type(error).__name__}: {error}")
    return tuple(replace(row, file=task.trace.label, variant=task.trace.variant) for row in rows)


def failed(task: TraceTask, error: str) -> tuple[TraceRow, ...]:
    """The row of a trace without numbers."""
    return (TraceRow(task.trace.label, task.trace.variant, error=error),)


def _rows(task: TraceTask) -> tuple[TraceRow, ...]:
    target = task.results / f"{_key(task.trace.path, task.classes)}.json"
    rows = _cached(target)
    if rows is None:
        rows = _analysed(task)
        _cache(target, CachedRows(FORM, moeprof.__version__, rows))
    return rows


def _analysed(task: TraceTask) -> tuple[TraceRow, ...]:
    with open_trace(task.trace.path, communication(task.classes) if task.classes else COMMUNICATION) as trace:
        working = [view for view in views(trace) if len(view.ops)]
        if not working:
            raise TraceError(f"{task.trace.label} contains no GPU work")
        return tuple(row_of(analysis_of(trace, device=view.index, prepared=(view,), details=False)) for view in working)


def _key(path: Path, classes: Path | None) -> str:
    """The key of the cache: the trace's content, the user's classes and moeprof's version."""
    whole = hashlib.sha256(f"{FORM} {moeprof.__version__}".encode())
    for part in (path, classes):
        if part is not None:
            with part.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _cached(target: Path) -> tuple[TraceRow, ...] | None:
    """The rows of an earlier run; None without one, or where the file is damaged."""
    try:
        return decode(CachedRows, json.loads(target.read_text(encoding="utf-8"))).rows
    except (FileNotFoundError, ValueError, CaptureError):
        return None


def _cache(target: Path, rows: CachedRows) -> None:
    """Write the file whole, under a temporary name first: equal traces may be analysed at the same time."""
    partial = target.with_name(f"{uuid.uuid4().hex}{PARTIAL}")
    try:
        partial.write_text(dumps(rows), encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def row_of(analysis: Analysis) -> TraceRow:
    """The row of the analysis of one device over the whole trace. The caller adds the file and the variant."""
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
