"""Pieces of the HTML page that its templates ask for: words that explain themselves, and bars in tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup, escape

from moeprof.report.glossary import pattern_of
from moeprof.report.page import Look, Table


def explained(text: str, terms: Sequence[tuple[str, str]]) -> Markup:
    """A text in which the first occurrence of each of ``terms`` opens its meaning (``term-N`` on the page, N from 1)."""
    places: list[tuple[int, int, int]] = []
    for number, (word, _) in enumerate(terms, 1):
        match = re.search(pattern_of(word), text, re.IGNORECASE)
        if match and not any(start < match.end() and match.start() < end for start, end, _ in places):
            places.append((match.start(), match.end(), number))
    parts, at = [], 0
    for start, end, number in sorted(places):
        parts.append(escape(text[at:start]))
        parts.append(
            Markup('<button type="button" class="term" popovertarget="term-{}">{}</button>').format(
                number, text[start:end]
            )
        )
        at = end
    return Markup("").join([*parts, escape(text[at:])])


def most_share(look: Look | None, table: Table) -> float:
    """The largest percentage of a table's column of shares; 0 where it has none."""
    if look is None or look.share not in table.header:
        return 0.0
    place = table.header.index(look.share)
    return max((_percentage(row[place]) for row in table.rows), default=0.0)


def bar(cell: str, most: float, colour: str) -> Markup:
    """A percentage with a bar as long as its part of the largest one."""
    width = 100 * _percentage(cell) / most if most else 0.0
    return Markup(
        '<svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect class="{}" width="{:.1f}" height="6"/></svg>{}'
    ).format(colour, width, cell)


def _percentage(cell: str) -> float:
    match = re.match(r"([\d.]+) %", cell)
    return float(match[1]) if match else 0.0


FILTERS: dict[str, Callable[..., Any]] = {"explained": explained, "most_share": most_share, "bar": bar}
