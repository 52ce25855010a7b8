"""The page of many traces: failures first, then a row for each trace."""

from __future__ import annotations

from collections.abc import Sequence

from moeprof import units
from moeprof.loaded.trace_row import TraceRow
from moeprof.report.page import Page, Paragraph, Section, Table

MOST_ROWS = 40
MOST_FAILURES = 12
SHARES = (
    ("compute", "compute_ns"), ("exposed comm", "exposed_comm_ns"), ("exposed copy", "exposed_copy_ns"), ("idle", "idle_ns"),
)  # fmt: skip
HEADER = (
    "trace", "variant", "GPU", "span", *(name for name, _ in SHARES), "comm hidden", "copied", "kernels", "largest findings",
)  # fmt: skip


def page(folder: str, rows: Sequence[TraceRow], traces: int) -> Page:
    """What failed and why; the rows, of very many those that are idle most."""
    good = [row for row in rows if row.error is None]
    errors = [row for row in rows if row.error is not None]
    lines = [f"FAILED {_named(row)}: {row.error}" for row in errors[:MOST_FAILURES]]
    if len(errors) > MOST_FAILURES:
        lines.append(f"... and {len(errors) - MOST_FAILURES} more failures (--json has all)")
    above = tuple(Paragraph(line, detail="summary") for line in lines)
    title = f"{folder}: {traces} traces" + (f", {len(errors)} failed" if errors else "")
    return Page(title, "", (Section("traces", above=above, tables=(_table(good),) if good else ()),))


def _named(row: TraceRow) -> str:
    return row.file + (f" ({row.variant})" if row.variant else "")


def _table(rows: Sequence[TraceRow]) -> Table:
    if len(rows) <= MOST_ROWS:
        return Table("Traces, whole length", HEADER, tuple(_row(row) for row in rows), detail="summary")
    shown = sorted(rows, key=lambda row: -_share(row, "idle_ns"))[:MOST_ROWS]
    caption = f"Traces, whole length: the {MOST_ROWS} of {len(rows)} rows that are idle most (--json has all)"
    return Table(caption, HEADER, tuple(_row(row) for row in shown), detail="summary")


def _row(row: TraceRow) -> tuple[str, ...]:
    hidden = row.hidden_comm_ns / row.comm_busy_ns if row.hidden_comm_ns is not None and row.comm_busy_ns else None
    return (
        row.file, row.variant or units.DASH, units.number(row.device), units.ms(row.span_ns),
        *(units.percent(_share(row, part)) for _, part in SHARES), units.percent(hidden), units.size(row.copy_bytes or None),
        units.number(row.kernels), ", ".join(row.findings) or units.DASH,
    )  # fmt: skip


def _share(row: TraceRow, part: str) -> float:
    return getattr(row, part) / row.span_ns if row.span_ns else 0.0
