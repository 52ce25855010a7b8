"""The page and the JSON of a pytest run: one process and several, hostile names, nothing captured, a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from browser.chromium import Browser
from builders.kineto_trace import small

from moeprof.analysis.model import Kernel
from moeprof.loaded.pytest_run import Captured, Case, Check, Run
from moeprof.report import html, pytest_run
from moeprof.storage.json import decode
from moeprof.testing.fixture import Moeprof
from moeprof.testing.log import Log

pytest_plugins = ("pytester",)
QUIET = ("-p", "no:hypothesispytest", "-p", "no:cacheprovider", "-p", "no:xdist")


def ran(pytester: pytest.Pytester, body: str, *options: str) -> pytest.RunResult:
    """The result of a test module with this body."""
    pytester.makepyfile(body)
    return pytester.runpytest_inprocess(*QUIET, *options)


TRACED = """
import pytest
@pytest.mark.parametrize("most", [2, 1, 3])
def test_launches(moeprof, most):
    moeprof.read({path!r}, range_name="step").launches(at_most=most / 2)

def test_captures_nothing():
    pass

def test_nothing_asked(moeprof):
    pass
"""


def test_the_report_tells_every_captured_test(pytester: pytest.Pytester) -> None:
    path = small(pytester.path / "trace.json")
    files = ("--moeprof-report", "page.html", "--moeprof-json", "run.json")
    result = ran(pytester, TRACED.format(path=str(path)), *files)
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["Wrote run.json", "Wrote page.html"])
    run = decode(Run, json.loads((pytester.path / "run.json").read_text()))
    assert [(t.nodeid.partition("::")[2], t.outcome, t.checks[0].value) for t in run.tests] == [
        ("test_launches[1]", "failed", 1.0), ("test_launches[2]", "passed", 1.0), ("test_launches[3]", "passed", 1.0),
    ]  # fmt: skip
    page = (pytester.path / "page.html").read_text()
    assert page == html.render(pytest_run.page(run)), "same run, same bytes"
    assert (
        "2 of 3 assertions held" in page
        and "launches: 1; asserted: at most 0.5" in page
        and "cudaLaunchKernel inside aten::mm" in page
    )


def test_a_run_that_captured_nothing_says_so(pytester: pytest.Pytester) -> None:
    ran(pytester, "def test_it(): pass", "--moeprof-report", "page.html").assert_outcomes(passed=1)
    page = (pytester.path / "page.html").read_text()
    assert "No test captured anything" in page and "figure-tests" not in page


def test_a_report_that_cannot_be_written_fails_the_run(pytester: pytest.Pytester) -> None:
    result = ran(pytester, "def test_it(): pass", "--moeprof-report", "nowhere/page.html")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*moeprof cannot write nowhere/page.html*"])
    body = "def test_it():\n    import os; os.mkdir('page.html')"
    result = ran(pytester, body, "--moeprof-report", "page.html")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["moeprof could not write its report: *page.html*"])


def test_several_processes_give_one_report_also_where_one_dies(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    path = small(pytester.path / "trace.json")
    body = TRACED.format(path=str(path)) + "def test_dies(moeprof):\n    import os; os._exit(1)\n"
    pytester.makepyfile(body)
    pytester.makeconftest(
        "import pathlib\ndef pytest_sessionfinish(session):\n"
        "    if hasattr(session.config, 'workerinput') and pathlib.Path('run.json').exists():\n"
        "        pathlib.Path('a-worker-wrote').touch()\n"
    )
    options = ("-p", "no:hypothesispytest", "-n", "2", "--moeprof-report", "page.html", "--moeprof-json", "run.json")
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=4, failed=2)
    run = decode(Run, json.loads((pytester.path / "run.json").read_text()))
    assert sorted(t.nodeid.partition("::")[2] for t in run.tests) == [f"test_launches[{n}]" for n in (1, 2, 3)]
    assert all(re.fullmatch(r"gw\d+", t.worker) for t in run.tests) and {t.outcome for t in run.tests} == {
        "passed",
        "failed",
    }
    assert "3 tests" in (pytester.path / "page.html").read_text() and not (pytester.path / "a-worker-wrote").exists()


HOSTILE = "test_x.py::test[</script><script>alert(1)</script>]"


def hostile_run() -> Run:
    check = Check("launches", 13.0, "", "at most 12", "failed", "launches: 13\n  <b>stray</b>", 1)
    unknown = Check("copy_overlap", None, "", "at least 0.9", "unknown", "not known here: no copy ran", 2)
    broken = Captured(1, "cuda", 5, None, (Kernel("<img src=x>", 5, 10, 2.0, 1, 3, 0),), True, (), "ValueError: <i>")
    return Run("0", (Case(HOSTILE, "failed", "gw0", (broken,), (check, unknown)),))


def test_hostile_names_stay_text() -> None:
    page = html.render(pytest_run.page(hostile_run()))
    assert "<img src=x>" not in page and "<b>stray" not in page and "alert(1)</script>]" not in page
    assert "ValueError: &lt;i&gt;" in page and "&lt;b&gt;stray" in page and "–" in page


def test_what_a_cpu_does_not_know_is_a_dash_on_the_page(tmp_path: Path) -> None:
    path = small(tmp_path / "t.json")
    path.write_text(re.sub(r'"cat": "(kernel|gpu_memcpy|cuda_runtime)"', '"cat": "none"', path.read_text()))
    log = Log()
    Moeprof(log, tmp_path).read(path, range_name="step").kernels(exactly=1)
    case = log.case("test", "passed", "")
    page = html.render(pytest_run.page(Run("0", (case,) if case else ())))
    for row in ("launches", "synchronising calls", "copy overlap"):
        assert re.search(rf">{row}</th><td>–</td>", page), row


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_in_a_browser(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    log = Log()
    work = Moeprof(log, tmp_path).read(small(tmp_path / "t.json"), range_name="step")
    work.launches(at_most=1)
    with pytest.raises(AssertionError):
        work.copy_overlap(at_least=0.9)
    tests = (log.case("tests/test_model.py::test_decode_step", "failed", ""), *hostile_run().tests)
    page = tmp_path / "page.html"
    page.write_text(html.render(pytest_run.page(Run("0", tuple(t for t in tests if t)))))
    browser.events.clear()
    browser.open(page, width=width, dark=dark)
    assert browser.evaluate("document.querySelectorAll('#figure-tests .main-svg').length") > 0, "the ledgers are drawn"
    assert browser.evaluate(f"document.documentElement.scrollWidth <= {width}"), "no sideways scrolling"
    browser.screenshot(tmp_path / "page.png")
    assert browser.requests() == [] and browser.complaints() == []
