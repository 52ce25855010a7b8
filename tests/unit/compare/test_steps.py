"""The page of a session: steps under the roofline, the fraction of the limit, each step's time and kernels against the one before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from browser.chromium import Browser, overlapping
from builders.session_events import AT, SAMPLE, START, written

from moeprof.compare import variants
from moeprof.compare.steps import StepComparison
from moeprof.kernels.roofline import Ceiling
from moeprof.loaded import capture as study
from moeprof.report import html, session_steps
from moeprof.report import session as shown
from moeprof.report.figures.roofline import Mark, apart
from moeprof.session import log, steps
from moeprof.session.log import Decide, New, Predict, Session, Try

CEILINGS = {"gemm_tflop_per_s": 700.0, "read_gb_per_s": 4000.0}
LINES = (Ceiling("gemm_tflop_per_s", "FLOP/s", 700e12, True), Ceiling("read_gb_per_s", "byte/s", 4e12, True))


def captured(folder: Path, number: int, variant: str) -> str:
    """A capture of step ``number`` whose variant "graph" has the trace of another variant of the sample."""
    target = folder / "captures" / f"step-{number:02d}"
    shutil.copytree(SAMPLE, target)
    data = json.loads((target / "manifest.json").read_text())
    parts = {v["name"]: v["parts"] for v in data["variants"]}
    data["variants"] = [v | {"parts": parts[variant] if v["name"] == "graph" else []} for v in data["variants"]]
    data["limit"] = {"kind": "roofline", "flops_ceiling": "gemm_tflop_per_s", "bytes_ceiling": "read_gb_per_s"}
    (target / "manifest.json").write_text(json.dumps(data | {"ceilings": CEILINGS}))
    return str(target.relative_to(folder))


def trial(capture: str, ms: float, limit: float, tflop: float, gigabytes: float) -> Try:
    return Try(
        capture,
        AT,
        "abc",
        "",
        {"step_time": ms, "of_limit": limit, "tflop_per_s": tflop, "gb_per_s": gigabytes},
        1.0,
        ms,
        True,
    )


def guess(text: str) -> Predict:
    return Predict(text, "step_time", "<0.9x", AT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kept, reverted (better than nothing kept), one whose capture is gone, one still open."""
    root = tmp_path_factory.mktemp("session")
    written(
        root, New("why is it slow?", "kv_transfer", "graph", AT), trial(captured(root, 0, "baseline"), 29.3, 0.11, 70, 1500),
        guess("a copy <stream>"), trial(captured(root, 1, "overlap"), 17.4, 0.18, 120, 2600), Decide(True, "held", AT),
        guess("worse"), trial(captured(root, 2, "baseline"), 29.4, 0.11, 70, 1500), Decide(False, "no gain", AT),
        guess("fuse"), trial(captured(root, 3, "graph"), 17.3, 0.19, 123, 2650),
    )  # fmt: skip
    return root


@pytest.fixture(scope="module")
def session(folder: Path) -> Session:
    return log.read(folder)


def reason(step: StepComparison) -> str:
    """Why the step was not compared; "" where it was."""
    return session_steps.comparison(step).title.partition(": ")[2] if step.missing else ""


def test_each_step_is_compared_with_the_kept_one_that_it_started_from(folder: Path, session: Session) -> None:
    seen = steps.seen(folder, session)
    assert [(d.number, d.against, reason(d)) for d in seen.steps] == [
        (1, 0, ""),
        (2, 1, ""),
        (3, 1, ""),
    ]  # step 2 was reverted
    expected = variants.compare(study.load(SAMPLE))
    rows = {r.name: r for r in expected.rows}
    one, two, three = seen.steps
    assert (one.before_ns, one.after_ns) == (rows["baseline"].traced_ns, rows["overlap"].traced_ns)
    assert (three.before_ns, three.after_ns) == (rows["overlap"].traced_ns, rows["graph"].traced_ns)
    for d in seen.steps:
        assert sum(b.delta_ns for b in d.waterfall) == d.after_ns - d.before_ns != 0
    assert two.waterfall[0].before_ns == one.waterfall[0].after_ns
    assert all(
        k.count_before == pytest.approx(32) for k in three.kernels if k.status in ("same", "changed")
    )  # of one iteration
    assert seen.ceilings == LINES and seen.left_out == 0


def test_the_page_shows_them_and_is_the_same_twice(folder: Path, session: Session) -> None:
    page = html.render(shown.page(session, steps.seen(folder, session)))
    assert page == html.render(shown.page(session, steps.seen(folder, session)))
    assert (
        "Traced against the start: −12.08 ms per iteration" in page
        and "Traced against step 1: +12.08 ms per iteration" in page
    )
    assert "Under the roofline: step 3 reaches 123.0 TFLOP/s" in page and "How near to the limit" in page
    assert "a copy &lt;stream&gt;" in page and "<stream>" not in page
    for name in ("trajectory", "of-limit", "roofline", "step-1-diff", "step-2-diff", "step-3-diff"):
        assert page.count(f'id="figure-{name}"') == 1, name


