"""Sessions: the ledger's order, crash and two writers; expectations; the whole flow from the terminal to the page."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builders.session_events import AT, BASE, GUESS, KEEP, SAMPLE, START, TRIED, written
from fakes.command_line import FAKES, moeprof
from hypothesis import given
from hypothesis import strategies as st
from paths import ROOT

from moeprof.errors import CaptureError, UsageError
from moeprof.gate import metrics
from moeprof.gate.rule import expectation
from moeprof.loaded import capture
from moeprof.report import html
from moeprof.report import session as shown
from moeprof.session import log, steps
from moeprof.session.log import Decide, Try

# ---- the ledger


def test_a_session_is_what_its_events_say(tmp_path: Path) -> None:
    written(tmp_path, START, BASE, GUESS, TRIED, KEEP)
    found = log.read(tmp_path)
    assert (found.start, found.base, found.open) == (START, BASE, None)
    assert [(s.number, s.prediction, s.trial, s.decision) for s in found.steps] == [(1, GUESS, TRIED, KEEP)]
    assert found.reference == TRIED
    written(tmp_path, GUESS, TRIED, Decide(False, "", AT))
    assert log.read(tmp_path).reference == TRIED and len(log.read(tmp_path).steps) == 2


@pytest.mark.parametrize(
    ("before", "event"),
    [((START,), GUESS), ((START,), KEEP), ((START, BASE), TRIED), ((START, BASE, GUESS), KEEP), ((START, BASE, GUESS), GUESS),
     ((START, BASE, GUESS, TRIED), TRIED), ((START, BASE), START), ((), BASE)],
)  # fmt: skip
def test_an_event_out_of_order_is_refused_and_leaves_the_file_as_it_was(
    tmp_path: Path, before: tuple[log.Event, ...], event: log.Event
) -> None:
    written(tmp_path, *before)
    content = (tmp_path / log.FILE).read_bytes() if before else b""
    with pytest.raises(UsageError) as caught:
        written(tmp_path, event)
    assert caught.value.hint and (tmp_path / log.FILE).read_bytes() == content


@given(st.integers(1, 400))
def test_a_line_that_a_crash_cut_short_is_left_out_and_then_cut_off(
    tmp_path_factory: pytest.TempPathFactory, lost: int
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    written(folder, START, BASE, GUESS)
    path = folder / log.FILE
    content = path.read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    lost = min(lost, len(content) - last)
    path.write_bytes(content[: len(content) - lost])
    assert log.read(folder).open is None  # as before the prediction
    written(folder, GUESS)
    assert path.read_bytes() == content


def test_two_writers_take_turns_and_no_line_is_lost(tmp_path: Path) -> None:
    written(tmp_path, START, BASE)
    code = (
        "import sys, pathlib; sys.path.insert(0, 'tests/support'); from builders.session_events import written, GUESS, TRIED, KEEP; from moeprof.session import log as ledger\n"
        "from moeprof.errors import UsageError\n"
        "for _ in range(12):\n"
        "    for event in (GUESS, TRIED, KEEP):\n"
        "        try: written(pathlib.Path(sys.argv[1]), event)\n"
        "        except UsageError: pass\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    root = ROOT
    with ThreadPoolExecutor(2) as pool:
        ran = list(
            pool.map(lambda _: subprocess.run(command, cwd=root, capture_output=True, text=True, check=False), range(2))
        )
    assert [r.returncode for r in ran] == [0, 0], ran[0].stderr + ran[1].stderr
    found = log.read(tmp_path)  # every order that two writers make is one that a session allows
    assert len(found.steps) >= 12


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="contains no session"):
        log.read(tmp_path)
    written(tmp_path, START, BASE)
    path = tmp_path / log.FILE
    path.write_bytes(path.read_bytes().replace(b'"event": "try"', b'"event": "tr"'))
    with pytest.raises(CaptureError, match="line 2"):
        log.read(tmp_path)


# ---- expectations and measures


@pytest.mark.parametrize(
    ("text", "before", "after", "holds"),
    [("<0.5x", 4.0, 1.9, True), ("<0.5x", 4.0, 2.0, False), ("<= 0.5x", 4.0, 2.0, True), ("<-20%", 10.0, 7.9, True), ("<-20%", 10.0, 8.1, False),
     (">0.9", None, 0.95, True), (">=3", 9.0, 2.9, False), ("<0.5x", None, 1.0, None), ("<0.5x", 0.0, 1.0, None), ("<0.5x", 4.0, None, None)],
)  # fmt: skip
def test_an_expectation_holds_or_not_or_cannot_be_told(
    text: str, before: float | None, after: float | None, holds: bool | None
) -> None:
    assert expectation(text).holds(before, after) is holds


@pytest.mark.parametrize("text", ["0.5x", "<", "<abc", "=3", "<0.5xx", ""])
def test_what_is_no_expectation_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no expectation"):
        expectation(text)


def test_measures_of_a_real_capture_are_those_of_its_report() -> None:
    found = capture.load(SAMPLE)
    value = lambda metric, name="graph": metrics.value(found, name, metric)  # noqa: E731
    expected = json.loads((SAMPLE / "expected.json").read_text())
    row = next(r for r in expected["rows"] if r["name"] == "graph")
    assert value("step_time") == row["time_ns"]["value"] / 1e6 and value("of_limit") == row["limit_ratio"]
    assert value("copy_overlap") == row["hidden_ratio"] and value("kernels") == 96 and value("calls") == row["calls"]
    assert value("tflop_per_s") is None  # no roofline
    assert value("kernel:nvjet") == pytest.approx(sum(k.time_ns for k in _kernels() if "nvjet" in k.name) / 1e6)
    assert value("kernel:nothing") is None and value("counter:nothing") is None
    assert value("counter:launch__registers_per_thread") == 168
    with pytest.raises(UsageError, match="no variant"):
        value("step_time", "none")
    for name in ("speed", "kernel:", "counter:"):
        with pytest.raises(UsageError, match="no metric"):
            metrics.known(name)


def _kernels() -> tuple[object, ...]:
    from moeprof.kernels.ranking import rankings

    return rankings(SAMPLE, None, "graph", None, "time")["graph"].kernels


# ---- the flow


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``moeprof session``, on a GPU that is not there."""
    return moeprof("session", *words, cwd=folder)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder under git with a workload in it."""
    shutil.copy(FAKES / "workload.py", tmp_path / "work.py")
    for words in (
        ("init", "-q"),
        ("add", "work.py"),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"),
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def test_a_session_from_the_question_to_the_page(project: Path) -> None:
    trial = ("try", "--device", "cpu", "--tools", "none", "--variants", "slow,fast", "--rounds", "2")
    assert run(project, "new", "why so <slow>?", "--workload", "./work.py").returncode == 0
    assert "Next: measure where you start" in run(project, "log").stdout
    ran = run(project, *trial)
    assert ran.returncode == 0, ran.stderr
    assert run(project, "predict", "sleep half", "--metric", "step_time", "--expect", "<0.7x").returncode == 0
    text = (project / "work.py").read_text()
    (project / "work.py").write_text(text.replace("build(0.001)", "build(0.0004)"))
    ran = run(project, *trial)
    assert ran.returncode == 0 and "held: 0." in ran.stdout and "Next: decide" in ran.stdout, ran.stdout + ran.stderr
    told = " ".join(ran.stdout.split())
    assert (
        "Step 1 against the last kept step: UNCLEAR: ratio" in told
        and "since 2 rounds are too few: 5 is the least" in told
    )
    assert run(project, "keep", "shorter").returncode == 0
    run(project, "predict", "no launches", "--metric", "kernels", "--expect", "<1")
    assert "unknown: the capture does not contain the metric" in run(project, *trial).stdout  # no trace was taken
    assert "reverted" in run(project, "revert").stdout
    step = run(project, "show", "1").stdout
    shown_step = json.loads(run(project, "show", "1", "--json").stdout)["step"]
    assert (shown_step["number"], shown_step["decision"]["why"], shown_step["trial"]["held"]) == (1, "shorter", True)
    assert "+        Variant" in step and "build(0.0004)" in step and "+dirty" in step and "Why kept: shorter" in step
    assert run(project, "report").returncode == 0
    page = (project / "moeprof-session" / "session.html").read_text()
    assert "since 2 rounds are too few" in page and "are unlike" not in page
    assert "why so &lt;slow&gt;?" in page and "1 of 1 predictions held" in page and "build(0.0004)" in page
    said = json.loads(run(project, "log", "--json").stdout)["session"]
    assert [s["trial"]["held"] for s in said["steps"]] == [True, None] and said["steps"][1]["decision"]["kept"] is False


def test_a_failed_capture_leaves_the_ledger_as_it_was(project: Path) -> None:
    run(project, "new", "q", "--workload", "./work.py")
    before = (project / "moeprof-session" / log.FILE).read_bytes()
    ran = run(project, "try", "--device", "cpu", "--tools", "none", "--variants", "wrong")
    assert ran.returncode == 1 and "the capture of step 0 failed" in ran.stderr
    assert (project / "moeprof-session" / log.FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [(("log",), 1, "contains no session"), (("try",), 1, "contains no session"), (("keep",), 1, "contains no session"),
     (("predict", "t", "--metric", "speed", "--expect", "<1"), 2, "no metric"), (("predict", "t", "--metric", "kernels", "--expect", "1"), 2, "no expectation"),
     (("new", "q", "--workload", "nothing"), 2, "no workload"), (("show", "1"), 1, "contains no session")],
)  # fmt: skip
def test_what_cannot_be_is_one_clear_line(tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    ran = run(tmp_path, *words)
    assert ran.returncode == code and said in ran.stderr and "Traceback" not in ran.stderr


def test_a_second_session_in_a_folder_and_a_trial_nobody_waits_for_are_refused(tmp_path: Path) -> None:
    written(tmp_path, START, BASE)
    with pytest.raises(UsageError, match="contains a session already"):
        steps.begin(tmp_path, "q", "kv_transfer", None)
    from moeprof.capture import Request, Silent

    with pytest.raises(UsageError, match="does not wait for a trial"):
        steps.attempt(tmp_path, Request(), Silent(), str)


def test_a_page_without_times_has_no_figure(tmp_path: Path) -> None:
    written(tmp_path, START, Try("c", AT, None, "", {}))
    found = log.read(tmp_path)
    assert shown.trajectory(found) is None and "figure-trajectory" not in html.render(shown.page(found))


def test_outside_of_git_there_is_no_state_and_a_long_change_is_cut(tmp_path: Path, project: Path) -> None:
    assert steps.state_of_git(Path("/")) == (None, "")
    (project / "work.py").write_text("x = 1\n" * 40_000)
    commit, change = steps.state_of_git(project)
    assert commit is not None and commit.endswith("+dirty") and len(change) < log.MAX_DIFF + 100 and "[cut:" in change
