"""The text of a failing assertion: what offended, and the small ledger of the capture."""

from __future__ import annotations

import re
from collections.abc import Iterable

from moeprof import units
from moeprof.analysis.call_sites import Site
from moeprof.loaded import test_run
from moeprof.loaded.test_run import Captured
from moeprof.report.figures.style import IDLE, LEDGER
from moeprof.report.tables import CAUSES

MOST = 6  # lines of one kind


def ledger(found: Captured) -> str:
    """One iteration in three lines: its time by owner, idle by cause, what the host did."""
    window = found.window
    if window is None or not window.span_ns:
        return f"ledger: nothing ran on the {_place(found)}"
    each = found.iterations
    parts = [(label, getattr(window.ledger, key)) for label, key, _ in LEDGER] + [("idle", window.ledger.idle_ns)]
    idle = [(label.removeprefix("idle: "), getattr(window.idle, key)) for label, key, _ in IDLE]
    head = f"ledger of an iteration on {_place(found)} (mean of {each}): {units.ms(window.span_ns / each)} = {_sum(parts, each)}"
    lines = [head]
    if window.ledger.idle_ns:
        lines.append(f"  idle by what the host did: {_sum(idle, each)}")
    lines.append(
        f"  launches {_count(test_run.launches(found))}, kernels {_count(_kernels(found))}, "
        f"synchronising calls {_count(test_run.sync_calls(found))}"
    )
    return "\n".join(lines + [f"  {n.severity}: {n.text}" for n in found.notes if n.severity != "info"])


def _place(found: Captured) -> str:
    if found.device == "cpu":
        return "CPU (operators stand in for kernels)"
    return f"device {found.window.device}" if found.window else "device"


def _sum(parts: list[tuple[str, int]], each: int) -> str:
    return " + ".join(f"{label} {units.ms(ns / each)}" for label, ns in parts if ns) or "0"


def _count(value: float | None) -> str:
    return units.DASH if value is None else f"{value:g}"


def _kernels(found: Captured) -> float:
    return sum(k.count for k in found.kernels) / found.iterations


def kernels(found: Captured, patterns: Iterable[str] = (), inside: bool = True) -> str:
    """The kernels whose names a pattern finds (or, not ``inside``, that none finds), the most time first."""
    wanted = [re.compile(p) for p in patterns]
    listed = [k for k in found.kernels if any(p.search(k.name) for p in wanted) == inside] if wanted else found.kernels
    each = found.iterations
    lines = [f"  {k.count / each:g} x {k.name[:160]} ({units.us(k.total_ns / each)} an iteration)" for k in listed]
    return _listed(lines)


def places(found: Captured, sites: tuple[Site, ...]) -> str:
    """Host calls by name and operator."""
    where = {s: f" inside {s.operator}" if s.operator.startswith("aten") else f" {s.operator}" for s in sites}
    where |= {s: f" in {s.operator}" for s in sites if s.operator and not s.operator.startswith(("aten", "outside"))}
    each = found.iterations
    return _listed(
        [f"  {s.count / each:g} x {s.call}{where[s]} ({units.us(s.total_ns / each)} an iteration)" for s in sites]
    )


def exposed(found: Captured, direction: str | None) -> str:
    """The exposed copies by cause, with the call, the stream and what to try."""
    causes = found.window.exposed_causes if found.window else ()
    each = found.iterations
    return _listed(
        [
            f"  {units.ms(c.total_ns / each)} of {c.what}, stream {c.stream}: {CAUSES.get(c.cause, c.cause)}; try: {c.try_}"
            for c in causes
            if direction is None or c.what.startswith(direction)
        ]
    )


def idle(found: Captured) -> str:
    """Idle time by cause."""
    causes = found.window.idle_causes if found.window else ()
    each = found.iterations
    return _listed([f"  {units.ms(c.total_ns / each)} {c.cause}: {c.what}; try: {c.try_}" for c in causes])


def _listed(lines: list[str]) -> str:
    more = [f"  ... and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return "\n".join(lines[:MOST] + more)
