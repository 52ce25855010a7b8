"""Page -> text for the terminal: the summary of the page. Colour only on a terminal (rich decides).

As wide as the terminal, or as ``COLUMNS`` says, also in a pipe; a pipe without it has PIPE_WIDTH columns.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from moeprof.report.page import Block, Bullets, Fact, Facts, Page, Paragraph, Section, Table, shows
from moeprof.report.text_layout import printable, table_lines, wrap

PIPE_WIDTH = 100  # columns of text that is not for a terminal
LEAST_WIDTH = 40
STYLES = {
    "FASTER": "bold green", "SLOWER": "bold red", "SAME": "bold", "UNCLEAR": "bold yellow", "warning": "yellow", "error": "red",
}  # fmt: skip


def width() -> int:
    """Columns to write in: ``COLUMNS``, else those of the terminal, else PIPE_WIDTH."""
    return max(LEAST_WIDTH, shutil.get_terminal_size((PIPE_WIDTH, 24)).columns)


def render(page: Page) -> str:
    """The summary: the verdict, headline or title first, then what the sections summarise."""
    parts = [line for s in page.sections for line in _section(s, page.headline)]
    head: list[Text] = []
    if page.headline:
        head = lines_of(page.headline, "bold")
    elif not any(s.id == "verdict" for s in page.sections):
        head = [
            line for text, style in ((page.title, "bold"), (page.lead, "")) if text for line in lines_of(text, style)
        ]
    lines = [*head, *parts]
    return rendered(lines[1:] if lines and not lines[0].plain else lines)


def lines_of(text: str, style: str = "", indent: str = "", first: str | None = None) -> list[Text]:
    """A sentence in the width of the terminal."""
    return [Text(line, style=style) for line in wrap(text, width(), indent, first)]


def _section(section: Section, headline: str = "") -> Iterator[Text]:
    """A section under its title; nothing where none of its parts is in the summary."""
    parts = list(_above(section))
    for t in section.tables:
        if shows("summary", t.detail):
            parts += _table(t, section.title)
            if t.short is not None and t.short < len(t.rows):
                parts.append(Text(f"... and {len(t.rows) - t.short} more rows on the page", style="dim"))
    parts += [part for nested in section.parts for part in _section(nested)]
    parts += [part for block in section.below for part in _block(block, section)]
    if parts and section.title not in ("", headline) and section.id != "unlike":
        yield Text()
        if section.title.strip():
            yield from lines_of(section.title, "bold")
    yield from parts


def _above(section: Section) -> Iterator[Text]:
    """What is above the figure; the word of a verdict and its sentence share a line."""
    word = ""
    for block in section.above:
        if isinstance(block, Paragraph) and block.role == "word":
            word = block.text
        elif isinstance(block, Paragraph) and word and shows("summary", block.detail):
            first, *more = wrap(block.text, width(), "  ", f"{printable(word)}  ")
            yield Text.assemble((word, STYLES.get(word.partition(" ")[0], "bold")), first.removeprefix(word))
            yield from map(Text, more)
            word = ""
        else:
            yield from _block(block, section)


def _block(block: Block, section: Section) -> Iterator[Text]:
    if isinstance(block, Bullets):
        for item in block.items:
            if shows("summary", item.detail):
                lead = f"{item.severity}: " if item.severity else "" if section.style else "- "
                style = "bold yellow" if section.id == "unlike" else STYLES.get(item.severity, "")
                yield from lines_of(item.text, style, "  ", lead)
    elif isinstance(block, Facts):
        label = max((cell_len(fact.label) for fact in block.lines), default=0)
        for fact in block.lines:
            yield from _fact(fact, label)
    elif isinstance(block, Paragraph) and shows("summary", block.detail):
        yield from lines_of(block.text, "bold" if block.role == "headline" else "")
        if block.code:
            yield Text(f"  {printable(block.code)}")


def _fact(fact: Fact, label: int) -> Iterator[Text]:
    """A line of an answer. A command that does not fit beside its text has a line of its own, and is never broken."""
    indent = " " * (label + 1)
    text, code = printable(fact.text).removeprefix(f"{fact.label}: "), printable(fact.code)
    beside = bool(code) and cell_len(indent) + cell_len(text) + 1 + cell_len(code) <= width()
    first, *more = wrap(f"{text} {code}" if beside else text, width(), indent, f"{fact.label:<{label}} ")
    yield Text.assemble((first[:label], "bold"), first[label:])
    yield from map(Text, more)
    if code and not beside:
        yield Text((indent if text else "  ") + code)


def _table(table: Table, title: str) -> list[Text]:
    """A table, without a caption that repeats the title of its section."""
    return table_lines(replace(table, caption="") if table.caption in title else table, width())


def rendered(lines: Iterable[Text]) -> str:
    """The lines as they are, without colour where stdout is no terminal."""
    terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    console = Console(force_terminal=terminal, color_system="auto" if terminal else None, file=None)
    with console.capture() as captured:
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
