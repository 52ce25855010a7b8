"""The pages of reports in a real browser, with and without WebGL."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser.chromium import Browser
from builders.sample_captures import marked
from fakes.command_line import moeprof
from pages import rendered
from recorded import recordings

from moeprof import resources
from moeprof.loaded import capture
from moeprof.loaded.capture import Capture
from moeprof.report import rounds

SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"


OPEN_ALL = "document.querySelectorAll('details').forEach(d => { d.open = true; }); new Promise(done => setTimeout(() => done(1), 600))"
PAIR = "[...document.querySelectorAll('#timelines figure.timeline:not([hidden])')]"
MOST_BYTES = 1_600_000  # of a page of a built-in workload with a handful of variants
MOST_NODES = 9_000  # of SVG, with all sections open


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_the_page_in_a_browser(browser: Browser, page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    browser.events.clear()
    browser.open(page, width=width, dark=dark)
    assert browser.evaluate("document.querySelectorAll('section[id] > details:not([open])').length") >= 8, "folded"
    browser.evaluate(OPEN_ALL)
    figures = browser.evaluate(
        "[...document.querySelectorAll('.figure')].map(f => f.querySelectorAll('.main-svg').length > 0 && f.getBoundingClientRect().height > 100)"
    )
    assert len(figures) >= 6 and all(figures), "every figure is drawn, folded ones when they are opened"
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
    browser.screenshot(tmp_path / "page.png")
    assert browser.requests() == [] and browser.complaints() == []


@pytest.mark.browser
def test_two_iterations_one_above_the_other_on_one_scale(browser: Browser, page: Path) -> None:
    browser.events.clear()
    browser.open(page, width=1280)
    views = f"{PAIR}.map(f => f.timeline.view().map(Math.round))"
    upper, lower = browser.evaluate(views)
    assert upper == lower and upper[0] < 0 < upper[1], "both begin at their own iteration's start"
    titles = browser.evaluate("[...document.querySelectorAll('.tl-title')].map(t => t.innerText)")
    assert (
        titles[0].startswith("baseline")
        and browser.evaluate("document.querySelector('.tl-choice').value") == "timeline-2"
    )
    edge = f"{PAIR}.map(f => f.timeline.items().filter(i => i.kind === 'lane').map(i => i.lane.label))"
    labels = browser.evaluate(edge)
    assert "why idle" in labels[0] and any("CUDA graph · compute" in label for label in labels[1])
    assert not any("stream" in label for label in labels[1] if "graph" in label), (
        "branches of a graph are lanes by class"
    )
    browser.evaluate(f"{PAIR}[0].timeline.go(2e6, 5e6), new Promise(done => setTimeout(() => done(1), 500))")
    assert browser.evaluate(views) == [[2_000_000, 5_000_000]] * 2, "zoom and place are the same"
    assert browser.evaluate("location.hash") == "#t=2.0000-5.0000"
    browser.evaluate(
        "(s => { s.value = 'timeline-1'; s.dispatchEvent(new Event('change')); })(document.querySelector('.tl-choice'))"
    )
    assert browser.evaluate(f"{PAIR}.map(f => f.id)") == ["timeline-0", "timeline-1"]
    assert browser.evaluate(views) == [[2_000_000, 5_000_000]] * 2, "another variant is shown at the same place"
    kept = browser.evaluate("location.hash").removeprefix("#").split("&")
    assert sorted(kept) == ["t=2.0000-5.0000", "timeline-with=1"]
    assert browser.requests() == [] and browser.complaints() == []


@pytest.mark.browser
def test_the_place_in_the_url_is_shown_and_a_change_of_theme_keeps_it(browser: Browser, page: Path) -> None:
    browser.events.clear()
    browser.open(page, width=1280)
    browser.evaluate("location.hash = '#t=1.5-3&timeline-with=1', new Promise(done => setTimeout(() => done(1), 500))")
    views = f"{PAIR}.map(f => f.timeline.view().map(Math.round))"
    assert browser.evaluate(views) == [[1_500_000, 3_000_000]] * 2
    assert browser.evaluate(f"{PAIR}[1].id") == "timeline-1"
    ranges = "document.getElementById('figure-waterfall')._fullLayout.xaxis.range.map(v => v.toFixed(3))"
    whole = browser.evaluate(ranges)
    drag(browser, "#figure-waterfall .nsewdrag", (0.3, 0.6))
    zoomed = browser.evaluate(ranges)
    assert zoomed != whole
    before = browser.evaluate("document.documentElement.dataset.theme")
    browser.evaluate("document.getElementById('theme').click()")
    after = browser.evaluate("document.documentElement.dataset.theme")
    assert {before, after} == {"light", "dark"}
    assert browser.evaluate(views) == [[1_500_000, 3_000_000]] * 2
    assert browser.evaluate(ranges) == zoomed, "the figure keeps its zoom"
    browser.open(page, width=1280, dark=before == "dark")
    assert browser.evaluate("document.documentElement.dataset.theme") == after, "the choice is kept"
    browser.evaluate("localStorage.removeItem('moeprof-theme')")
    browser.open(page, width=1280, dark=True)
    assert browser.evaluate("document.documentElement.dataset.theme") == "dark"
    features = [{"name": "prefers-color-scheme", "value": "light"}]
    browser.call("Emulation.setEmulatedMedia", features=features)
    browser.evaluate("new Promise(done => setTimeout(() => done(1), 200))")
    assert browser.evaluate("document.documentElement.dataset.theme") == "light", "a change of the system is followed"
    assert browser.complaints() == []


def drag(browser: Browser, selector: str, part: tuple[float, float]) -> None:
    """Drag the mouse over a part of an element's width, as one does to zoom a figure."""
    box = f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; }})(document.querySelector('{selector}'))"
    left, top, width, height = browser.evaluate(box)
    start, end = (left + width * share for share in part)
    for kind, x in (
        ("mousePressed", start),
        ("mouseMoved", (start + end) / 2),
        ("mouseMoved", end),
        ("mouseReleased", end),
    ):
        browser.call(
            "Input.dispatchMouseEvent", type=kind, x=x, y=top + height / 2, button="left", buttons=1, clickCount=1
        )
    browser.evaluate("new Promise(done => setTimeout(() => done(1), 600))")


