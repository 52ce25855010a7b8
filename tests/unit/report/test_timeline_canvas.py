"""Timelines as markup and in a real browser: hostile names, hover, keys, touch, the place in the URL, themes, print."""

from __future__ import annotations

import base64
import re
import time
from pathlib import Path
from typing import Any

import pytest
import timelines
from browser.chromium import Browser
from builders.trace_tables import trace

from moeprof import resources
from moeprof.analysis.model import Finding
from moeprof.report.figures import timeline_canvas
from moeprof.report.figures.timeline_canvas import timeline
from moeprof.report.figures.timeline_data import timeline_data
from moeprof.trace import Trace, read

HOSTILE = '</script><script>alert(1)</script><!-- & "quotes" \'\u2028'
SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"
FIGURE = "document.querySelector('figure.timeline')"
T = f"{FIGURE}.timeline"


def loop(kernel: str = "gemm_kernel", passes: int = 6) -> Trace:
    """Passes of 100 us: a launch, a kernel of 40 us of 2 us delay, a copy of 1 MB in 20 us; ranges around the launches."""
    calls: list[dict[str, Any]] = []
    ops: list[dict[str, Any]] = []
    ranges: list[dict[str, Any]] = []
    for p in range(passes):
        at = p * 100_000
        ranges += [
            {"start_ns": at, "end_ns": at + 30_000, "name": f"step {p}"},
            {"start_ns": at + 1_000, "end_ns": at + 20_000, "name": "forward"},
        ]
        calls += [
            {"start_ns": at + 2_000, "end_ns": at + 8_000, "correlation": 100 + p},
            {"start_ns": at + 10_000, "end_ns": at + 13_000, "name": "cudaMemcpyAsync"},
            {"start_ns": at + 60_000, "end_ns": at + 80_000, "name": "cudaStreamSynchronize"},
        ]
        ops += [
            {"start_ns": at + 10_000, "end_ns": at + 50_000, "call": 3 * p, "name": kernel, "grid_x": 12, "grid_y": 3, "grid_z": 1, "block_x": 128, "block_y": 1, "block_z": 1},
            {"start_ns": at + 55_000, "end_ns": at + 75_000, "call": 3 * p + 1, "kind": "copy", "name": "H2D", "direction": "H2D", "bytes": 1_000_000, "src_memory": "pinned", "dst_memory": "device"},
        ]  # fmt: skip
    return trace(ops, calls, ranges)


def finding(at: int) -> Finding:
    return Finding(
        "host-bound",
        f"the GPU waits {HOSTILE}",
        5,
        "device 0, all",
        {"example": {"start_ns": at, "duration_ns": 40_000}},
        "try",
    )


def test_hostile_names_stay_data() -> None:
    made = loop(HOSTILE)
    markup = str(timeline(timeline_data(made, findings=[finding(210_000)]), id='x"><b>', what=HOSTILE))
    assert markup.count("<script") == 1 and markup.count("</script") == 1
    assert "alert(1)</" not in markup and "<!--" not in markup and 'id="x&#34;&gt;&lt;b&gt;"' in markup
    payload = timelines.payload_of(markup)
    assert payload["flags"][0][5].endswith(HOSTILE)
    assert any(name == HOSTILE for name in payload["full"].values())


def test_the_figure_says_what_it_is_without_a_script_and_without_eyes() -> None:
    markup = str(timeline(timeline_data(loop()), what="my trace"))
    assert (
        "<noscript><p>The timeline needs JavaScript. The tables of this page carry its numbers.</p></noscript>"
        in markup
    )
    assert 'data-name="Timeline of my trace' in markup and "The tables of this page carry the numbers" in markup


