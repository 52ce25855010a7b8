"""Every kind of page in a real browser: no rule of axe-core that keeps somebody from reading it is broken, and its labels are true."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser.accessibility import serious, violations
from browser.chromium import Browser
from labels import false_labels
from page_kinds import KINDS, Kind

pytestmark = pytest.mark.browser

AS_THEY_OPEN = (
    "trace",
    "variants",
    "ranks",
)  # the other kinds are made of the same parts: one look, everything open, on a dark phone
# (what a label is turned into on a page of two traces' kind, what the check says of it)
PLANTED = (
    ("document.querySelector('div.scroll').setAttribute('aria-label', 'Another table')", "region 'Another table'"),
    ("document.querySelector('.figure').setAttribute('aria-label', 'Kernels')", "figure 'Kernels' is below"),
    ("document.querySelectorAll('table').forEach(t => t.remove())", "no table has the numbers"),
    ("document.querySelector('canvas.tl-over').setAttribute('aria-label', 'It takes 987654 ms')", "987654 is not in its section"),
    ("document.querySelector('nav a').href = '#nowhere'", "contents: #nowhere"),
    ("document.querySelector('.tl-tools button[aria-label]').setAttribute('aria-label', 'Print')", "is labelled 'Print'"),
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_page_breaks_no_serious_rule_and_its_labels_are_true(browser: Browser, tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "page.html"
    kind.write(path)
    browser.call("Page.navigate", url="about:blank")
    browser.open(path, width=1440, dark=False)
    if kind.name in AS_THEY_OPEN:
        assert serious(browser) == [], "as it opens"
    browser.evaluate("document.querySelectorAll('main details').forEach(d => { d.open = true; })")
    browser.evaluate("new Promise(done => setTimeout(() => done(1), 200))")
    if kind.name in AS_THEY_OPEN:
        assert serious(browser) == [], "everything open"
    assert false_labels(browser) == [], "everything open"
    browser.show(width=390, dark=True)
    browser.evaluate("new Promise(done => setTimeout(() => done(1), 300))")
    assert browser.evaluate("innerWidth <= 390 && matchMedia('(prefers-color-scheme: dark)').matches")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390, "no sideways scrolling"
    assert serious(browser) == [], "everything open, on a dark phone"
    assert false_labels(browser) == [], "everything open, on a dark phone"


@pytest.mark.parametrize(("change", "complaint"), PLANTED)
def test_a_planted_wrong_label_is_seen(browser: Browser, page: Path, change: str, complaint: str) -> None:
    browser.call("Page.navigate", url="about:blank")
    browser.open(page)
    assert false_labels(browser) == []
    browser.evaluate(f"{change}; 1")
    assert any(complaint in text for text in false_labels(browser)), false_labels(browser)


def test_the_check_sees_a_planted_fault(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        '<!doctype html><html lang="en" data-drawn="1"><title>t</title><main><h1>t</h1><img src="data:,"><button></button></main>',
        encoding="utf-8",
    )
    browser.call("Page.navigate", url="about:blank")
    browser.open(path)
    assert {v.rule for v in violations(browser)} >= {"image-alt", "button-name"}