@pytest.mark.browser
def test_hover_tells_name_and_length(browser: Browser, page: Path) -> None:
    browser.open(page, width=1280)
    for side in (0, 1):
        place = browser.evaluate(
            f"(f => {{ const t = f.timeline, item = t.items().find(i => i.lane && i.lane.kind === 'work'), lane = item.lane;"
            " const i = lane.start.findIndex((s, n) => lane.end[n] - s > 2e5 && t.x(s) > 300 && t.x(lane.end[n]) < 1000);"
            " f.scrollIntoView(); const r = f.querySelector('.tl-main').getBoundingClientRect();"
            f" return [r.left + t.x((lane.start[i] + lane.end[i]) / 2), r.top + item.y + item.h / 2]; }})({PAIR}[{side}])"
        )
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
        tip = browser.evaluate(f"{PAIR}[{side}].querySelector('.tl-tip').innerText")
        assert "length" in tip and ("µs" in tip or "ms" in tip) and "starts at" in tip and "launched by" in tip, tip


@pytest.mark.browser
def test_disturbed_rounds_are_drawn_as_crosses(browser: Browser, sample: Capture, tmp_path: Path) -> None:
    page, shown = tmp_path / "marked.html", marked(sample)
    page.write_text(rendered(shown), encoding="utf-8")
    browser.events.clear()
    browser.open(page, width=390)
    browser.evaluate(OPEN_ALL)
    assert "overlap, disturbed" in browser.evaluate("document.querySelector('#figure-times .legend').textContent")
    symbols = browser.evaluate("document.getElementById('figure-times').data.map(t => t.marker.symbol)")
    assert len(symbols) == 8 and set(symbols) == {"circle", "circle-open", "x"}, "circles, the twin's open, and crosses"
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert "What decided" in browser.evaluate("document.querySelector('#decided').innerText")
    assert browser.requests() == [] and browser.complaints() == []


@pytest.mark.parametrize("name", ["kv_transfer", "router", "decode_attention", "expert_parallel"])
def test_pages_of_samples_are_light(name: str) -> None:
    shown = capture.load(SAMPLE.parent / name)
    page = rendered(shown)
    assert len(page.encode()) <= MOST_BYTES, len(page.encode())
    timed = [r for _, _, phase in rounds.phases(shown) for r in phase]
    figure = rounds.samples(shown, dict.fromkeys((v.record.name for v in shown.variants), "#000000"))
    assert figure is not None
    counts = [int(text.split()[0]) for trace in figure.data for text in trace.text]
    assert sum(counts) == sum(len(r.times_ns) for r in timed), "each sample is in one mark"
    assert len(counts) <= MOST_NODES


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
