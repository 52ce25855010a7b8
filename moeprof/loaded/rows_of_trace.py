"""One trace -> its rows of the table of many: the unit of work of ``moeprof analyze DIR``, and its memory on disk.

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
from moeprof.errors import CaptureError, MoeprofError, TraceError
from moeprof.loaded.trace import analysis_of
from moeprof.loaded.trace_row import TraceRow, row_of
from moeprof.storage.files import PARTIAL
from moeprof.storage.json import decode, dumps
from moeprof.trace import open_trace
from moeprof.trace.classify import COMMUNICATION, communication
from moeprof.trace.discover import TraceFile

FORM = 1  # of what is remembered; a change of the rows' fields or meaning raises it


@dataclass(frozen=True)
class Unit:
    """A trace to analyse and how. Paths and texts only: it travels to other processes."""

    trace: TraceFile
    results: Path  # where rows are remembered
    classes: Path | None  # a user's classes of communication
    moeprof: str  # the command's version


@dataclass(frozen=True)
class Remembered:
    """The rows of one trace's content, as JSON in a file."""

    form: int
    moeprof: str
    rows: tuple[TraceRow, ...]


def rows_of(unit: Unit) -> tuple[TraceRow, ...]:
    """A row for each GPU of a trace, remembered or analysed now; one row with ``error`` where that cannot be."""
    if unit.trace.error is not None:
        return failed(unit, unit.trace.error)
    if unit.moeprof != moeprof.__version__:
        return failed(unit, f"this worker has moeprof {moeprof.__version__}, the command has {unit.moeprof}")
    try:
        rows = _rows(unit)
    except MoeprofError as error:
        return failed(unit, error.message)
    except Exception as error:  # a trace may be broken in any way; its row says how, and the others go on
        return failed(unit, f"{type(error).__name__}: {error}")
    return tuple(replace(row, file=unit.trace.label, variant=unit.trace.variant) for row in rows)


def failed(unit: Unit, error: str) -> tuple[TraceRow, ...]:
    """The one row of a trace that has no numbers."""
    return (TraceRow(unit.trace.label, unit.trace.variant, error=error),)


def _rows(unit: Unit) -> tuple[TraceRow, ...]:
    target = unit.results / f"{_key(unit.trace.path, unit.classes)}.json"
    known = _remembered(target)
    if known is None:
        known = _analysed(unit)
        _remember(target, Remembered(FORM, moeprof.__version__, known))
    return known


def _analysed(unit: Unit) -> tuple[TraceRow, ...]:
    with open_trace(unit.trace.path, communication(unit.classes) if unit.classes else COMMUNICATION) as trace:
        working = [view for view in views(trace) if len(view.ops)]
        if not working:
            raise TraceError(f"{unit.trace.label} holds no GPU work")
        return tuple(row_of(analysis_of(trace, device=view.index, prepared=(view,))) for view in working)


def _key(path: Path, classes: Path | None) -> str:
    """A name for what a trace holds and how it is judged: its content, the user's classes, this moeprof."""
    whole = hashlib.sha256(f"{FORM} {moeprof.__version__}".encode())
    for part in (path, classes):
        if part is not None:
            with part.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _remembered(target: Path) -> tuple[TraceRow, ...] | None:
    """The rows of an earlier run; None where there is none, or the file is damaged."""
    try:
        return decode(Remembered, json.loads(target.read_text(encoding="utf-8"))).rows
    except (FileNotFoundError, ValueError, CaptureError):
        return None


def _remember(target: Path, found: Remembered) -> None:
    """Written whole, beside it under a name of its own: traces of one content may be analysed at the same time."""
    partial = target.with_name(f"{uuid.uuid4().hex}{PARTIAL}")
    try:
        partial.write_text(dumps(found), encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
