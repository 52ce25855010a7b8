"""What a reader does on a trace's page, in a real browser: sort, mark, zoom, follow the contents, read on a phone."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from browser.chromium import Browser
from paths import TRACES
from recorded import recordings

from moeprof.analysis.device import views
from moeprof.loaded.trace import analysis_of
from moeprof.report import html, trace_page
from moeprof.report.figures.timeline_data import timeline_data
from moeprof.trace import Trace, read

pytestmark = pytest.mark.browser
WAIT = "new Promise(done => setTimeout(() => done(1), 250))"


def written(of: Trace, path: Path) -> Path:
    prepared = views(of)
    analysis = analysis_of(of, prepared=prepared)
    drawn = timeline_data(of, prepared, analysis.findings, trace_page.passes_shown(analysis))
    path.write_text(html.render(trace_page.page(of, analysis, drawn, path.name)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(recordings.trace("tiny-copies-faulty"), tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture(scope="module")
def ranged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with an icicle and steps."""
    return written(recordings.trace("graph-opportunity-faulty"), tmp_path_factory.mktemp("page") / "ranged.html")


def opened(browser: Browser, path: Path, width: int = 1440, dark: bool = False) -> None:
    browser.events.clear()
    browser.call("Page.navigate", url="about:blank")
    browser.open(path, width=width, dark=dark)


def test_a_click_on_a_header_sorts(browser: Browser, ranged: Path) -> None:
    opened(browser, ranged)
    table = "[...document.querySelectorAll('table.marks')][0]"
    cells = f"[...{table}.tBodies[0].rows].map(r => Number(r.cells[2].textContent.replace(/,/g, '')))"
    before = browser.evaluate(cells)
    assert len(before) > 2
    heads = f"[...{table}.tHead.rows[0].cells].map(c => c.getAttribute('aria-sort'))"
    assert browser.evaluate(heads)[3] == "descending"
    click = f"{table}.tHead.rows[0].cells[2].querySelector('button').click()"
    browser.evaluate(click)
    assert browser.evaluate(cells) == sorted(before, reverse=True)
    assert [h for h in browser.evaluate(heads) if h] == ["descending"] and browser.evaluate(heads)[2] == "descending"
    browser.evaluate(click)
    assert browser.evaluate(cells) == sorted(before) and browser.evaluate(heads)[2] == "ascending"
    browser.evaluate(f"{table}.tHead.rows[0].cells[5].querySelector('button').click()")
    units = {"µs": 1e3, "ms": 1e6, "s": 1e9}
    medians = browser.evaluate(f"[...{table}.tBodies[0].rows].map(r => r.cells[5].textContent)")
    values = [float(number.replace(",", "")) * units[unit] for number, unit in map(str.split, medians)]
    assert values == sorted(values, reverse=True), "µs and ms are compared by what they mean"
    assert browser.complaints() == [] and browser.requests() == []


def test_a_click_on_a_kernel_marks_it_in_the_timeline(browser: Browser, ranged: Path) -> None:
    opened(browser, ranged)
    browser.evaluate(
        "document.querySelector('figure.timeline').addEventListener('timeline:mark', e => { window.told = e.detail; })"
    )
    button = "document.querySelector('table.marks tbody th button')"
    browser.evaluate(f"{button}.click()")
    label = browser.evaluate(f"{button}.textContent")
    assert browser.evaluate("window.told.name") == label
    names = "JSON.parse(document.querySelector('figure.timeline script').textContent).names"
    assert label in browser.evaluate(names), "the timeline knows the kernel by this name"
    assert browser.evaluate(
        f"[{button}.getAttribute('aria-pressed'), document.querySelectorAll('tr.chosen').length]"
    ) == ["true", 1]
    browser.evaluate(f"{button}.click()")
    assert (
        browser.evaluate("window.told") is None
        and browser.evaluate("document.querySelectorAll('tr.chosen').length") == 0
    )


def test_the_icicle_zooms_by_mouse_and_keyboard(browser: Browser, ranged: Path) -> None:
    opened(browser, ranged)
    widths = "[...document.querySelectorAll('.icicle button')].map(b => [b.textContent, Math.round(b.getBoundingClientRect().width)])"
    whole = browser.evaluate(widths)
    full = whole[0][1]
    part = next(name for name, width in whole[1:] if 40 < width < full - 40)
    choose = f"[...document.querySelectorAll('.icicle button')].find(b => b.textContent === {json.dumps(part)})"
    browser.evaluate(f"{choose}.click()")
    zoomed = dict(browser.evaluate(widths))
    inside = browser.evaluate("document.querySelector('.icicle-detail').textContent")
    assert max(zoomed.values()) == full and zoomed != dict(whole)
    assert "of GPU time" in inside

    def press(key: str) -> None:
        browser.evaluate(
            f"document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}', bubbles: true}}))"
        )

    press("Escape")
    assert browser.evaluate(widths) == whole
    assert browser.evaluate("document.activeElement.dataset.id") == "0"
    press("ArrowDown")
    press("ArrowDown")
    below = browser.evaluate("document.activeElement.dataset.id")
    press("ArrowRight")
    beside = browser.evaluate("document.activeElement.dataset.id")
    press("ArrowUp")
    above = browser.evaluate("document.activeElement.dataset.id")
    assert len({"0", above, below, beside}) == 4, "down twice, beside, and up again"
    assert browser.evaluate("document.querySelectorAll('.icicle button[tabindex=\"0\"]').length") == 1
    assert browser.complaints() == []


