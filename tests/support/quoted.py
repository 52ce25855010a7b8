"""Numbers in sentences and in tables."""

from __future__ import annotations

import re

UNITS = r"ms|µs|%|GB/s|GB|MB|kB|B|points"
NUMBER = re.compile(rf"(?<![\w.,])(\d[\d,]*(?:\.\d+)?)(?:\s({UNITS})(?!\w))?")


def numbers(text: str) -> list[tuple[str, str]]:
    """(digits, unit) as they are written."""
    return [(m[1], m[2] or "") for m in NUMBER.finditer(re.sub(r"\s+", " ", text))]


def strangers(paragraph: str, tables: str, unit_in_header: bool = False) -> list[tuple[str, str]]:
    """Numbers of the paragraph that the tables do not hold; one without a unit may have one there.

    Args:
        unit_in_header: the tables are the terminal's: a column may have its unit in its header.
    """
    known = numbers(tables)
    headers = re.finditer(rf"(?:,\s+|\()(?:({UNITS})(?=\s|$)|({UNITS})\))|^({UNITS})  ", tables, flags=re.M)
    of_columns = {m[1] or m[2] or m[3] for m in headers} if unit_in_header else set()
    return [
        (n, unit)
        for n, unit in numbers(paragraph)
        if not any(n == k and (unit in ("", u) or (not u and unit in of_columns)) for k, u in known)
    ]
