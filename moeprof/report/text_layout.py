"""Text and tables in a given number of columns: words and numbers stay whole, whatever the width.

A table that does not fit has shorter names, then loses its optional columns, then becomes a block for each row. Sentences are
never in a cell: they stand below their row.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from moeprof.report.page import Table
from moeprof.units import DASH

BOUND = "\u00a0"  # joins a number and its unit while lines are broken
UNITS = ("ms", "µs", "ns", "s", "%", "B", "kB", "MB", "GB", "GB/s", "TFLOP/s", "W", "MHz")
NUMBER = r"[+−±-]?\d[\d,]*(?:\.\d+)?"
BEFORE_UNIT = re.compile(rf"(?<=\d) (?=(?:{'|'.join(map(re.escape, UNITS))})(?![\w/]))")
WITH_UNIT = re.compile(rf"({NUMBER}) (\S+)")
ZERO = re.compile(r"[±]?0(?:\.0+)?(?: (?:ms|µs|ns|s|B))?")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
GAP = 2  # columns between two cells
NAME_WIDTH = 24  # columns that a name keeps at least when it is shortened
HEADER_LINES = 3
LEFT_OUT = "in a wider terminal, or with --json"  # where columns are that did not fit
CELL = 40  # characters from which a cell of several words is a sentence


@dataclass(frozen=True)
class Layout:
    """Cells that stand side by side. ``right`` are the columns of numbers, ``prose`` the sentences below each row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[bool, ...]
    prose: tuple[tuple[tuple[str, str], ...], ...]

    @property
    def widths(self) -> list[int]:
        """What each column needs: its longest cell and the longest word of its header."""
        columns = zip(self.header, *self.rows, strict=True)
        return [
            max(*(cell_len(cell) for cell in cells), _longest_word(header), _stacked(header))
            for header, *cells in columns
        ]

    def needed(self) -> int:
        """Columns of the terminal that the rows need."""
        return sum(self.widths) + GAP * (len(self.header) - 1)


def printable(text: str) -> str:
    """Text on one line, whose control characters a terminal does not obey."""
    return CONTROL.sub("\ufffd", " ".join(text.split()))


def wrap(text: str, width: int, indent: str = "", first: str | None = None) -> list[str]:
    """Lines of at most ``width`` columns. A word, a number and its unit are not broken: a longer word has a line of its own.

    Args:
        indent: begins every line.
        first: begins the first line in place of ``indent``.
    """
    bound = BEFORE_UNIT.sub(BOUND, printable(text))
    begin = indent if first is None else first
    lines = textwrap.wrap(
        bound,
        max(width, 1),
        initial_indent=begin,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(BOUND, " ") for line in lines] or [begin.rstrip()]


def table_lines(table: Table, width: int) -> list[Text]:
    """A table in at most ``width`` columns, with its caption; rows beyond ``short`` are left out."""
    lines = [Text(line, style="italic") for line in (wrap(table.caption, width) if table.caption else [])]
    shown = _without_empty(table.without(*table.wide))
    shown = replace(shown, rows=tuple(tuple(map(printable, row)) for row in shown.rows[: table.short]))
    layout, left = _fitted(shown, width)
    lines += _blocks(shown, width) if layout is None else _side_by_side(layout, width, table.marked)
    if left:
        lines += [Text(line, style="dim") for line in wrap(f"{', '.join(left)}: {LEFT_OUT}", width)]
    return lines


def pairs_lines(pairs: Sequence[tuple[str, str]], width: int, indent: str) -> list[str]:
    """``label: value`` side by side, as many on a line as fit; none is broken unless it is longer than a line."""
    lines: list[str] = []
    for label, value in pairs:
        pair = f"{label}: {value}" if label else value
        if lines and cell_len(lines[-1]) + 3 + cell_len(pair) <= width:
            lines[-1] += f"   {pair}"
        elif cell_len(indent) + cell_len(pair) <= width:
            lines.append(indent + pair)
        else:
            lines += wrap(pair, width, indent + "  ", indent)
    return lines


def _fitted(table: Table, width: int) -> tuple[Layout | None, tuple[str, ...]]:
    """The layout that fits and the optional columns that it lacks; None where the rows become blocks."""
    optional = [name for name in table.optional if name in table.header]
    for count in range(len(optional) + 1):
        left = tuple(optional[len(optional) - count :])
        layout = _layout(table.without(*left))
        if layout.needed() <= width:
            return layout, left
        short = _shortened(layout, width)
        if short is not None:
            return short, left
    return None, ()


def _layout(table: Table) -> Layout:
    """The cells with their units in the header, and the sentences apart from them."""
    prose = _prose(table)
    of_columns = [place for place in range(len(table.header)) if place not in prose]
    columns = [
        _unit_in_header(table.header[place], tuple(row[place] for row in table.rows), numbers=bool(place))
        for place in of_columns
    ]
    rows = tuple(zip(*(cells for _, cells in columns), strict=True)) if table.rows else ()
    header = _one_unit([name for name, _ in columns])
    right = tuple(
        bool(place) and (not table.plain or _is_number(cells))
        for place, (_, cells) in zip(of_columns, columns, strict=True)
    )
    sentences = tuple(
        tuple(
            ("" if place == prose[0] else table.header[place], row[place])
            for place in prose
            if row[place] not in ("", DASH)
        )
        for row in table.rows
    )
    return Layout(header, rows, right, sentences)


def _one_unit(header: Sequence[str]) -> tuple[str, ...]:
    """The unit of all columns stands once, above their names."""
    named = [name.rpartition(", ") for name in header[1:]]
    if len(named) > 1 and len({unit for name, _, unit in named if name}) == 1 and all(name for name, _, _ in named):
        return f"{header[0]} ({named[0][2]})" if header[0] else named[0][2], *(name for name, _, _ in named)
    return tuple(header)


