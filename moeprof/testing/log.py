"""The captures and assertions of one test, and the outcome of an assertion that fails or is not known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from moeprof.loaded.pytest_run import Captured, Case, Check

Policy = Literal["fail", "skip"]


@dataclass
class Log:
    """``unknown`` and ``unclear`` are the outcomes of such assertions: the test fails or is skipped."""

    unknown: Policy = "fail"
    unclear: Policy = "fail"
    captures: list[Captured] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def settle(self, check: Check, policy: Policy | None = None) -> None:
        """Save the assertion. A failed one raises AssertionError; an unknown or unclear one fails or skips the test, as configured."""
        __tracebackhide__ = True
        self.checks.append(check)
        if check.outcome == "passed":
            return
        if check.outcome == "failed":
            raise AssertionError(check.detail)
        chosen = policy or (self.unknown if check.outcome == "unknown" else self.unclear)
        if chosen == "skip":
            import pytest

            pytest.skip(check.detail)
        raise AssertionError(check.detail)

    def case(self, nodeid: str, outcome: str, worker: str) -> Case | None:
        """The record of the test; None if it captured and asserted nothing."""
        if not self.captures and not self.checks:
            return None
        return Case(nodeid, outcome, worker, tuple(self.captures), tuple(self.checks))
