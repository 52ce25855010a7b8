"""Page -> Markdown: the report for an issue or a review, without figures."""

from __future__ import annotations

import re
from collections.abc import Iterator

from moeprof.report.page import Block, Bullets, Item, Page, Paragraph, Section, Table, shows

MAX_CELL = 300  # characters
SPECIAL = re.compile(r"([\\`*_{}\[\]#!|~])")


def render(page: Page) -> str:
    """The verdict, the tables and sentences of the report, and the warnings."""
    parts = [f"## {escaped(page.title)}", *(part for s in page.sections for part in _section(s))]
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> Iterator[str]:
    parts = [part for block in section.above for part in _block(block)]
    parts += [table(t) for t in section.tables if shows("report", t.detail)]
    parts += [part for nested in section.parts for part in _section(nested)]
    parts += [part for block in section.below for part in _block(block)]
    if parts and section.title:
        yield f"### {escaped(section.title)}"
    yield from parts


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Bullets):
        items = [f"- {_item(item)}" for item in block.items if shows("report", item.detail)]
        if items:
            yield "\n".join(items)
    elif isinstance(block, Paragraph) and shows("report", block.detail):
        yield plain(block.text)


def _item(item: Item) -> str:
    return (f"{item.severity}: " if item.severity else "") + plain(item.text)


def table(found: Table) -> str:
    """A table under its caption."""
    head = "| " + " | ".join(escaped(cell) for cell in found.header) + " |"
    rule = "| --- |" + (" --- |" if found.plain else " ---: |") * (len(found.header) - 1)
    rows = ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in found.rows]
    return "\n".join([f"**{escaped(found.caption)}**", "", head, rule, *rows])


def escaped(text: str, most: int = MAX_CELL) -> str:
    """Text that Markdown shows as it is, on one line and of at most ``most`` characters."""
    line = " ".join(text.split())
    cut = line if len(line) <= most else line[: most - 1] + "…"
    return SPECIAL.sub(r"\\\1", cut.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def plain(text: str) -> str:
    """A long text, not cut."""
    return escaped(text, len(text) + 1)
