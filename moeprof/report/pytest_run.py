"""A pytest run as a page: every test that captured something, its ledger, its assertions, how it ended."""

from __future__ import annotations

import plotly.graph_objects as go

from moeprof import units
from moeprof.loaded import pytest_run
from moeprof.loaded.pytest_run import Captured, Case, Check, Run
from moeprof.report.figures import bars as figures
from moeprof.report.figures.style import IDLE, LEDGER
from moeprof.report.glossary import GLOSSARY, occurring
from moeprof.report.page import Listing, Page, Section, Table, glossary, section
from moeprof.report.tables import CAUSES

MOST_BARS = 40  # more captures than that are in the tables alone
LONGEST = 24  # characters of a bar's name


def page(run: Run) -> Page:
    """The page; its lead reports whether anything was captured."""
    lead = (
        f"{len(run.tests)} tests captured GPU work or compared times: {run.held} of {run.checks} assertions held."
        if run.tests
        else "No test captured anything: none used the fixture moeprof, or all that do were skipped."
    )
    note = "Traced times carry the profiler's overhead; a speed-up was timed without it. Values are per iteration."
    summary = section("tests", _title(run), note, _ledgers(run), (_tests(run), *_bars_left_out(run)))
    tests = (_test(number, test) for number, test in enumerate(run.tests))
    sections = (*((summary,) if run.tests else ()), *tests)
    words = occurring(GLOSSARY, sections)
    return Page("GPU work of a pytest run", lead, (*sections, *((glossary(words),) if words else ())))


def _title(run: Run) -> str:
    return f"{len(run.tests)} tests, {run.failed} failed"


def _test(number: int, test: Case) -> Section:
    """One test: what its assertions reported, then its tables."""
    tables = (_assertions(test), *(t for c in test.captures for t in (_ledger(c), _causes(c), _kernels(c))))
    return Section(
        f"test-{number}",
        f"{test.nodeid}: {test.outcome}",
        above=tuple(Listing(c.detail) for c in test.checks if c.detail),
        tables=tuple(t for t in tables if t.rows),
        open="short",
        folded=test.outcome == "passed",
        nav=test.nodeid.rpartition("::")[2],
    )


def _tests(run: Run) -> Table:
    rows = tuple(
        (t.nodeid, t.outcome, str(len(t.captures)), f"{t.held} of {len(t.checks)}", t.worker or units.DASH)
        for t in run.tests
    )  # fmt: skip
    return Table("Tests", ("test", "outcome", "captures", "assertions that held", "process"), rows, plain=True)


def _assertions(test: Case) -> Table:
    rows = tuple((c.name, _value(c), c.limit, c.outcome, str(c.capture or units.DASH)) for c in test.checks)
    return Table("Assertions", ("what", "value", "limit", "outcome", "capture"), rows, plain=True)


def _value(check: Check) -> str:
    return units.DASH if check.value is None else f"{check.value:.4g} {check.unit}".rstrip()


def _ledger(capture: Captured) -> Table:
    """One iteration of a capture, category by category."""
    window = capture.window
    caption = f"Capture {capture.number}: ledger per iteration ({capture.device}, mean of {capture.iterations})"
    if window is None or capture.span_ns is None:
        reason = capture.problem or "nothing ran"
        return Table(caption, ("category", "time"), ((reason, units.DASH),), plain=True)
    parts = [(label, getattr(window.ledger, key)) for label, key, _ in LEDGER]
    parts += [(label, getattr(window.idle, key)) for label, key, _ in IDLE]
    rows = [(label, units.ms(capture.per_iteration(ns))) for label, ns in parts if ns]
    rows.append(("sum", units.ms(capture.span_ns)))
    rows += [
        ("launches", _number(pytest_run.launches(capture))),
        ("synchronising calls", _number(pytest_run.sync_calls(capture))),
    ]
    rows += [("copy overlap", units.percent(pytest_run.copy_overlap(capture)))]
    return Table(caption, ("category", "value"), tuple(rows), plain=True)


def _number(value: float | None) -> str:
    return units.DASH if value is None else f"{value:g}"


def _causes(capture: Captured) -> Table:
    causes = capture.window.exposed_causes if capture.window else ()
    rows = tuple(
        (CAUSES.get(c.cause, c.cause), c.what, str(c.stream), units.ms(capture.per_iteration(c.total_ns)), c.try_)
        for c in causes
    )
    return Table(
        f"Capture {capture.number}: exposed copies per iteration",
        ("cause", "call", "stream", "time", "try"),
        rows,
        plain=True,
    )


def _kernels(capture: Captured) -> Table:
    per = capture.per_iteration
    rows = tuple((k.name, f"{per(k.count):g}", units.us(per(k.total_ns))) for k in capture.kernels)
    what = "operators" if capture.device == "cpu" else "kernels"
    return Table(f"Capture {capture.number}: {what} per iteration", ("name", "count", "time"), rows)


def _bars(run: Run) -> list[tuple[str, Captured]]:
    captures = [(t, c) for t in run.tests for c in t.captures if c.span_ns is not None]
    named = [(f"{_short(t.nodeid)} ({c.number})", c) for t, c in captures]
    return [(f"{n + 1}. {name}", c) for n, (name, c) in enumerate(named)]


def _short(nodeid: str) -> str:
    name = nodeid.rpartition("::")[2]
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _bars_left_out(run: Run) -> tuple[Table, ...]:
    left = _bars(run)[MOST_BARS:]
    rows = tuple((name, units.ms(c.span_ns)) for name, c in left)
    return (Table("Captures that the figure leaves out", ("capture", "iteration"), rows),) if rows else ()


def _ledgers(run: Run) -> go.Figure | None:
    """One stacked bar a capture: every nanosecond of an iteration under one owner."""
    bars = [(name, c.window, c.iterations) for name, c in _bars(run)[:MOST_BARS] if c.window]
    return figures.stacked(bars) if bars else None