def test_the_script_needs_no_eval_and_writes_no_markup() -> None:
    script = str(timeline_canvas.script())
    assert not re.search(
        r"\beval\(|new Function|innerHTML|outerHTML|insertAdjacentHTML|document\.write|https?://", script
    )
    assert "</script" not in script


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timeline") / "timeline.html"
    data = timeline_data(loop(HOSTILE), findings=[finding(210_000), finding(410_000)])
    path.write_text(timelines.page(timeline(data)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pair") / "pair.html"
    found = [timeline_data(read(SAMPLE / name / "trace.sqlite")) for name in ("baseline", "overlap")]
    figures = [timeline(d, id=k, key=k, link="both", zero_ns=d.typical_ns) for d, k in zip(found, "ab", strict=True)]
    path.write_text(timelines.page(*figures), encoding="utf-8")
    return path


def opened(browser: Browser, page: Path, width: int = 1440, dark: bool = False, motion: bool = False) -> None:
    browser.events.clear()
    browser.call("Page.navigate", url="about:blank")
    browser.open(page, width=width, dark=dark)
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    if not motion:
        features.append({"name": "prefers-reduced-motion", "value": "reduce"})
    browser.call("Emulation.setEmulatedMedia", media="", features=features)
    settle(browser)


def settle(browser: Browser, ms: int = 60) -> None:
    browser.evaluate(f"new Promise(done => setTimeout(() => requestAnimationFrame(() => done(1)), {ms}))")


def view(browser: Browser, which: str = T) -> list[float]:
    """Begin and end of what is shown, in ns."""
    return list(browser.evaluate(f"{which}.view()"))


def press(browser: Browser, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" and len(key) == 1 else ""
        )
    settle(browser)


def point(browser: Browser, ns: int, label: str, fresh: bool = True) -> tuple[float, float]:
    """Where the middle of a time is on the lane whose label begins so."""
    if fresh:
        browser.evaluate("document.querySelector('.tl-main').scrollIntoView({block: 'center'})")
    y, h = browser.evaluate(
        f"(() => {{ const i = {T}.items().find(i => i.label && i.label.startsWith({label!r})); return [i.y, i.each || i.h]; }})()"
    )
    left, top = browser.evaluate(
        "(() => { const r = document.querySelector('.tl-main').getBoundingClientRect(); return [r.left, r.top]; })()"
    )
    return left + float(browser.evaluate(f"{T}.x({ns})")), top + y + h / 2


def mouse(browser: Browser, kind: str, at: tuple[float, float], **more: Any) -> None:
    browser.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], **more)


def click(browser: Browser, at: tuple[float, float]) -> None:
    mouse(browser, "mouseMoved", at)
    for kind in ("mousePressed", "mouseReleased"):
        mouse(browser, kind, at, button="left", clickCount=1)
    settle(browser)


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1440, False), (1440, True), (390, False), (390, True)])
def test_it_is_drawn_and_asks_for_nothing(browser: Browser, made: Path, width: int, dark: bool) -> None:
    opened(browser, made, width, dark)
    assert browser.requests() == [] and browser.complaints() == []
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    colours = browser.evaluate(
        "(() => { const c = document.querySelector('.tl-main'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, s = new Set();"
        " for (let i = 0; i < d.length; i += 4) if (d[i + 3] === 255) s.add((d[i] << 16) + (d[i + 1] << 8) + d[i + 2]); return [...s]; })()"
    )
    for name in ("h2d", "compute", "dependency", "launch", "wait-call", "range"):
        wanted = browser.evaluate(f"getComputedStyle({FIGURE}).getPropertyValue('--tl-{name}').trim()")
        assert int(wanted[1:], 16) in colours, name
    assert browser.evaluate(
        "document.querySelector('.tl-main').getAttribute('aria-label').includes('tables of this page')"
    )


