"""Page -> text for the terminal: the summary of the page. Colour only on a terminal (rich decides)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from moeprof.report.page import Block, Bullets, Facts, Page, Paragraph, Section, Table, shows

WIDTH = 160  # of text that is not for a terminal
STYLES = {
    "FASTER": "bold green", "SLOWER": "bold red", "SAME": "bold", "UNCLEAR": "bold yellow", "warning": "yellow", "error": "red",
}  # fmt: skip


def render(page: Page) -> str:
    """The summary: the verdict, headline or title first, then what the sections summarise."""
    parts = [part for s in page.sections for part in _section(s, page.headline)]
    if any(s.id == "verdict" for s in page.sections):
        head = []
    elif page.headline:
        head = [Text(page.headline, style="bold")]
    else:
        head = [Text(text, style=style) for text, style in ((page.title, "bold"), (page.lead, "")) if text]
    return rendered(Group(*head, *parts))


def _section(section: Section, headline: str = "") -> Iterator[RenderableType]:
    """A section under its title; nothing where none of its parts is in the summary."""
    parts = list(_above(section))
    for t in section.tables:
        if shows("summary", t.detail):
            parts.append(_table(t, section.title))
            if t.short is not None and t.short < len(t.rows):
                parts.append(Text(f"... and {len(t.rows) - t.short} more rows on the page", style="dim"))
    parts += [part for nested in section.parts for part in _section(nested)]
    parts += [part for block in section.below for part in _block(block, section)]
    if parts and section.title not in ("", headline) and section.id != "unlike":
        yield Text()
        yield Text(section.title, style="bold")
    yield from parts


def _above(section: Section) -> Iterator[RenderableType]:
    """What is above the figure; the word of a verdict and its sentence share a line."""
    word: Text | None = None
    for block in section.above:
        if isinstance(block, Paragraph) and block.role == "word":
            word = Text(block.text, style=STYLES.get(block.text, "bold"))
        elif isinstance(block, Paragraph) and word is not None and shows("summary", block.detail):
            yield Text.assemble(word, "  ", block.text)
            word = None
        else:
            yield from _block(block, section)


def _block(block: Block, section: Section) -> Iterator[RenderableType]:
    if isinstance(block, Bullets):
        shown = [item for item in block.items if shows("summary", item.detail)]
        for item in shown:
            lead = f"{item.severity}: " if item.severity else "" if section.style else "- "
            style = "bold yellow" if section.id == "unlike" else STYLES.get(item.severity, "")
            yield Text(lead + item.text, style=style)
    elif isinstance(block, Facts):
        grid = RichTable(box=None, show_header=False, pad_edge=False)
        for fact in block.lines:
            grid.add_row(Text(fact.label, style="bold"), Text(f"{fact.text} {fact.code}".strip()))
        yield grid
    elif isinstance(block, Paragraph) and shows("summary", block.detail):
        yield Text(block.text)


def _table(table: Table, title: str) -> RichTable:
    """A table, without a caption that repeats the title of its section."""
    return rich_table(replace(table, caption="") if table.caption in title else table)


def rich_table(table: Table) -> RichTable:
    """A table for the terminal, without its wide columns."""
    table = table.without(*table.wide)
    shown = RichTable(
        title=table.caption or None,
        title_justify="left",
        title_style="italic",
        header_style="bold",
        box=None,
        pad_edge=False,
    )
    for index, name in enumerate(table.header):
        shown.add_column(name, justify="left" if index == 0 or table.plain else "right", overflow="fold")
    for number, row in enumerate(table.rows[: table.short]):
        shown.add_row(*(Text(cell) for cell in row), style="bold" if number == table.marked else None)
    return shown


def rendered(renderable: RenderableType) -> str:
    """Text as wide as the terminal, or WIDTH columns without colour where stdout is none."""
    terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    console = Console(
        width=None if sys.stdout.isatty() else WIDTH,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        file=None,
    )
    with console.capture() as captured:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
