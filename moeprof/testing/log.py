"""What one test captured and asserted, and what becomes of an assertion that fails or cannot be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from moeprof.loaded.test_run import Captured, Case, Check

Policy = Literal["fail", "skip"]


@dataclass
class Log:
    """``unknown`` and ``unclear`` say what becomes of assertions that end so: the test fails or is skipped."""

    unknown: Policy = "fail"
    unclear: Policy = "fail"
    captures: list[Captured] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def settle(self, check: Check, policy: Policy | None = None) -> None:
        """Keep the assertion; raise AssertionError where it fails, skip the test where it cannot be told and that is asked for."""
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
        """All of it; None where the test captured and asserted nothing."""
        if not self.captures and not self.checks:
            return None
        return Case(nodeid, outcome, worker, tuple(self.captures), tuple(self.checks))
