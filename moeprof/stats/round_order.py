"""The order of the variants in a round of clean timing. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable

TWIN = "{} (twin)"  # the baseline a second time in the same round: the A/A control


def order(names: Iterable[str], seed: object, index: int) -> list[str]:
    """The order of round ``index``: shuffled by the seed. Every second round reverses the order of the previous one.

    So a drift within rounds cancels, and no variant always runs after the same other one.
    """
    turns = list(names)
    random.Random(f"{seed} {index // 2}").shuffle(turns)
    return turns[::-1] if index % 2 else turns
