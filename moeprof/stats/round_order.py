"""In which order one round of clean timing runs what it times. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable

TWIN = "{} (twin)"  # the baseline once more in the same round: A against A


def order(names: Iterable[str], seed: object, index: int) -> list[str]:
    """The order of round ``index``: shuffled by the seed; every second round runs the order of the one before it backwards, so
    that a drift within rounds cancels, and no variant always runs after the same other one."""
    found = list(names)
    random.Random(f"{seed} {index // 2}").shuffle(found)
    return found[::-1] if index % 2 else found
