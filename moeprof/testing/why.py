"""The message of a failed assertion: the kernels, calls or copies that caused it, and a short ledger of the capture."""

from __future__ import annotations

import re
from collections.abc import Iterable

from moeprof import units
from moeprof.analysis.call_sites import Site
from moeprof.loaded import pytest_run
from moeprof.loaded.pytest_run import Captured
from moeprof.report.figures.style import IDLE, LEDGER
from moeprof.report.tables import CAUSES

MOST = 6  # lines of one kind


def ledger(capture: Captured) -> str:
    """One iteration in three lines: time by owner, idle time by cause, counts."""
    window = capture.window
    if window is None or not window.span_ns:
        return f"ledger: nothing ran on the {_place(capture)}"
    iterations = capture.iterations
    parts = [(label, getattr(window.ledger, key)) for label, key, _ in LEDGER] + [("idle", window.ledger.idle_ns)]
    idle = [(label.removeprefix("idle: "), getattr(window.idle, key)) for label, key, _ in IDLE]
    head = f"ledger of an iteration on {_place(capture)} (mean of {iterations}): {units.ms(window.span_ns / iterations)} = {_sum(parts, iterations)}"
    lines = [head]
    if window.ledger.idle_ns:
        lines.append(f"  idle by what the host did: {_sum(idle, iterations)}")
    lines.append(
        f"  launches {_count(pytest_run.launches(capture))}, kernels {_count(_kernels(capture))}, "
        f"synchronising calls {_count(pytest_run.sync_calls(capture))}"
    )
    return "\n".join(lines + [f"  {n.severity}: {n.text}" for n in capture.notes if n.severity != "info"])


def _place(capture: Captured) -> str:
    if capture.device == "cpu":
        return "CPU (operators in place of kernels)"
    return f"device {capture.window.device}" if capture.window else "device"


def _sum(parts: list[tuple[str, int]], iterations: int) -> str:
    return " + ".join(f"{label} {units.ms(ns / iterations)}" for label, ns in parts if ns) or "0"


def _count(value: float | None) -> str:
    return units.DASH if value is None else f"{value:g}"


def _kernels(capture: Captured) -> float:
    return sum(k.count for k in capture.kernels) / capture.iterations


def kernels(capture: Captured, patterns: Iterable[str] = (), inside: bool = True) -> str:
    """The kernels whose names match a pattern (``inside`` False: match none), the most time first."""
    wanted = [re.compile(p) for p in patterns]
    listed = (
        [k for k in capture.kernels if any(p.search(k.name) for p in wanted) == inside] if wanted else capture.kernels
    )
    iterations = capture.iterations
    lines = [
        f"  {k.count / iterations:g} x {k.name[:160]} ({units.us(k.total_ns / iterations)} per iteration)"
        for k in listed
    ]
    return _listed(lines)


def places(capture: Captured, sites: tuple[Site, ...]) -> str:
    """Host calls by name and operator."""
    where = {s: f" inside {s.operator}" if s.operator.startswith("aten") else f" {s.operator}" for s in sites}
    where |= {s: f" in {s.operator}" for s in sites if s.operator and not s.operator.startswith(("aten", "outside"))}
    iterations = capture.iterations
    return _listed(
        [
            f"  {s.count / iterations:g} x {s.call}{where[s]} ({units.us(s.total_ns / iterations)} per iteration)"
            for s in sites
        ]
    )


def exposed(capture: Captured, direction: str | None) -> str:
    """The exposed copies by cause, with the call, the stream and a suggestion."""
    causes = capture.window.exposed_causes if capture.window else ()
    iterations = capture.iterations
    return _listed(
        [
            f"  {units.ms(c.total_ns / iterations)} of {c.what}, stream {c.stream}: {CAUSES.get(c.cause, c.cause)}; try: {c.try_}"
            for c in causes
            if direction is None or c.what.startswith(direction)
        ]
    )


def idle(capture: Captured) -> str:
    """Idle time by cause."""
    causes = capture.window.idle_causes if capture.window else ()
    iterations = capture.iterations
    return _listed([f"  {units.ms(c.total_ns / iterations)} {c.cause}: {c.what}; try: {c.try_}" for c in causes])


def _listed(lines: list[str]) -> str:
    more = [f"  ... and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return "\n".join(lines[:MOST] + more)
