"""One trace -> its rows of the table of many: the unit of work of ``moeprof analyze DIR``, and its memory on disk.

Nothing of a trace's events leaves this function, so that it can run in any process or machine that sees the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import moeprof
from moeprof import manifest
from moeprof.analysing import analysis_of, opened
from moeprof.codec import decode, dumps
from moeprof.errors import CaptureError, MoeprofError
from moeprof.files import PARTIAL
from moeprof.grouping import traces_in
from moeprof.metrics.analysis import Analysis
from moeprof.metrics.device import views
from moeprof.metrics.tracerow import TraceRow
from moeprof.trace import Trace
from moeprof.trace.classify import COMMUNICATION, communication
from moeprof.trace.origin import in_name, in_ranges
from moeprof.trace.split import Piece, split

FORM = 1  # of what is remembered; a change of the rows' fields or meaning raises it
FINDINGS = 3  # ids of findings that a row names, the largest gain first


@dataclass(frozen=True)
class Unit:
    """A trace file to analyse, and what its capture says of it. Texts and numbers only: it travels to other processes."""

    path: str
    label: str
    variant: str | None = None
    rank: int | None = None
    classes: str | None = None  # a user's file of communication classes
    cache: str | None = None


@dataclass(frozen=True)
class Remembered:
    """What is kept of one trace's content."""

    form: int
    moeprof: str
    rows: tuple[TraceRow, ...]


def units(folder: Path, classes: Path | None, cache: Path | None) -> list[Unit]:
    """All traces in the folder and below it: those that captures name, and files by their names. In order of paths."""
    found: list[Unit] = []
    more = (str(classes.resolve()) if classes else None, str(cache.resolve()) if cache else None)
    for here in sorted([folder, *(p for p in folder.rglob("*") if p.is_dir())]):
        inside = here.relative_to(folder)
        if any(part.startswith(".") or part.endswith(PARTIAL) for part in inside.parts) or _in_capture(here, folder):
            continue
        if (here / manifest.FILE).is_file():
            found += _of_capture(here, folder, more)
            continue
        files = traces_in(here)
        found += [Unit(str(f.resolve()), str(f.relative_to(folder)), None, in_name(f), *more) for f in files]
    return found


def _in_capture(here: Path, folder: Path) -> bool:
    """Whether a folder between ``here`` and ``folder`` is a capture, whose manifest names what counts."""
    between = [p for p in here.parents if p == folder or folder in p.parents]
    return here != folder and any((p / manifest.FILE).is_file() for p in between)


def _of_capture(capture: Path, folder: Path, more: tuple[str | None, str | None]) -> list[Unit]:
    try:
        records = manifest.read(capture).variants
    except CaptureError:  # said by its row
        return [
            Unit(
                str((capture / manifest.FILE).resolve()),
                str((capture / manifest.FILE).relative_to(folder)),
                None,
                None,
                *more,
            )
        ]
    return [
        Unit(str((capture / p.file).resolve()), str((capture / p.file).relative_to(folder)), record.name, p.rank, *more)
        for record in records for p in record.parts if p.kind == "trace"
    ]  # fmt: skip


def rows_of(unit: Unit) -> tuple[TraceRow, ...]:
    """The rows of a trace, remembered or analysed now; one row with an error where it cannot be."""
    try:
        rows = _rows(Path(unit.path), unit)
    except (MoeprofError, OSError, MemoryError) as error:
        return (
            TraceRow(
                unit.label,
                unit.variant,
                unit.rank,
                error=getattr(error, "message", None) or str(error) or type(error).__name__,
            ),
        )
    alone = len(rows) == 1
    return tuple(
        replace(row, file=unit.label, variant=unit.variant, rank=unit.rank if row.rank is None and alone else row.rank)
        for row in rows
    )


def _rows(path: Path, unit: Unit) -> tuple[TraceRow, ...]:
    target = None if unit.cache is None else Path(unit.cache) / f"{key_of(path, unit.classes)}.json"
    known = None if target is None else _remembered(target)
    if known is not None:
        return known
    with opened(path, communication(Path(unit.classes)) if unit.classes else COMMUNICATION) as trace:
        pieces = split(trace)
        ranks = _ranks(trace, pieces)
        rows = tuple(_row(piece, trace, rank) for piece, rank in zip(pieces, ranks, strict=True))
    if not rows:
        raise CaptureError("it holds no GPU work")
    if target is not None:
        _remember(target, Remembered(FORM, moeprof.__version__, rows))
    return rows


def _ranks(trace: Trace, pieces: tuple[Piece, ...]) -> list[int | None]:
    """As the trace tells it; of several processes by the range that they push, else by their order."""
    pushed = in_ranges(trace)
    if len(pieces) == 1:
        return [pushed.get(piece.pid or 0, trace.origin.rank) for piece in pieces]
    return [pushed.get(piece.pid if piece.pid is not None else -1, number) for number, piece in enumerate(pieces)]


def _row(piece: Piece, trace: Trace, rank: int | None) -> TraceRow:
    prepared = views(piece.trace)
    analysis = analysis_of(piece.trace, prepared=prepared)
    window = analysis.windows[0]
    return TraceRow(
        file="",
        rank=rank,
        device=piece.device,
        producer=trace.producer,
        span_ns=window.span_ns,
        **vars(window.ledger),
        comm_busy_ns=window.comm_busy_ns,
        hidden_comm_ns=sum(c.hidden_ns for c in window.communication),
        copy_bytes=sum(c.bytes for c in window.copies),
        kernels=window.launch.kernels,
        launches_known=window.launch.joined,
        sync_calls=window.launch.sync_calls,
        findings=_largest(analysis),
        notes=tuple(n.text for n in analysis.notes if n.severity != "info"),
    )


def _largest(analysis: Analysis) -> tuple[str, ...]:
    ordered = sorted(analysis.findings, key=lambda f: (-f.gain_ns, f.id))
    return tuple(f.id for f in ordered[:FINDINGS])


def key_of(path: Path, classes: str | None) -> str:
    """A name for what a trace holds and how it is judged: its content, the user's classes, this moeprof."""
    whole = hashlib.sha256(f"{FORM} {moeprof.__version__}".encode())
    for file in (path, *((Path(classes),) if classes else ())):
        with file.open("rb") as opened_file:
            whole.update(hashlib.file_digest(opened_file, "sha256").digest())
    return whole.hexdigest()


def _remembered(target: Path) -> tuple[TraceRow, ...] | None:
    """The rows of an earlier run; None where there is none, or it is damaged or of another form."""
    try:
        found = decode(Remembered, json.loads(target.read_text(encoding="utf-8")))
    except (OSError, ValueError, CaptureError):
        return None
    return found.rows if (found.form, found.moeprof) == (FORM, moeprof.__version__) else None


def _remember(target: Path, found: Remembered) -> None:
    """Write whole; two processes with the same content do not meet, since each writes beside it under a name of its own."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}{PARTIAL}")
    try:
        partial.write_text(dumps(found), encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
