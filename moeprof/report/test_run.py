"""A pytest run as a page: every test that captured something, its ledger, its assertions, how it ended."""

from __future__ import annotations

import plotly.graph_objects as go

from moeprof import units
from moeprof.loaded import test_run
from moeprof.loaded.test_run import Captured, Case, Check, Run
from moeprof.report.figures import bars as figures
from moeprof.report.figures.style import IDLE, LEDGER
from moeprof.report.glossary import GLOSSARY
from moeprof.report.page import Listing, Page, Section, Table, glossary, section
from moeprof.report.tables import CAUSES

MOST_BARS = 40  # more captures than that are in the tables alone
LONGEST = 24  # characters of a bar's name


def page(run: Run) -> Page:
    """The page; if nothing was captured, its lead says so."""
    checks = [c for t in run.tests for c in t.checks]
    passed = sum(c.outcome == "passed" for c in checks)
    lead = (
        f"{len(run.tests)} tests captured GPU work or compared times: {passed} of {len(checks)} assertions held."
        if run.tests
        else "No test captured anything: none used the fixture moeprof, or all that do were skipped."
    )
    note = "Traced times carry the profiler's overhead; a speed-up was timed without it. Values are of one iteration."
    summary = section("tests", _title(run), note, _ledgers(run), (_tests(run), *_bars_left_out(run)))
    tests = (_test(number, test) for number, test in enumerate(run.tests))
    return Page("GPU work of a pytest run", lead, (*((summary,) if run.tests else ()), *tests, glossary(GLOSSARY)))


def _title(run: Run) -> str:
    failed = sum(t.outcome == "failed" for t in run.tests)
    return f"{len(run.tests)} tests, {failed} failed"


def _test(number: int, test: Case) -> Section:
    """One test: what its assertions reported, then its tables."""
    tables = (_assertions(test), *(t for c in test.captures for t in (_ledger(c), _causes(c), _kernels(c))))
    return Section(
        f"test-{number}",
        f"{test.nodeid}: {test.outcome}",
        above=tuple(Listing(c.detail) for c in test.checks if c.detail),
        tables=tuple(t for t in tables if t.rows),
        open="short",
    )


def _tests(run: Run) -> Table:
    rows = tuple(
        (t.nodeid, t.outcome, str(len(t.captures)), f"{sum(c.outcome == 'passed' for c in t.checks)} of {len(t.checks)}", t.worker or units.DASH)
        for t in run.tests
    )  # fmt: skip
    return Table("Tests", ("test", "outcome", "captures", "assertions that held", "process"), rows, plain=True)


def _assertions(test: Case) -> Table:
    rows = tuple((c.name, _value(c), c.limit, c.outcome, str(c.capture or units.DASH)) for c in test.checks)
    return Table("Assertions", ("what", "value", "limit", "outcome", "capture"), rows, plain=True)


def _value(check: Check) -> str:
    return units.DASH if check.value is None else f"{check.value:.4g} {check.unit}".rstrip()


def _ledger(found: Captured) -> Table:
    """One iteration of a capture, category by category."""
    window, each = found.window, found.iterations
    caption = f"Capture {found.number}: ledger of an iteration ({found.device}, mean of {each})"
    if window is None or not window.span_ns:
        reason = found.problem or "nothing ran"
        return Table(caption, ("category", "time"), ((reason, units.DASH),), plain=True)
    parts = [(label, getattr(window.ledger, key)) for label, key, _ in LEDGER]
    parts += [(label, getattr(window.idle, key)) for label, key, _ in IDLE]
    rows = [(label, units.ms(ns / each)) for label, ns in parts if ns] + [("sum", units.ms(window.span_ns / each))]
    rows += [
        ("launches", _number(test_run.launches(found))),
        ("synchronising calls", _number(test_run.sync_calls(found))),
    ]
    rows += [("copy overlap", units.percent(test_run.copy_overlap(found)))]
    return Table(caption, ("category", "value"), tuple(rows), plain=True)


def _number(value: float | None) -> str:
    return units.DASH if value is None else f"{value:g}"


def _causes(found: Captured) -> Table:
    causes = found.window.exposed_causes if found.window else ()
    rows = tuple(
        (CAUSES.get(c.cause, c.cause), c.what, str(c.stream), units.ms(c.total_ns / found.iterations), c.try_)
        for c in causes
    )
    return Table(
        f"Capture {found.number}: exposed copies of an iteration",
        ("cause", "call", "stream", "time", "try"),
        rows,
        plain=True,
    )


def _kernels(found: Captured) -> Table:
    each = found.iterations
    rows = tuple((k.name, f"{k.count / each:g}", units.us(k.total_ns / each)) for k in found.kernels)
    what = "operators" if found.device == "cpu" else "kernels"
    return Table(f"Capture {found.number}: {what} of an iteration", ("name", "count", "time"), rows)


def _bars(run: Run) -> list[tuple[str, Captured]]:
    found = [(t, c) for t in run.tests for c in t.captures if c.window is not None and c.window.span_ns]
    named = [(f"{_short(t.nodeid)} ({c.number})", c) for t, c in found]
    return [(f"{n + 1}. {name}", c) for n, (name, c) in enumerate(named)]


def _short(nodeid: str) -> str:
    name = nodeid.rpartition("::")[2]
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _bars_left_out(run: Run) -> tuple[Table, ...]:
    left = _bars(run)[MOST_BARS:]
    rows = tuple((name, units.ms(c.window.span_ns / c.iterations)) for name, c in left if c.window)
    return (Table("Captures that the figure leaves out", ("capture", "iteration"), rows),) if rows else ()


def _ledgers(run: Run) -> go.Figure | None:
    """One stacked bar a capture: every nanosecond of an iteration under one owner."""
    bars = [(name, c.window, c.iterations) for name, c in _bars(run)[:MOST_BARS] if c.window]
    return figures.stacked(bars) if bars else None