@pytest.mark.browser
def test_hover_says_what_is_there(browser: Browser, made: Path) -> None:
    opened(browser, made)
    mouse(browser, "mouseMoved", point(browser, 230_000, "stream 7"))
    settle(browser)
    tip = browser.evaluate("document.querySelector('.tl-tip').innerText")
    assert browser.evaluate("!document.querySelector('.tl-tip').hidden") and tip.startswith("alert")
    for part in ("40.00 µs", "0.2080 ms", "grid 12 × 3 × 1, block 128 × 1 × 1", "cudaLaunchKernel, 6.000 µs long, 2.000 µs before it began", "correlation 102", "step 2 › forward", "idle before"):  # fmt: skip
        assert part in tip, (part, tip)
    mouse(browser, "mouseMoved", point(browser, 265_000, "stream 7"))
    settle(browser)
    tip = browser.evaluate("document.querySelector('.tl-tip').innerText")
    assert "H2D" in tip and "1.00 MB, 50.0 GB/s, pinned to device" in tip and "20.00 µs" in tip
    mouse(browser, "mouseMoved", point(browser, 270_000, "CUDA calls"))
    settle(browser)
    assert "cudaStreamSynchronize" in browser.evaluate("document.querySelector('.tl-tip').innerText")
    mouse(browser, "mouseMoved", point(browser, 307_000, "why idle"))
    settle(browser)
    assert "launched, not begun" in browser.evaluate("document.querySelector('.tl-tip').innerText")
    assert browser.evaluate("document.querySelectorAll('script').length") == 4 and browser.complaints() == []


@pytest.mark.browser
def test_a_click_keeps_the_details_and_escape_drops_them(browser: Browser, made: Path) -> None:
    opened(browser, made)
    before = browser.evaluate("document.querySelector('.tl-main').toDataURL()")
    click(browser, point(browser, 230_000, "stream 7"))
    detail = browser.evaluate("document.querySelector('.tl-detail').innerText")
    assert "40.00 µs" in detail and "cudaLaunchKernel" in detail
    mouse(browser, "mouseMoved", (2, 2))
    settle(browser)
    assert browser.evaluate("document.querySelector('.tl-main').toDataURL()") != before, "the arrow from the launch"
    press(browser, ".")
    assert "H2D" in browser.evaluate("document.querySelector('.tl-detail').innerText"), "the next event of the lane"
    press(browser, "Escape")
    assert "40.00 µs" not in browser.evaluate("document.querySelector('.tl-detail').innerText")


@pytest.mark.browser
def test_keys_move_the_view(browser: Browser, made: Path) -> None:
    opened(browser, made)
    browser.evaluate("document.querySelector('.tl-main').focus()")
    press(browser, "0")
    span = browser.evaluate(f"{T}.extent()[1]")
    assert view(browser) == [0, span]
    press(browser, "w")
    a, b = view(browser)
    assert b - a == pytest.approx(span / 1.4) and (a + b) / 2 == pytest.approx(span / 2)
    press(browser, "d")
    assert view(browser)[0] == pytest.approx(a + 0.2 * (b - a))
    press(browser, "ArrowLeft")
    assert view(browser)[0] == pytest.approx(a)
    press(browser, "a")
    assert view(browser)[0] == pytest.approx(a - 0.2 * (b - a), abs=1)
    press(browser, "ArrowRight")
    press(browser, "s")
    assert view(browser) == pytest.approx([0, span], abs=1)
    for wanted in (1, 2, 1):
        press(browser, "n")
        assert f"Finding {wanted}" in browser.evaluate("document.querySelector('.tl-detail').innerText")
    press(browser, "p")
    assert "Finding 2" in browser.evaluate("document.querySelector('.tl-detail').innerText")
    press(browser, "?")
    assert "next, previous finding" in browser.evaluate("document.querySelector('.tl-detail').innerText")
    assert browser.complaints() == []


@pytest.mark.browser
def test_the_place_is_in_the_url_and_comes_back(browser: Browser, made: Path) -> None:
    opened(browser, made)
    browser.evaluate(f"{T}.go(120000, 260000)")
    settle(browser, 300)
    assert browser.evaluate("location.hash") == "#t=0.1200-0.2600"
    browser.evaluate("delete document.documentElement.dataset.drawn")
    browser.call("Page.reload")
    while not browser.evaluate("document.documentElement?.dataset.drawn || ''"):
        time.sleep(0.01)
    assert view(browser) == pytest.approx([120_000, 260_000])
    browser.evaluate("location.hash = '#t=0.3-0.35'")
    settle(browser, 200)
    assert view(browser) == pytest.approx([300_000, 350_000])
    browser.evaluate("location.hash = '#t=9e9-x'")
    settle(browser, 200)
    assert view(browser) == pytest.approx([300_000, 350_000]) and browser.complaints() == []


