"""The page of any one trace and of a program's capture: its answer against the analysis, its weight, and in a real browser."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from browser.chromium import Browser
from builders.sample_captures import made
from builders.trace_tables import trace
from recorded import recordings
from recorded.recordings import names

from moeprof.analysis.device import views
from moeprof.analysis.model import Analysis, Finding, Idle, Kernel, Launch, Ledger, Source, Window
from moeprof.loaded import capture
from moeprof.loaded.trace import analysis_of
from moeprof.report import build, html, text, trace_page
from moeprof.report.figures.timeline_data import timeline_data
from moeprof.report.narrative.trace import CLAUSES, GAIN, NARROW, Answer, answer
from moeprof.report.page import Facts, Page
from moeprof.storage.manifest import Manifest, VariantRecord
from moeprof.trace import Trace
from moeprof.trace.tables import Device
from moeprof.units import ms, percent

HOSTILE = '</script><script>alert(1)</script><!-- & "quotes" \'\u2028'
EXPECTED = {
    "legacy-copy": "legacy-default-stream", "sync-item": "sync-api", "sync-copy": "sync-api", "sync-between": "sync-api",
    "slow-compilation": "slow-loading", "slow-modules": "slow-loading",
    "empty-cache": "allocator-in-loop",
}  # fmt: skip
FAULTY = names("-faulty")
HEALTHY = names("-mended", "-mended-whole")
NS = 1_000_000
MOST_BYTES = 600_000  # of a page without its events


def page_of(shown: Trace, name: str = "a b.sqlite") -> Page:
    prepared = views(shown)
    analysis = analysis_of(shown, prepared=prepared)
    return trace_page.page(shown, analysis, timeline_data(shown, prepared, analysis.findings), name)


def lines(page: Page) -> dict[str, str]:
    """The lines of the answer by their labels."""
    section = next(s for s in page.sections if s.id == "answer")
    facts = next((b for b in section.above if isinstance(b, Facts)), Facts(()))
    return {f.label: f"{f.text} {f.code}".strip() for f in facts.lines}


def window(device: int = 0, idle: int = 20, copies: int = 0, host: int | None = None) -> Window:
    """100 ms, of which the device is idle or only copies."""
    ledger = Ledger((100 - idle - copies) * NS, 0, copies * NS, 0, 0, idle * NS)
    late = idle if host is None else host
    launch = Launch(0, 0, None, 0, None, 0, None, 0, 0, 0, 0)
    times = Idle(0, (idle - late) * NS, late * NS, 0, 0)
    return Window(device, None, None, 0, 100 * NS, 100 * NS, ledger, times, ledger.compute_ns, 0, 0, (), launch)


def finding(id: str, gain: int, device: int = 0) -> Finding:
    where = f"device {device}, the part that repeats"
    return Finding(id, f"claim of {id}", gain * NS, where, {}, f"cure of {id}", device, gain / 100)


def analysis(*windows: Window, findings: tuple[Finding, ...] = ()) -> Analysis:
    return Analysis(Source("a.sqlite", "nsys", None, None), windows, (), (), findings)


OWN_HEADLINES = {"copy-like-kernels": "moves memory by kernels", "slow-loading": "Loading costs up to"}


@pytest.mark.parametrize("name", FAULTY)
def test_a_planted_fault_is_in_the_answer(name: str) -> None:
    fault = name.removesuffix("-faulty")
    fault = EXPECTED.get(fault, fault)
    numbers = analysis_of(recordings.trace(name))
    found = answer(numbers)
    assert found.finding is not None and found.finding.id == fault
    assert (OWN_HEADLINES.get(fault) or NARROW.get(fault) or CLAUSES[fault]) in found.headline
    assert found.why[1:] == GAIN.sub("", found.finding.claim)[1:] + "." and ms(found.finding.gain_ns) in found.gain


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_program_is_not_accused(name: str) -> None:
    found = answer(analysis_of(recordings.trace(name)))
    assert found == Answer(found.headline, found.slow, judged=found.judged) and "Judged: " in found.judged
    assert "no rule finds" in found.headline and " because " not in found.headline and ": the" not in found.headline


@pytest.mark.parametrize("name", ["sync-item-faulty", "tiny-copies-faulty", "late-issue-faulty", "peer", "startend"])
def test_the_numbers_of_the_answer_are_those_of_the_analysis(name: str) -> None:
    shown = recordings.trace(name)
    numbers = analysis_of(shown)
    page = page_of(shown)
    named = re.match(r"GPU (\d+)", page.title)
    assert named is not None
    of = next(part for part in numbers.judged if part.device == int(named[1]))
    owners = [getattr(of.ledger, f) for f in vars(of.ledger)]
    told = {percent(ns / of.span_ns) for ns in (*owners, *(f.gain_ns for f in numbers.findings))}
    assert set(re.findall(r"\d+\.\d %", page.title)) <= told
    assert re.findall(r"\d+\.\d %", page.title)
    assert set(re.findall(r"[\d.]+ ms", lines(page)["Slow"])) <= {ms(ns) for ns in (*owners, of.span_ns)}
    assert sum(owners) == of.span_ns


def test_the_headline_names_what_is_lost_and_why() -> None:
    late = analysis(window(idle=20), findings=(finding("host-bound", 15),))
    assert answer(late).headline == "GPU 0 is idle 20.0 % of the time: the host is late, busy outside CUDA"
    little = analysis(window(idle=40), findings=(finding("host-bound", 15),))
    assert answer(little).headline == (
        "GPU 0 is idle 40.0 % of the time, up to 15.0 % because the host is late, busy outside CUDA"
    )
    copies = analysis(window(idle=5, copies=30), findings=(finding("pageable-copy", 28),))
    assert answer(copies).headline == "GPU 0 only copies 30.0 % of the time: copies use pageable host memory"
    waits = analysis(window(idle=10, copies=60), findings=(finding("sync-api", 9),))
    assert answer(waits).headline.startswith("GPU 0 is idle 10.0 % of the time: the host waits"), (
        "copies have another cause"
    )
    blocking = analysis(window(idle=5, copies=30), findings=(finding("sync-api", 28),))
    assert answer(blocking).headline.startswith("GPU 0 only copies 30.0 % of the time: the host waits")
    other = analysis(window(0, idle=20), window(1, idle=60), findings=(finding("sync-api", 15, device=0),))
    assert answer(other).headline.startswith("GPU 0 is idle 20.0 %") and answer(other).slow.startswith("GPU 0 computes")
    own = analysis(window(idle=20), findings=(finding("my-rule", 15),))
    assert answer(own).headline == "GPU 0 is idle 20.0 % of the time: finding my-rule"
    lost = analysis(window(idle=20), findings=(finding("dropped-records", 20),))
    assert "records were dropped" in answer(lost).headline and answer(lost).gain == ""


@pytest.mark.parametrize("name", FAULTY)
def test_no_part_is_larger_than_its_whole(name: str) -> None:
    page = page_of(recordings.trace(name))
    tables = [t for s in page.sections for t in s.tables]
    told = "\n".join([page.title, *lines(page).values(), *(cell for t in tables for row in t.rows for cell in row)])
    shares = [float(share.replace(",", "")) for share in re.findall(r"([\d,.]+) %", told)]
    assert shares and max(shares) <= 100


def test_a_gain_before_the_first_work_is_no_share_of_the_window() -> None:
    before = replace(finding("first-iteration", 110), gain_share=None)
    found = answer(analysis(window(idle=2), findings=(before,)))
    assert found.gain == "at most 110.00 ms"
    assert found.headline.startswith("Before and in its first pass GPU 0 waits up to 110.00 ms: code is compiled")


def test_without_a_finding_it_accuses_nobody() -> None:
    assert (
        answer(analysis(window(idle=2))).headline == "GPU 0 computes 98.0 % of the time: no rule finds anything wrong"
    )
    assert answer(analysis(window(idle=30))).headline == "GPU 0 is idle 30.0 % of the time, and no rule finds a cause"
    assert answer(analysis(window(0, 6), window(1, 9))).headline.startswith("GPU 1 is idle 9.0 %")
    assert answer(analysis()).headline == "The trace contains no work of a GPU"


def test_findings_that_cannot_lie_beside_each_other_share_time() -> None:
    host, sync, tiny = finding("host-bound", 40), finding("sync-api", 36), finding("tiny-copies", 30)
    found = answer(analysis(window(idle=45), window(1), findings=(sync, host, tiny, finding("launch-bound", 30, 1))))
    assert found.finding == sync and found.shared == (2, 3)
    roomy = answer(analysis(window(idle=80), findings=(sync, host, tiny)))
    assert roomy.shared == (), "gains that fit beside each other may be different time"


def test_what_follows_from_a_cause_is_said_with_what_is_left() -> None:
    effects = tuple(
        replace(finding(id, 30), left_ns=left * NS) for id, left in (("host-bound", 3), ("launch-bound", 1))
    )
    there = replace(finding("sync-api", 20, 1), passes=10)
    cause = replace(finding("sync-api", 36), passes=12, consequences=effects, on_other_devices=(there,))
    found = answer(analysis(window(idle=45), window(1), findings=(cause,)))
    assert found.gain == "at most 3.000 ms per pass, 36.0 % of the judged time (36.00 ms in 12 passes)"
    assert found.follows == (
        "What follows from it: host-bound and launch-bound. Without it at most 3.000 ms of their gains is left."
        " The same on GPU 1: at most 2.000 ms per pass, 20.0 % of its judged time."
    )


def test_what_was_judged_is_always_printed() -> None:
    whole = answer(analysis(window(idle=2)))
    assert whole.judged.startswith("No repeating part covers enough of this trace, so all of it is judged: ")
    page = page_of(recordings.trace("host-bound-faulty-whole"))
    assert lines(page)["Judged"].startswith("Judged: step x 10: 80 of 106 operations, ")
    ledger = next(s for s in page.sections if s.id == "ledger").tables[0]
    assert ledger.header[1:] == ("GPU 0, judged", "GPU 0")


def test_the_answer_says_what_to_try_and_how_to_check_it() -> None:
    found = lines(page_of(recordings.trace("sync-item-faulty")))
    assert list(found) == ["Slow", "Judged", "Why", "Try", "Next"]
    assert "Gain: at most" in found["Try"] and "of the judged time" in found["Try"]
    assert found["Next"].endswith("moeprof report 'a b.sqlite' AFTER.sqlite")


def test_the_link_of_why_is_the_place_of_the_finding() -> None:
    shown = recordings.trace("sync-item-faulty")
    page = page_of(shown)
    link = re.search(r'<a href="#t=([\d.]+)-([\d.]+)">', html.render(page))
    assert link is not None
    numbers = analysis_of(shown)
    start = numbers.findings[0].evidence["example"]["start_ns"]
    zero = int(timeline_data(shown).payload["zero_ns"])
    assert float(link[1]) <= (start - zero) / 1e6 <= float(link[2])


def test_sections_are_there_only_with_data() -> None:
    healthy = page_of(recordings.trace("empty-cache-mended"))
    ids = [s.id for s in healthy.sections]
    assert "findings" not in ids and ids.index("answer") < ids.index("timeline") < ids.index("kernels")
    empty = page_of(trace([]))
    assert [s.id for s in empty.sections] == [
        "answer",
        "missing",
    ] and empty.title == "The trace contains no work of a GPU"
    assert lines(empty)["Next"].endswith("moeprof doctor") and "Nothing ran" not in html.render(empty)


def test_what_is_missing_is_one_line_at_the_end() -> None:
    bare = recordings.trace("sync-item-faulty")
    bare = replace(bare, ranges=bare.ranges.iloc[:0])
    shown = next(s for s in page_of(bare).sections if s.id == "missing")
    assert len(shown.above) == 1 and "ranges of the program" in str(shown.above[0])
    named = next(s for s in page_of(recordings.trace("sync-item-faulty")).sections if s.id == "missing")
    assert "ranges of the program" not in str(named.above[0])


def test_the_terminal_shows_the_answer_in_forty_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown = page_of(recordings.trace("tiny-copies-faulty"))
    printed = text.render(shown).splitlines()
    assert printed[0] == shown.title and len(printed) <= 45 and all(len(line) <= 100 for line in printed)
    body = "\n".join(printed)
    for word in ("Slow", "Why", "Try", "Next", "tiny-copies", "Where the time goes", "Kernels"):
        assert word in body
    assert "| GPU" not in body and "Glossary" not in body


def test_the_weight_and_the_policy_of_a_page() -> None:
    shown = recordings.trace("sync-item-faulty")
    rendered = html.render(page_of(shown))
    assert len(rendered.encode()) < MOST_BYTES and "Plotly.newPlot" not in rendered and "unsafe" not in rendered
    assert html.render(page_of(shown)) == rendered


def test_hostile_names_stay_text() -> None:
    ops = [{"start_ns": i * 100, "end_ns": i * 100 + 50, "name": HOSTILE, "call": -1} for i in range(30)]
    rendered = html.render(page_of(trace(ops, (), [{"start_ns": 0, "end_ns": 900, "name": HOSTILE}]), HOSTILE))
    assert "alert(1)</script>" not in rendered and "<!--" not in rendered
    assert rendered.count("<script") == rendered.count("</script")


def test_the_cpu_is_not_called_a_gpu() -> None:
    ops = [{"start_ns": i * 100, "end_ns": i * 100 + 99, "name": "matmul", "call": -1} for i in range(30)]
    shown = replace(trace(ops), devices=(Device(0, "CPU"),))
    page = page_of(shown)
    assert page.title.startswith("The CPU computes") and lines(page)["Slow"].startswith("The CPU computes")
    printed = text.render(page)
    assert "GPU 0" not in printed and "GPU 0" not in re.sub("<script.*?</script>", "", html.render(page), flags=re.S)
    assert '"label":"CPU"' in html.render(page) and '"label":"GPU 0"' not in html.render(page)
    assert not any("hardware counters" in str(s) for s in page.sections)


def program(found: Manifest) -> Manifest:
    """The sample as if it were a user's program."""
    record = replace(next(v for v in found.variants if v.name == "baseline"), name="program", rounds=(), proof=None)
    argv = ("moeprof", "capture", "--", "python", "train.py", "--lr", "1e-3")
    return replace(found, kind="program", name="train", argv=argv, variants=(record,), baseline=None, optimized=None)


