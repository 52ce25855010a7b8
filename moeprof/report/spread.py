"""The table of many traces for the terminal: bounded, with the spread of all; failures are all named first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from moeprof.metrics.tracerow import TraceRow
from moeprof.report import format as fmt
from moeprof.report.tables import Table
from moeprof.report.text import rendered, rich_table

MOST_ROWS = 40
MOST_FAILURES = 12
SHARES = (
    ("compute", "compute_ns"), ("exposed comm", "exposed_comm_ns"), ("exposed copy", "exposed_copy_ns"), ("idle", "idle_ns"),
)  # fmt: skip
SPREAD = (("least", 0), ("10 %", 10), ("median", 50), ("90 %", 90), ("most", 100))


def text(folder: str, rows: Sequence[TraceRow], traces: int, failed: int) -> str:
    """The failures, the rows (of very many those that are idle most), the spread."""
    good = [row for row in rows if row.error is None]
    head = f"{folder}: {traces} traces, {len(good)} rows" + (f", {failed} failed" if failed else "")
    parts: list[RenderableType] = [Text(head, style="bold")]
    errors = [row for row in rows if row.error is not None]
    parts += [Text(f"FAILED {row.file}: {row.error}") for row in errors[:MOST_FAILURES]]
    if len(errors) > MOST_FAILURES:
        parts.append(Text(f"... and {len(errors) - MOST_FAILURES} more failures (--json has all)"))
    parts += [rich_table(t) for t in (_table(good), _spread(good)) if t.rows]
    return rendered(Group(*parts))


def _table(rows: Sequence[TraceRow]) -> Table:
    shown, caption = rows, "Traces"
    if len(rows) > MOST_ROWS:
        shown = sorted(rows, key=lambda r: (-_share(r, "idle_ns"), r.file, r.rank or 0))[:MOST_ROWS]
        caption = f"Traces: the {MOST_ROWS} of {len(rows)} that are idle most (--json has all)"
    header = (
        "trace",
        "variant",
        "rank",
        "GPU",
        "span",
        *(name for name, _ in SHARES),
        "comm hidden",
        "copied",
        "kernels",
        "largest findings",
    )
    return Table(caption, header, tuple(_row(row) for row in shown))


def _row(row: TraceRow) -> tuple[str, ...]:
    hidden = (row.hidden_comm_ns or 0) / row.comm_busy_ns if row.comm_busy_ns else None
    return (
        row.file, row.variant or fmt.DASH, fmt.number(row.rank), fmt.number(row.device), fmt.ms(row.span_ns),
        *(fmt.percent(_share(row, part)) for _, part in SHARES), fmt.percent(hidden), fmt.size(row.copy_bytes or None),
        fmt.number(row.kernels), ", ".join(row.findings) or fmt.DASH,
    )  # fmt: skip


def _share(row: TraceRow, part: str) -> float:
    return (getattr(row, part) or 0) / row.span_ns if row.span_ns else 0.0


def _spread(rows: Sequence[TraceRow]) -> Table:
    if len(rows) < 4:
        return Table("", (), ())
    found = [
        (name, fmt.ms(float(np.percentile([r.span_ns or 0 for r in rows], q))), *(fmt.percent(float(np.percentile([_share(r, p) for r in rows], q))) for _, p in SHARES))
        for name, q in SPREAD
    ]  # fmt: skip
    return Table(f"Spread over {len(rows)} rows", ("", "span", *(name for name, _ in SHARES)), tuple(found))
