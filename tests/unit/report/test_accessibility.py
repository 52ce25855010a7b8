"""Every kind of page against axe-core's rules, in a real browser: none that keeps somebody from reading it is broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from browser.accessibility import serious, violations
from browser.chromium import Browser
from builders.sample_captures import made
from fakes.command_line import moeprof
from pages import rendered
from paths import TRACES
from recorded import recordings

from moeprof import resources
from moeprof.loaded import capture
from moeprof.report import html
from moeprof.report import session as shown
from moeprof.session import log, steps

pytestmark = pytest.mark.browser


def _trace(path: Path) -> None:
    _command(path, "report", str(recordings.path("graph-opportunity-faulty")))


def _variants(path: Path) -> None:
    _command(path, "report", "--sample", "kv_transfer", "--diff")


def _two_traces(path: Path) -> None:
    pair = [str(recordings.path(f"graph-opportunity-{form}")) for form in ("faulty", "mended")]
    _command(path, "report", "--diff", *pair)


def _ranks(path: Path) -> None:
    trace = TRACES / "nsys" / "mfu_2gpu_before.sqlite"
    if not trace.is_file():
        pytest.skip(f"the real traces are absent: {TRACES}")
    _command(path, "ranks", str(trace))


def _history(path: Path) -> None:
    folders = [str(made(path.parent / f"h{i}")) for i in range(3)]
    _command(path, "history", *folders)


def _session(path: Path) -> None:
    folder = resources.shipped("sessions", "first_investigation")
    session = log.read(folder)
    path.write_text(html.render(shown.page(session, steps.seen(folder, session))), encoding="utf-8")


def _capture(path: Path) -> None:
    path.write_text(rendered(capture.load(made(path.parent / "capture"))), encoding="utf-8")


def _command(path: Path, *words: str) -> None:
    ran = moeprof(*words, "-o", str(path), cwd=path.parent)
    assert path.is_file(), ran.stderr


KINDS: dict[str, Callable[[Path], None]] = {
    "trace": _trace, "variants": _variants, "two traces": _two_traces, "ranks": _ranks, "history": _history, "session": _session, "capture": _capture,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_breaks_no_serious_rule(browser: Browser, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "page.html"
    KINDS[kind](path)
    browser.call("Page.navigate", url="about:blank")
    browser.open(path, width=1440, dark=False)
    assert serious(browser) == [], "as it opens"
    browser.evaluate("document.querySelectorAll('main details').forEach(d => { d.open = true; })")
    browser.evaluate("new Promise(done => setTimeout(() => done(1), 200))")
    assert serious(browser) == [], "everything open"
    browser.show(width=390, dark=True)
    browser.evaluate("new Promise(done => setTimeout(() => done(1), 300))")
    assert browser.evaluate("innerWidth <= 390 && matchMedia('(prefers-color-scheme: dark)').matches")
    assert serious(browser) == [], "everything open, on a dark phone"


def test_the_check_sees_a_planted_fault(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        '<!doctype html><html lang="en" data-drawn="1"><title>t</title><main><h1>t</h1><img src="data:,"><button></button></main>',
        encoding="utf-8",
    )
    browser.call("Page.navigate", url="about:blank")
    browser.open(path)
    assert {v.rule for v in violations(browser)} >= {"image-alt", "button-name"}
