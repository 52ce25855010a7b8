"""The router of a small size, and which assignments fit a capacity, in plain Python."""

from __future__ import annotations

from typing import Any

from moeprof.workload.find import load

WORKLOAD = load("router")
SMALL = {"tokens": "96", "hidden": "64", "inner": "48"}


def params(**more: Any) -> dict[str, Any]:
    return WORKLOAD.params("tiny", {**SMALL, **{k: str(v) for k, v in more.items()}})


def plain_places(chosen: list[list[int]], limit: int) -> set[tuple[int, int]]:
    """The assignments (token, k) that fit: all first choices in token order, then all second ones."""
    taken: dict[int, int] = {}
    kept = set()
    for k in range(len(chosen[0])):
        for token, row in enumerate(chosen):
            if taken.get(row[k], 0) < limit:
                taken[row[k]] = taken.get(row[k], 0) + 1
                kept.add((token, k))
    return kept
