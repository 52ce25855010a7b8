"""What an assertion allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from moeprof.testing.errors import ProbeError

ROUNDING = 1e-9  # an iteration's share of whole counts: 12 launches in 3 iterations are 4


@dataclass(frozen=True)
class Limits:
    """``at_least`` <= value <= ``at_most``, or ``exactly`` one value.

    Raises:
        ProbeError: there is no limit, or one is not a number: such an assertion cannot fail.
    """

    at_least: float | None = None
    at_most: float | None = None
    exactly: float | None = None

    def __post_init__(self) -> None:
        given = [v for v in (self.at_least, self.at_most, self.exactly) if v is not None]
        if not given or any(math.isnan(v) for v in given):
            raise ProbeError(
                "an assertion without a limit cannot fail", "give at_least, at_most or exactly, as numbers"
            )

    def hold(self, value: float) -> bool:
        """Whether the value is allowed."""
        low, high = (self.exactly, self.exactly) if self.exactly is not None else (self.at_least, self.at_most)
        above = low is None or value >= low - ROUNDING * abs(low)
        return above and (high is None or value <= high + ROUNDING * abs(high))

    def text(self, unit: str) -> str:
        """at least 0.9, at most 12 ms."""
        named = (("at least", self.at_least), ("at most", self.at_most), ("exactly", self.exactly))
        return " and ".join(f"{word} {value:g} {unit}".strip() for word, value in named if value is not None)
