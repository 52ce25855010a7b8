"""Expectations of a number, and rules of a gate. Sessions and gates share this grammar. Pure.

An expectation is an operator, a number and what the number is of::

    <0.5x    the value over what it was         <-20%    the change in per cent
    >+0      the change in the metric's unit    >0.9     the value itself
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from moeprof import units
from moeprof.errors import UsageError

Of = Literal["x", "%", "+", ""]
WRITTEN_UNITS = {"x": "×", "%": " %"}
NUMBER = r"([+-]?)(\d+(?:\.\d+)?)\s*(x|%)?"
EXPECTATION = re.compile(rf"(<=|>=|<|>)\s*{NUMBER}")
RULE = re.compile(r"(.+?)\s*((?:<=|>=|<|>)[^<>=]*)")
GRAMMAR = (
    "METRIC, one of < <= > >=, and a number: '3%' change, '1.05x' ratio, '+0' change in its unit, '0.9' the value itself; "
    "such as 'step_time>3%', 'copy_overlap<0.9', 'launches>+0'"
)


@dataclass(frozen=True)
class Expectation:
    """``<0.5x``: less than half of what it was; ``<-20%``: fallen by more than a fifth; ``>+2``: grown by more than two;
    ``>0.9``: the value itself."""

    operator: str
    number: float
    unit: Of

    @property
    def same(self) -> float | None:
        """The measured number if nothing changed; None where the value itself is judged."""
        return {"x": 1.0, "%": 0.0, "+": 0.0}.get(self.unit)

    def measured(self, before: float | None, after: float) -> float | None:
        """The number to compare with the expected one; None where the value before is needed and missing, or 0."""
        if not self.unit:
            return after
        if before is None or (before == 0 and self.unit != "+"):
            return None
        if self.unit == "+":
            return after - before
        return after / before if self.unit == "x" else 100 * (after / before - 1)

    def true_of(self, measured: float) -> bool:
        """Whether a measured number is as expected."""
        return {
            "<": measured < self.number,
            "<=": measured <= self.number,
            ">": measured > self.number,
            ">=": measured >= self.number,
        }[self.operator]

    def holds(self, before: float | None, after: float | None) -> bool | None:
        """Whether it holds; None where it cannot be known."""
        measured = None if after is None else self.measured(before, after)
        return None if measured is None else self.true_of(measured)

    def written(self, measured: float | None) -> str:
        """A measured number in the terms of the expectation, as all outputs write numbers: 0.5×, −20 %, +3."""
        if measured is None:
            return units.DASH
        sign = "" if self.unit in ("x", "") else "+" if measured > 0 else "±" if measured == 0 else ""
        digits = f"{measured:,.0f}" if abs(measured) >= 1e4 else f"{measured:.4g}"
        negative = digits.startswith("-")
        return f"{sign}{'−' * negative}{digits.removeprefix('-')}{WRITTEN_UNITS.get(self.unit, '')}"


@dataclass(frozen=True)
class Rule:
    """A rule of a gate, which fails if the expectation of the metric holds."""

    text: str
    metric: str
    fails: Expectation


def expectation(text: str) -> Expectation:
    """Parse an expectation; raises UsageError for a wrong one."""
    match = EXPECTATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no expectation", "give for example '<0.5x', '<-20%', '>+2' or '>0.9'")
    operator, sign, digits, unit = match.groups()
    number = float(sign + digits) + 0.0  # no -0.0
    return Expectation(operator, number, cast(Of, unit or ("+" if sign else "")))


def rule(text: str) -> Rule:
    """Parse a rule of a gate; raises UsageError, which names the rule and the grammar, for a wrong one."""
    match = RULE.fullmatch(text.strip())
    try:
        if match is not None:
            return Rule(text.strip(), match[1], expectation(match[2]))
    except UsageError:
        pass  # raised below, with the whole rule
    raise UsageError(f"{text!r} is no rule", GRAMMAR)
