"""The table of many traces for the terminal: failures first, then the rows."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from moeprof.loaded.trace_row import TraceRow
from moeprof.report import format as fmt
from moeprof.report.tables import Table
from moeprof.report.text import rendered, rich_table

MOST_ROWS = 40
MOST_FAILURES = 12
SHARES = (
    ("compute", "compute_ns"), ("exposed comm", "exposed_comm_ns"), ("exposed copy", "exposed_copy_ns"), ("idle", "idle_ns"),
)  # fmt: skip
HEADER = (
    "trace", "variant", "GPU", "span", *(name for name, _ in SHARES), "comm hidden", "copied", "kernels", "largest findings",
)  # fmt: skip


def text(folder: str, rows: Sequence[TraceRow], traces: int) -> str:
    """What failed and why; the rows, of very many those that are idle most."""
    good = [row for row in rows if row.error is None]
    errors = [row for row in rows if row.error is not None]
    head = f"{folder}: {traces} traces" + (f", {len(errors)} failed" if errors else "")
    parts: list[RenderableType] = [Text(head, style="bold")]
    parts += [Text(f"FAILED {_named(row)}: {row.error}") for row in errors[:MOST_FAILURES]]
    if len(errors) > MOST_FAILURES:
        parts.append(Text(f"... and {len(errors) - MOST_FAILURES} more failures (--json has all)"))
    parts += [rich_table(_table(good))] if good else []
    return rendered(Group(*parts))


def _named(row: TraceRow) -> str:
    return row.file + (f" ({row.variant})" if row.variant else "")


def _table(rows: Sequence[TraceRow]) -> Table:
    if len(rows) <= MOST_ROWS:
        return Table("Traces, whole length", HEADER, tuple(_row(row) for row in rows))
    shown = sorted(rows, key=lambda row: -_share(row, "idle_ns"))[:MOST_ROWS]
    caption = f"Traces, whole length: the {MOST_ROWS} of {len(rows)} rows that are idle most (--json has all)"
    return Table(caption, HEADER, tuple(_row(row) for row in shown))


def _row(row: TraceRow) -> tuple[str, ...]:
    hidden = row.hidden_comm_ns / row.comm_busy_ns if row.hidden_comm_ns is not None and row.comm_busy_ns else None
    return (
        row.file, row.variant or fmt.DASH, fmt.number(row.device), fmt.ms(row.span_ns),
        *(fmt.percent(_share(row, part)) for _, part in SHARES), fmt.percent(hidden), fmt.size(row.copy_bytes or None),
        fmt.number(row.kernels), ", ".join(row.findings) or fmt.DASH,
    )  # fmt: skip


def _share(row: TraceRow, part: str) -> float:
    return getattr(row, part) / row.span_ns if row.span_ns else 0.0