@pytest.mark.browser
def test_drag_wheel_and_brush(browser: Browser, made: Path) -> None:
    opened(browser, made)
    browser.evaluate(f"{T}.go(100000, 300000)")
    settle(browser)
    at = point(browser, 200_000, "stream 7")
    mouse(browser, "mousePressed", at, button="left", clickCount=1)
    mouse(browser, "mouseMoved", (at[0] + 100, at[1]), button="left")
    mouse(browser, "mouseReleased", (at[0] + 100, at[1]), button="left", clickCount=1)
    settle(browser)
    a, b = view(browser)
    assert b - a == pytest.approx(200_000) and a < 100_000
    assert browser.evaluate(f"{T}.x(200000)") == pytest.approx(
        at[0] + 100 - browser.evaluate("document.querySelector('.tl-main').getBoundingClientRect().left"), abs=1
    )
    browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=at[0], y=at[1], deltaX=0, deltaY=-100)
    settle(browser)
    assert view(browser)[1] - view(browser)[0] < 200_000, "the wheel zooms once the canvas has the focus"
    box = browser.evaluate(
        "(() => { const r = document.querySelector('.tl-over').getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; })()"
    )
    press(browser, "0")
    span = browser.evaluate(f"{T}.extent()[1]")
    x = [box[0] + browser.evaluate(f"{T}.x({share} * {span})") for share in (0.5, 0.75)]
    y = box[1] + box[3] / 3
    for kind, px in (
        ("mousePressed", x[0]),
        ("mouseMoved", (x[0] + x[1]) / 2),
        ("mouseMoved", x[1]),
        ("mouseReleased", x[1]),
    ):
        mouse(browser, kind, (px, y), button="left", clickCount=1)
    settle(browser)
    assert view(browser) == pytest.approx([0.5 * span, 0.75 * span], rel=0.01)


@pytest.mark.browser
def test_two_fingers_zoom_and_a_tap_tells(browser: Browser, made: Path) -> None:
    opened(browser, made, width=390)
    browser.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
    x, y = point(browser, 210_000, "stream 7")
    a, b = view(browser)
    for kind, spread in (("touchStart", 40), ("touchMove", 60), ("touchMove", 80)):
        browser.call(
            "Input.dispatchTouchEvent",
            type=kind,
            touchPoints=[{"x": x - spread, "y": y, "id": 1}, {"x": x + spread, "y": y, "id": 2}],
        )
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    settle(browser)
    c, d = view(browser)
    assert d - c == pytest.approx((b - a) / 2, rel=0.05)
    x, y = point(browser, 225_000, "stream 7")
    browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y, "id": 1}])
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    settle(browser)
    assert "40.00 µs" in browser.evaluate("document.querySelector('.tl-detail').innerText")


@pytest.mark.browser
def test_a_change_of_theme_keeps_the_view_and_changes_the_colours(browser: Browser, made: Path) -> None:
    opened(browser, made)
    browser.evaluate(f"{T}.go(120000, 260000)")
    settle(browser)
    before, seen = view(browser), browser.evaluate("document.querySelector('.tl-main').toDataURL()")
    browser.evaluate("document.documentElement.dataset.theme = 'dark'")
    settle(browser)
    assert view(browser) == before and browser.evaluate("document.querySelector('.tl-main').toDataURL()") != seen


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two #rrggbb colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_fill_stands_out_and_idle_is_warm(theme: int) -> None:
    block = re.findall(r"\.timeline[^{]*\{([^}]*--tl-paper[^}]*)\}", str(timeline_canvas.style()))[theme]
    colours = dict(re.findall(r"--tl-([\w-]+): (#[0-9a-f]{6})", block))
    classes = [name for name, _ in timeline_data(loop()).payload["classes"]]
    for name in (*classes, "range-2", "queue", "flag", "pass", "accent"):
        assert contrast(colours[name], colours["paper"]) >= 3, (name, contrast(colours[name], colours["paper"]))
    assert contrast(colours["soft"], colours["raised"]) >= 4.5 and contrast(colours["ink"], colours["paper"]) >= 7
    for name in ("host", "sync", "launch", "dependency"):
        assert int(colours[name][1:3], 16) > int(colours[name][5:7], 16), f"{name} is warm"
    for name in (
        "attention",
        "gemm",
        "copy-like",
        "elementwise",
        "compute",
        "graph",
        "h2d",
        "d2h",
        "p2p",
        "copy",
        "migration",
        "memset",
    ):
        assert int(colours[name][1:3], 16) < max(int(colours[name][3:5], 16), int(colours[name][5:7], 16)), (
            f"{name} is cool"
        )
    assert len({colours[name] for name in classes}) == len(classes)