def test_a_programs_capture_has_the_page_of_its_trace(tmp_path: Path) -> None:
    loaded = capture.load(made(tmp_path / "cap", program))
    page = build.page_of((loaded,), contrast=False)
    assert page == build.page_of((loaded,), contrast=True)
    assert page.lead.startswith("python train.py --lr 1e-3 · nsys")
    rendered = html.render(page)
    assert "Nothing ran" not in rendered and "Nothing was timed" not in rendered and "Plotly.newPlot" not in rendered
    rows = [row for s in page.sections if s.id not in ("environment",) for t in s.tables for row in t.rows]
    assert rows and not any(set(row[1:]) == {"–"} for row in rows)
    assert 'class="timeline"' in rendered and len(rendered.encode()) < MOST_BYTES
    assert lines(page)["Slow"] and page.title == answer(loaded.variants[0].analysis or analysis()).headline


def test_a_program_that_was_not_traced_says_why(tmp_path: Path) -> None:
    def failed(found: Manifest) -> Manifest:
        record = VariantRecord("program", "", "failed", "the program made no CUDA call")
        return replace(program(found), variants=(record,))

    page = build.page_of((capture.load(made(tmp_path / "cap", failed)),))
    assert page.title == "The program was not traced" and lines(page)["Why"] == "the program made no CUDA call."
    assert "Nothing ran" not in html.render(page)