def _prose(table: Table) -> list[int]:
    """The columns of sentences."""
    return [
        place
        for place in range(1, len(table.header))
        if table.header[place] in table.sentences or any(_is_prose(row[place]) for row in table.rows)
    ]


def _unit_in_header(header: str, cells: tuple[str, ...], numbers: bool) -> tuple[str, tuple[str, ...]]:
    """The unit moves to the header where all cells that have a value have the same."""
    matches = [WITH_UNIT.fullmatch(cell) for cell in cells if cell not in ("", DASH)]
    units = {match[2] if match else "" for match in matches}
    if not numbers or len(units) != 1 or not units <= set(UNITS):
        return header, cells
    (unit,) = units
    named = header if header.endswith((f" {unit}", f"({unit})")) else f"{header}, {unit}"
    return named, tuple(cell.removesuffix(f" {unit}") for cell in cells)


def _without_empty(table: Table) -> Table:
    """The table without the columns in which nothing is: dashes and zero amounts. A share of 0 % says something."""
    if not table.rows:
        return table
    empty = [
        name
        for place, name in enumerate(table.header)
        if place and all(row[place] in ("", DASH) or ZERO.fullmatch(row[place]) for row in table.rows)
    ]
    return table.without(*empty)


def _is_prose(cell: str) -> bool:
    return cell_len(cell) > CELL and " " in cell


def _is_number(cells: Iterable[str]) -> bool:
    values = [cell for cell in cells if cell not in ("", DASH)]
    return bool(values) and all(re.fullmatch(NUMBER + r"\S*(?: \S+)?", cell) for cell in values)


def _longest_word(header: str) -> int:
    return max((cell_len(word) for word in header.split()), default=0)


def _stacked(header: str) -> int:
    """The least width at which a header has no more than HEADER_LINES lines."""
    width = _longest_word(header)
    while len(textwrap.wrap(header, max(width, 1), break_long_words=False, break_on_hyphens=False)) > HEADER_LINES:
        width += 1
    return width


def _shortened(layout: Layout, width: int) -> Layout | None:
    """The layout with shorter names in its first column; None where they would be too short to be known."""
    room = width - (layout.needed() - layout.widths[0])
    if room < max(NAME_WIDTH, _stacked(layout.header[0])) or not layout.rows:
        return None
    rows = tuple((shortened(row[0], room), *row[1:]) for row in layout.rows)
    return replace(layout, rows=rows) if len({row[0] for row in rows}) == len({row[0] for row in layout.rows}) else None


def shortened(name: str, width: int) -> str:
    """A name of at most ``width`` columns: its middle becomes an ellipsis, since names of one family begin alike."""
    if cell_len(name) <= width:
        return name
    head = (width - 1) * 2 // 3
    return f"{name[:head].rstrip('…')}…{name[len(name) - (width - 1 - head) :].lstrip('…')}"


def _side_by_side(layout: Layout, width: int, marked: int | None) -> list[Text]:
    widths = layout.widths
    spare = width - layout.needed()
    for place, header in enumerate(layout.header):  # a header on one line where there is room
        more = min(spare, max(0, cell_len(header) - widths[place]))
        widths[place], spare = widths[place] + more, spare - more
    lines = _header(layout, widths)
    for number, (row, sentences) in enumerate(zip(layout.rows, layout.prose, strict=True)):
        style = "bold" if number == marked else ""
        lines.append(Text(_aligned(row, layout.right, widths), style=style))
        lines += _sentences(sentences, width)
    return lines


def _sentences(sentences: Iterable[tuple[str, str]], width: int) -> list[Text]:
    """Sentences below their row, each after its label where it has one."""
    return [
        Text(line)
        for label, sentence in sentences
        for line in wrap(f"{label}: {sentence}" if label else sentence, width, "    ", "  ")
    ]


def _header(layout: Layout, widths: list[int]) -> list[Text]:
    stacks = [
        textwrap.wrap(header, size or 1, break_long_words=False, break_on_hyphens=False)
        for header, size in zip(layout.header, widths, strict=True)
    ]
    height = max(map(len, stacks))
    padded = [[""] * (height - len(stack)) + stack for stack in stacks]
    return [Text(_aligned(row, layout.right, widths), style="bold") for row in zip(*padded, strict=True)]


def _aligned(row: Sequence[str], right: Sequence[bool], widths: Sequence[int]) -> str:
    cells = (
        " " * (width - cell_len(cell)) + cell if is_right else set_cell_size(cell, width)
        for cell, is_right, width in zip(row, right, widths, strict=True)
    )
    return (" " * GAP).join(cells).rstrip()


def _blocks(table: Table, width: int) -> list[Text]:
    """A block for each row: its name, then what the header calls each value."""
    lines = []
    prose = [table.header[place] for place in _prose(table)]
    for number, row in enumerate(table.rows):
        style = "bold" if number == table.marked or table.marked is None else ""
        lines += [Text(line, style=style) for line in wrap(row[0] or DASH, width, "  ", "")]
        cells = [(name, cell) for name, cell in zip(table.header[1:], row[1:], strict=True) if cell not in ("", DASH)]
        sentences = [(name, cell) for name, cell in cells if name in prose]
        lines += [Text(line) for line in pairs_lines([pair for pair in cells if pair not in sentences], width, "  ")]
        lines += _sentences([("" if name == prose[0] else name, cell) for name, cell in sentences], width)
    return lines