@pytest.mark.browser
def test_two_timelines_move_together(browser: Browser, pair: Path) -> None:
    opened(browser, pair)
    a, b = (f"document.getElementById('{k}').timeline" for k in "ab")
    assert view(browser, a) == pytest.approx(view(browser, b)), "from the beginning"
    browser.evaluate(f"{a}.go(1e6, 9e6)")
    settle(browser, 250)
    assert view(browser, b) == pytest.approx([1e6, 9e6]) and browser.evaluate("location.hash").startswith(
        "#a=1.0000-9.0000"
    )
    browser.evaluate(f"{b}.go(-3e6, 20e6)")
    settle(browser)
    assert view(browser, a) == pytest.approx([-3e6, 20e6])
    assert browser.requests() == [] and browser.complaints() == []


@pytest.mark.browser
def test_on_paper_it_is_a_picture_of_the_view(browser: Browser, made: Path) -> None:
    opened(browser, made, dark=True)
    pdf = base64.b64decode(browser.call("Page.printToPDF", printBackground=False)["data"])
    assert b"/Subtype /Image" in pdf
    settle(browser, 200)
    browser.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate("document.querySelector('.tl-image').src.startsWith('data:image/png')")
    assert "from 0." in browser.evaluate("document.querySelector('.tl-image').alt")
    assert browser.evaluate(f"{FIGURE}.classList.contains('tl-light')"), "paper is white whatever the theme"
    browser.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert not browser.evaluate(f"{FIGURE}.classList.contains('tl-light')") and browser.complaints() == []


@pytest.mark.browser
def test_a_mark_dims_the_rest_and_a_link_shows_a_finding(browser: Browser, made: Path) -> None:
    opened(browser, made)
    before = browser.evaluate("document.querySelector('.tl-main').toDataURL()")
    browser.evaluate(f"{FIGURE}.dispatchEvent(new CustomEvent('timeline:mark', {{detail: {{name: 'H2D'}}}}))")
    settle(browser)
    assert browser.evaluate("document.querySelector('.tl-main').toDataURL()") != before
    browser.evaluate(f"{FIGURE}.dispatchEvent(new CustomEvent('timeline:mark'))")
    settle(browser)
    assert browser.evaluate("document.querySelector('.tl-main').toDataURL()") == before
    browser.evaluate(f"{FIGURE}.dispatchEvent(new CustomEvent('timeline:show', {{detail: {{number: 2}}}}))")
    settle(browser)
    assert "Finding 2" in browser.evaluate("document.querySelector('.tl-detail').innerText")


@pytest.mark.browser
def test_a_reduced_recording_shows_shares_elsewhere(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "reduced.html"
    data = timeline_data(read(SAMPLE / "baseline" / "trace.sqlite"), budget=900)
    path.write_text(timelines.page(timeline(data)), encoding="utf-8")
    opened(browser, path)
    assert data.note and data.note in browser.evaluate("document.querySelector('.tl-note').innerText")
    low = int(data.payload["detail"][0][0])
    browser.evaluate(f"{T}.go(0, {T}.extent()[1])")
    settle(browser)
    mouse(
        browser,
        "mouseMoved",
        point(browser, low // 2 if low > 2_000_000 else int(data.payload["span_ns"] * 0.97), "stream 7"),
    )
    settle(browser)
    tip = browser.evaluate("document.querySelector('.tl-tip').innerText")
    assert "reduced to shares" in tip and "%" in tip
    assert browser.requests() == [] and browser.complaints() == []
