"""What the tests of a pytest run captured and asserted. The plugin stores it, the page shows it.

Numbers of a capture are totals over its ``iterations``; the functions here give them for one iteration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from moeprof.analysis.model import Copies, Kernel, Window
from moeprof.notes import Note

SCHEMA_VERSION = 1
LAUNCHES = ("launch", "graph_launch")  # kinds of host calls that launch kernels
INSIDE_A_DEVICE = "D2D"  # these copies use memory, not a link; they count for overlap only if requested

Outcome = Literal["passed", "failed", "unknown", "unclear"]


@dataclass(frozen=True)
class Check:
    """One assertion: its name, the value per iteration (None: not known), the limit, and the outcome."""

    name: str
    value: float | None
    unit: str
    limit: str
    outcome: Outcome
    detail: str = ""
    capture: int | None = None  # its number in the test, where it speaks of one


@dataclass(frozen=True)
class Captured:
    """One capture of a test: the window from its first operation on the device to its last one's end.

    Attributes:
        device: "cuda", or "cpu", where operators stand in for kernels; "trace" where a recorded trace was read.
        window: None where nothing ran.
        kernels: by name over all iterations (on a CPU: operators that no other one encloses).
        calls_known: whether host calls were recorded; without, launches and synchronising calls are not known.
        problem: why there are no numbers.
    """

    number: int
    device: str
    iterations: int
    window: Window | None = None
    kernels: tuple[Kernel, ...] = ()
    calls_known: bool = False
    notes: tuple[Note, ...] = ()
    problem: str = ""

    @property
    def span_ns(self) -> float | None:
        """The time of one iteration; None where nothing ran."""
        return None if self.window is None or not self.window.span_ns else self.per_iteration(self.window.span_ns)

    def per_iteration(self, total: float) -> float:
        """A total per iteration."""
        return total / self.iterations


@dataclass(frozen=True)
class Case:
    """One test that captured or compared something; ``worker`` names the process where several ran tests."""

    nodeid: str
    outcome: str
    worker: str = ""
    captures: tuple[Captured, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def held(self) -> int:
        """How many assertions passed."""
        return sum(check.outcome == "passed" for check in self.checks)


@dataclass(frozen=True)
class Run:
    """A pytest run: the tests that captured something, by name."""

    moeprof: str
    tests: tuple[Case, ...] = ()
    schema_version: int = field(default=SCHEMA_VERSION)

    @property
    def failed(self) -> int:
        """How many tests failed."""
        return sum(test.outcome == "failed" for test in self.tests)

    @property
    def checks(self) -> int:
        """How many assertions were made."""
        return sum(len(test.checks) for test in self.tests)

    @property
    def held(self) -> int:
        """How many of them passed."""
        return sum(test.held for test in self.tests)


def launches(captured: Captured) -> float | None:
    """Launch calls (a replay of a CUDA graph is one) per iteration; None where calls are not known."""
    return _calls(captured, LAUNCHES)


def sync_calls(captured: Captured) -> float | None:
    """Host calls per iteration that wait for the device; None where calls are not known."""
    if not captured.calls_known:
        return None
    return captured.window.launch.sync_calls / captured.iterations if captured.window else 0.0


def _calls(captured: Captured, kinds: tuple[str, ...]) -> float | None:
    if not captured.calls_known:
        return None
    calls = captured.window.launch.calls if captured.window else ()
    return sum(c.count for c in calls if c.kind in kinds) / captured.iterations


def copies(captured: Captured, direction: str | None) -> tuple[Copies, ...]:
    """The copies of a direction (H2D, D2H, P2P, D2D, H2H); without one all but those inside a device."""
    listed = captured.window.copies if captured.window else ()
    return tuple(
        c for c in listed if (c.direction != INSIDE_A_DEVICE if direction is None else c.direction == direction)
    )


def copy_overlap(captured: Captured, direction: str | None = None) -> float | None:
    """Share of the copy time that runs beside kernels (docs/reference/metrics.md); None where nothing was copied."""
    chosen = copies(captured, direction)
    busy = sum(c.busy_ns for c in chosen)
    return sum(c.overlapped_ns for c in chosen) / busy if busy else None


def exposed_copy_ns(captured: Captured, direction: str | None = None) -> float:
    """Time per iteration in which only copies run; of one direction, the time of its copies that runs beside no kernel."""
    if captured.window is None:
        return 0.0
    if direction is None:
        return captured.window.ledger.exposed_copy_ns / captured.iterations
    return sum(c.exposed_ns for c in copies(captured, direction)) / captured.iterations
