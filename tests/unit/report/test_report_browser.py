"""The pages of reports in a real browser, with and without WebGL."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser.chromium import CHROMIUM, Browser
from builders.sample_captures import marked
from fakes.command_line import moeprof
from pages import rendered
from recorded import recordings

from moeprof import resources
from moeprof.loaded.capture import Capture

SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_the_page_in_a_browser(browser: Browser, page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    browser.events.clear()
    browser.open(page, width=width, dark=dark)
    figures = browser.evaluate(
        "[...document.querySelectorAll('.figure')].map(f => f.querySelectorAll('.main-svg').length > 0 && f.getBoundingClientRect().height > 100)"
    )
    assert len(figures) >= 7 and all(figures), "every figure is drawn"
    assert browser.evaluate("document.body.innerText.includes('WebGL is not supported')") is False
    assert browser.evaluate("document.querySelectorAll('#figure-timeline canvas').length") > 0, (
        "the timeline is drawn with WebGL"
    )
    assert browser.evaluate(
        "[...document.querySelectorAll('.figure')].every(f => f.closest('section').querySelector('table'))"
    )
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
        "no sideways scrolling of the page"
    )
    assert browser.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert browser.evaluate(
        "[...document.querySelectorAll('.modebar-btn')].every(b => !/share|cloud|send/i.test(b.dataset.title || ''))"
    )
    browser.evaluate("document.getElementById('theme').click()")
    assert browser.evaluate("document.documentElement.dataset.theme") == ("light" if dark else "dark")
    browser.screenshot(tmp_path / "page.png")
    assert browser.requests() == [] and browser.complaints() == []


@pytest.mark.browser
def test_disturbed_rounds_are_drawn_as_crosses(browser: Browser, sample: Capture, tmp_path: Path) -> None:
    page, shown = tmp_path / "marked.html", marked(sample)
    page.write_text(rendered(shown), encoding="utf-8")
    browser.events.clear()
    browser.open(page, width=390)
    assert "overlap, disturbed" in browser.evaluate("document.querySelector('#figure-times .legend').textContent")
    paths = "[...document.querySelectorAll('#figure-times .trace.scatter')].map(t => [...t.querySelectorAll('path.point')].map(p => p.getAttribute('d')[0] + p.getAttribute('d').length))"
    shapes = [set(marks) for marks in browser.evaluate(paths)]
    assert len(shapes) == 8 and len(set.union(*shapes)) == 2, "circles and crosses"
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert "What decided" in browser.evaluate("document.querySelector('#variants').innerText")
    assert browser.requests() == [] and browser.complaints() == []


@pytest.mark.browser
def test_without_webgl_the_timeline_is_drawn_all_the_same(page: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH")
    with Browser(webgl=False) as browser:
        browser.open(page)
        assert browser.evaluate("document.body.innerText.includes('WebGL is not supported')") is False
        assert browser.evaluate("document.querySelectorAll('#figure-timeline .scatterlayer .trace').length") > 5
        assert browser.requests() == []


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_of_two_traces_in_a_browser(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    page = tmp_path / "two.html"
    pair = [str(recordings.path(f"graph-opportunity-{form}")) for form in ("faulty", "mended")]
    ran = moeprof("report", "--diff", *pair, "-o", str(page), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    browser.events.clear()
    browser.open(page, width=width, dark=dark)
    drawn = "[...document.querySelectorAll('.figure')].map(f => f.querySelectorAll('.main-svg').length > 0)"
    assert browser.evaluate(drawn) == [True]
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert "graph-opportunity" in browser.evaluate("document.querySelector('#findings').innerText")
    assert browser.requests() == [] and browser.complaints() == []