def test_kernels_have_their_share_of_the_device() -> None:
    numbers = replace(
        analysis(window()), kernels=(Kernel("a", 1, 30, 30.0, 30, 30, 0), Kernel("b", 1, 10, 10.0, 10, 10, 0), Kernel("c", 1, 7, 7.0, 7, 7, 1)),
    )  # fmt: skip
    shown = trace([{"start_ns": 0, "end_ns": 50, "name": "a", "call": -1}])
    page = trace_page.page(shown, numbers, timeline_data(shown), "x.sqlite")
    tables = next(s for s in page.sections if s.id == "kernels").tables
    assert [t.caption for t in tables] == ["Kernels of GPU 0", "Kernels of GPU 1"]
    assert [row[0] + row[4] for t in tables for row in t.rows] == ["a75.0 %", "b25.0 %", "c100.0 %"]


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1440, False), (390, True)])
def test_the_page_in_a_browser(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    path = tmp_path / "page.html"
    path.write_text(html.render(page_of(recordings.trace("tiny-copies-faulty"))), encoding="utf-8")
    browser.events.clear()
    browser.call("Page.navigate", url="about:blank")
    browser.open(path, width=width, dark=dark)
    assert browser.evaluate("document.querySelectorAll('figure.timeline canvas').length") >= 2
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "no sideways scrolling"
    fill = "getComputedStyle(document.querySelector('.ledger-bars rect')).fill"
    before = browser.evaluate(fill)
    browser.evaluate("document.getElementById('theme').click()")
    assert browser.evaluate(fill) != before
    browser.evaluate("document.querySelector('dl.facts a').click()")
    browser.evaluate("new Promise(done => setTimeout(() => done(1), 300))")
    assert browser.evaluate("location.hash").startswith("#t=")
    assert browser.requests() == [] and browser.complaints() == []
