"""One model of every report: a page of sections. Terminal, HTML, Markdown and JSON are four renderings of it.

A section has a title that states what it shows, a note on how to read it, a figure, and tables with the figure's numbers;
sentences and lists stand above or below them. What an output shows follows from each part's ``detail``: the terminal prints the
summary, Markdown the report, the HTML page everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from moeprof.notes import Note

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from markupsafe import Markup

Detail = Literal["summary", "report", "page"]
DETAILS: tuple[Detail, ...] = ("summary", "report", "page")
Role = Literal["plain", "headline", "sentence", "word", "lesson", "how", "words"]
SENTENCE = 40  # characters from which a cell is a sentence and not a number


@dataclass(frozen=True)
class Look:
    """What the HTML page adds to a table.

    Args:
        share: the column of percentages that get a bar.
        colours: a CSS class for the bar of each row.
        titles: the full text of each row's first cell, for hovering.
        sorted_by: the column by which the rows fall; with one, a click on any header sorts.
        marks: whether the first cell is an operation's name, which a click marks in the timelines of the page.
        links: an address within the page for each row's first cell, "" for none.
    """

    share: str = ""
    colours: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    sorted_by: str = ""
    marks: bool = False
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A caption, a header and rows of text. The first column is text, the others are numbers unless ``plain``.

    ``marked`` is the row to look at first; ``wide`` names the columns that the terminal leaves out, ``optional`` those that it
    leaves out, the last first, where it is too narrow; ``sentences`` those that it prints below their row, as any cell that is
    a sentence; ``short`` is how many rows it prints; None: all.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    plain: bool = False
    marked: int | None = None
    detail: Detail = "page"
    wide: tuple[str, ...] = ()
    short: int | None = None
    optional: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    look: Look | None = None

    @property
    def prose(self) -> frozenset[int]:
        """The columns but the first that contain sentences, which read from the left."""
        return frozenset(place for row in self.rows for place, cell in enumerate(row) if place and len(cell) > SENTENCE)

    @property
    def cards(self) -> bool:
        """Whether a phone shows each row as a list: most rows have a sentence, which would be far to the right."""
        cells = [max(map(len, row[1:]), default=0) > SENTENCE for row in self.rows]
        return self.look is None and sum(cells) * 2 > len(cells)

    def without(self, *columns: str) -> Table:
        """The table without these columns."""
        places = [place for place, name in enumerate(self.header) if name not in columns]
        header, *rows = (tuple(row[place] for place in places) for row in (self.header, *self.rows))
        return replace(self, header=header, rows=tuple(rows))


@dataclass(frozen=True)
class Paragraph:
    """A text, and a command after it."""

    text: str
    role: Role = "plain"
    code: str = ""
    detail: Detail = "page"


@dataclass(frozen=True)
class Item:
    """A text of a list; ``severity`` is that of a note."""

    text: str
    severity: str = ""
    detail: Detail = "page"


@dataclass(frozen=True)
class Bullets:
    """A list under a heading."""

    items: tuple[Item, ...]
    heading: str = ""


@dataclass(frozen=True)
class Listing:
    """Text in the type of code, folded under its ``summary`` where it has one."""

    text: str
    summary: str = ""


@dataclass(frozen=True)
class Terms:
    """Words and what they mean."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Fact:
    """A line of an answer: SLOW, WHY, TRY or NEXT, its text, a command after it, ``detail``: its evidence, and on the HTML page a link
    to its place."""

    label: str
    text: str
    code: str = ""
    link: str = ""
    detail: str = ""

    @property
    def whole(self) -> str:
        """The text and its evidence."""
        return f"{self.text} {self.detail}" if self.detail else self.text


@dataclass(frozen=True)
class Facts:
    """The lines of an answer; every output shows them."""

    lines: tuple[Fact, ...]


@dataclass(frozen=True)
class Drawing:
    """A figure that is markup already; ``timeline``: it needs the script and the style of timelines."""

    markup: Markup
    timeline: bool = False


Block = Paragraph | Bullets | Listing | Terms | Facts


@dataclass(frozen=True)
class Section:
    """A part of a page, in the order of its fields. ``id`` is its anchor, ``style`` its class on the HTML page.

    ``open``: which tables of the HTML page are not folded: none, the first if it is short, all short ones, the first of any length,
    or all. ``folded``: whether the page shows only the title until it is opened. ``nav``: its name in the list of contents where
    the title is long.
    """

    id: str
    title: str = ""
    above: tuple[Block, ...] = ()
    note: str = ""
    figure: go.Figure | Drawing | None = None
    tables: tuple[Table, ...] = ()
    parts: tuple[Section, ...] = ()
    below: tuple[Block, ...] = ()
    style: str = ""
    open: Literal["none", "first", "short", "lead", "all"] = "first"
    folded: bool = False
    nav: str = ""


@dataclass(frozen=True)
class Page:
    """A report. ``data`` is its content as JSON values; the terminal begins with ``headline`` where there is one. ``terms``: words
    that the HTML page explains where they occur."""

    title: str
    lead: str
    sections: tuple[Section, ...]
    headline: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    terms: tuple[tuple[str, str], ...] = ()


def section(
    id: str,
    title: str,
    note: str,
    figure: go.Figure | Drawing | None,
    tables: Iterable[Table],
    detail: Detail | None = None,
) -> Section:
    """A section of a figure and tables, without the tables that have no rows; ``detail`` is that of all its tables."""
    shown = tuple(t if detail is None else replace(t, detail=detail) for t in tables if t.rows)
    return Section(id, title, note=note, figure=figure, tables=shown)


def shows(detail: Detail, part: Detail) -> bool:
    """Whether an output of this detail shows a part."""
    return DETAILS.index(part) <= DETAILS.index(detail)


def verdict(sentences: Iterable[str], word: str = "", lesson: str = "", wide: bool = False) -> Section:
    """The answer of a report, before any number; ``wide``: of a page with timelines, which has wider lines."""
    blocks = [Paragraph(word, "word", detail="summary")] if word else []
    blocks += [Paragraph(sentence, "sentence", detail="summary") for sentence in sentences]
    blocks += [Paragraph(f"The lesson: {lesson}.", "lesson")] if lesson else []
    return Section(
        "verdict",
        above=tuple(blocks),
        style=" ".join(filter(None, ("verdict", word.lower(), "answer" if wide else ""))),
    )


def unlike(title: str, texts: Iterable[str]) -> tuple[Section, ...]:
    """What differs between the sides of a comparison, where anything does."""
    items = tuple(Item(text, detail="summary") for text in texts)
    return (Section("unlike", title, below=(Bullets(items),), style="notes warning"),) if items else ()


def notes(noted: Iterable[Note], least: Literal["info", "warning"] = "info") -> Section:
    """Notes with their severities; those below ``least`` are on the page alone."""
    items = tuple(
        Item(n.text, n.severity, "page" if least == "warning" and n.severity == "info" else "summary") for n in noted
    )
    blocks: tuple[Block, ...] = (Bullets(items),) if items else (Paragraph("None.", "how"),)
    return Section("notes", "Notes", below=blocks, style="notes")


def glossary(terms: tuple[tuple[str, str], ...]) -> Section:
    """The words of a report."""
    return Section("glossary", "Glossary", below=(Terms(terms),))