def test_a_step_leads_to_its_place_in_the_timeline(browser: Browser, ranged: Path) -> None:
    opened(browser, ranged)
    rows = browser.evaluate("[...document.querySelectorAll('.passes .pass, .heat a')].length")
    assert rows >= 3
    browser.evaluate("document.querySelectorAll('.passes .pass, .heat a')[2].click()")
    browser.evaluate(WAIT)
    first, last = (float(x) for x in browser.evaluate("location.hash").removeprefix("#t=").split("-"))
    view = [int(x) / 1e6 for x in browser.evaluate("document.querySelector('figure.timeline').dataset.view").split("-")]
    assert view == pytest.approx([first, last], abs=0.02)
    box = browser.evaluate("document.querySelector('figure.timeline').getBoundingClientRect().top")
    assert -5 < box < 200, "the figure is in view"


def test_every_anchor_resolves_and_folded_sections_open(browser: Browser, page: Path) -> None:
    opened(browser, page)
    missing = browser.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href').slice(1)).filter(h => h && !h.startsWith('t=') && !document.getElementById(h))"
    )
    assert missing == []
    assert browser.evaluate("document.querySelectorAll('.contents a').length") >= 6
    folded = browser.evaluate("[...document.querySelectorAll('section:has(> details.folded)')].map(s => s.id)")
    assert "glossary" in folded
    browser.evaluate("document.querySelector('.contents a[href=\"#glossary\"]').click()")
    browser.evaluate(WAIT)
    assert browser.evaluate("document.querySelector('#glossary > details').open") is True


def test_a_word_explains_itself(browser: Browser, page: Path) -> None:
    opened(browser, page)
    browser.evaluate("document.querySelector('button.term').focus(); document.querySelector('button.term').click()")
    browser.evaluate(WAIT)
    box = "document.querySelector('.definition:popover-open')"
    assert browser.evaluate(f"{box}.textContent.length") > 20
    assert browser.evaluate(f"{box}.getBoundingClientRect().right <= innerWidth")


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_scrolls_sideways_but_tables_that_say_so(browser: Browser, page: Path, dark: bool) -> None:
    opened(browser, page, 390, dark)
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    browser.evaluate("document.querySelectorAll('main details').forEach(d => { d.open = true; })")
    browser.evaluate(WAIT)
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    silent = "[...document.querySelectorAll('.scroll')].filter(b => b.scrollWidth > b.clientWidth + 2 && !b.classList.contains('sideways')).length"
    assert (
        browser.evaluate("document.querySelectorAll('.scroll.sideways').length") > 0 and browser.evaluate(silent) == 0
    )
    assert browser.evaluate("document.querySelector('.contents details').open") is False
    assert browser.complaints() == []


def test_without_javascript_the_page_has_its_tables_and_says_so(browser: Browser, page: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.call("Page.navigate", url=page.resolve().as_uri())
        time.sleep(1)
        root = browser.call("DOM.getDocument", depth=0)["root"][
            "nodeId"
        ]  # the DevTools protocol reads the page all the same
        found = browser.call("DOM.querySelectorAll", nodeId=root, selector="table tbody tr")["nodeIds"]
        note = browser.call("DOM.querySelectorAll", nodeId=root, selector="p.noscript")["nodeIds"]
        assert len(found) > 20 and len(note) == 1
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_on_paper_everything_is_open(browser: Browser, page: Path) -> None:
    opened(browser, page)
    browser.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate("document.querySelectorAll('main details:not([open])').length") == 0
    browser.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert browser.evaluate("document.querySelectorAll('main details:not([open])').length") > 0
    assert len(browser.call("Page.printToPDF", printBackground=True)["data"]) > 20_000


@pytest.mark.parametrize(
    "name",
    [
        "nsys/mfu_2gpu_after.sqlite",
        "nsys/h100_2gpu_1s.sqlite",
        "kineto/h100_qwen.json.gz",
        "kineto/hta_diff_test.json.gz",
    ],
)
def test_pages_of_real_traces_open_quickly_and_quietly(browser: Browser, tmp_path: Path, name: str) -> None:
    if not (TRACES / name).is_file():
        pytest.skip(f"the real traces are absent: {TRACES}")
    path = written(read(TRACES / name), tmp_path / "real.html")
    opened(browser, path)
    assert browser.evaluate("document.querySelectorAll('figure.timeline canvas').length") >= 2
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.evaluate("document.querySelectorAll('.icicle button').length") > 3
    assert browser.complaints() == [] and browser.requests() == []