def test_marks_stand_where_the_steps_recorded_them(session: Session) -> None:
    found = session_steps.marks(session)
    assert [(m.label, m.series) for m in found] == [("0", "kept"), ("1", "kept"), ("2", "reverted"), ("3", "open")]
    assert [(m.x, m.y) for m in found][1] == (pytest.approx(120e12 / 2600e9), pytest.approx(120e12))
    figure = json.loads(html.figure_json(session_steps.under_the_roof(found, LINES, ()).figure))
    assert [len(t["x"]) for t in figure["data"] if "markers" in t["mode"]] == [2, 1, 1]
    assert len(figure["layout"]["annotations"]) == 1, "the arrow follows what was kept"


def test_marks_that_lie_together_share_a_label() -> None:
    def marks(*ys: float) -> list[Mark]:
        return [Mark("kept", 50.0, y, "", label=str(i)) for i, y in enumerate(ys)]

    assert [m.label for m in apart(marks(1e12, 1.01e12, 5e13))] == ["0, 1", "", "2"]
    assert apart(marks(*[1e12] * 7))[0].label == "0, 1 … 6"
    assert [m.label for m in apart(marks(1e12, 1e13, 1e14))] == ["0", "1", "2"]


def test_a_capture_that_is_gone_or_has_no_trace_is_said(folder: Path, session: Session, tmp_path: Path) -> None:
    copy = tmp_path / "session"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "captures" / "step-01")
    seen = steps.seen(copy, session)
    assert [reason(d) for d in seen.steps] == ["its own capture is gone or cannot be read"] + [
        "the capture that it started from is gone or cannot be read"
    ] * 2
    page = html.render(shown.page(session, seen))
    assert "Not compared with the start: its own capture is gone" in page and 'id="figure-step-1-diff"' not in page
    manifest = copy / "captures" / "step-00" / "manifest.json"
    data = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(data | {"variants": [v | {"parts": []} for v in data["variants"]]}))
    shutil.copytree(folder / "captures" / "step-01", copy / "captures" / "step-01")
    assert reason(steps.seen(copy, session).steps[0]) == "the capture of the start contains no trace of the variant"


def test_a_long_session_compares_its_last_steps_and_says_so(tmp_path: Path) -> None:
    capture = captured(tmp_path, 0, "graph")
    events: list[log.Event] = [START, trial(capture, 9.0, 0.1, 10, 1000)]
    for number in range(steps.COMPARED + 3):
        events += [
            guess(f"try {number}"),
            trial(capture, 9.0 - number / 10, 0.1, 10 + number, 1000),
            Decide(True, "", AT),
        ]
    written(tmp_path, *events)
    found = log.read(tmp_path)
    seen = steps.seen(tmp_path, found)
    assert (len(seen.steps), seen.left_out, seen.steps[0].number, seen.steps[0].against) == (steps.COMPARED, 3, 4, 3)
    page = html.render(shown.page(found, seen))
    assert 'id="left-out"' in page and "the first 3 tried steps are left out" in page
    assert 'id="left-out"' not in html.render(shown.page(found))


def test_a_session_without_useful_flops_has_no_roofline(tmp_path: Path) -> None:
    written(tmp_path, START, Try("c", AT, None, "", {"step_time": 4.0, "of_limit": None, "tflop_per_s": None}))
    page = html.render(shown.page(log.read(tmp_path)))
    assert "figure-trajectory" in page and "figure-roofline" not in page and "figure-of-limit" not in page


TEXTS = """[...document.querySelectorAll('#figure-roofline .legendtext, #figure-roofline .textpoint text, #figure-roofline .xtick text,' +
 '#figure-roofline .ytick text')].filter(t => t.textContent.trim()).map(t => {const r = t.getBoundingClientRect();
 return [t.textContent, r.left, r.top, r.right, r.bottom]})"""


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_the_page_in_a_browser(
    browser: Browser, folder: Path, session: Session, tmp_path: Path, width: int, dark: bool
) -> None:
    page = tmp_path / "session.html"
    page.write_text(html.render(shown.page(session, steps.seen(folder, session))), encoding="utf-8")
    browser.events.clear()
    browser.open(page, width=width, dark=dark)
    figures = "[...document.querySelectorAll('.figure')].map(f => f.querySelectorAll('.main-svg').length > 0 && f.getBoundingClientRect().height > 100)"
    assert browser.evaluate(figures) == [True] * 6
    assert overlapping(browser.evaluate(TEXTS)) == []
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.requests() == [] and browser.complaints() == []
