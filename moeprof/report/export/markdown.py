"""Diff -> Markdown: the report's sentences and tables, for an issue or a review."""

from __future__ import annotations

from moeprof.compare.variants import Diff
from moeprof.report import tables, worktables
from moeprof.report.gate_formats.checked import escaped
from moeprof.report.tables import Table


def render(diff: Diff) -> str:
    """The verdict, the variants, why, where the time went, and the warnings."""
    found = [
        tables.variants(diff),
        *worktables.tables(diff),
        *([tables.waterfall(diff)] if diff.waterfall else []),
        tables.copies(diff),
        tables.launches(diff),
    ]
    parts = [f"## {escaped(diff.title)}", plain(diff.sentence), *(table(t) for t in found if t.rows)]
    listed = [f"- {plain(reason)}" for reason in diff.reasons]
    warned = [f"- {n.severity}: {plain(n.text)}" for n in diff.notes if n.severity != "info"]
    return "\n\n".join(part for part in (*parts, "\n".join(listed), "\n".join(warned)) if part) + "\n"


def table(found: Table) -> str:
    """A table under its caption."""
    head = "| " + " | ".join(escaped(cell) for cell in found.header) + " |"
    rule = "| --- |" + (" --- |" if found.plain else " ---: |") * (len(found.header) - 1)
    rows = ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in found.rows]
    return "\n".join([f"**{escaped(found.caption)}**", "", head, rule, *rows])


def plain(text: str) -> str:
    """A long text as it stands."""
    return escaped(text, len(text) + 1)
