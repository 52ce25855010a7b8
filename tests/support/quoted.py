"""Numbers in sentences and in tables."""

from __future__ import annotations

import re

UNITS = r"ms|µs|%|GB/s|GB|MB|kB|B|points"
NUMBER = re.compile(rf"(?<![\w.,])(\d[\d,]*(?:\.\d+)?)(?:\s({UNITS})(?!\w))?")


def numbers(text: str) -> list[tuple[str, str]]:
    """(digits, unit) as they are written."""
    return [(m[1], m[2] or "") for m in NUMBER.finditer(re.sub(r"\s+", " ", text))]


def strangers(paragraph: str, tables: str) -> list[tuple[str, str]]:
    """Numbers of the paragraph that the tables do not hold; one without a unit may have one there."""
    known = numbers(tables)
    return [(n, unit) for n, unit in numbers(paragraph) if not any(n == k and unit in ("", u) for k, u in known)]
