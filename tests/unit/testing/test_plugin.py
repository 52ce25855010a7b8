"""The pytest plugin as a project meets it: captures on the CPU, messages, skips, a cheap start; its document."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import documents
import pytest
from paths import ROOT

from moeprof.loaded.pytest_run import Run
from moeprof.storage.json import decode
from moeprof.testing.errors import ProbeError
from moeprof.testing.fixture import Moeprof
from moeprof.testing.log import Log
from moeprof.testing.work import Work

pytest_plugins = ("pytester",)
QUIET = ("-p", "no:hypothesispytest", "-p", "no:cacheprovider", "-p", "no:xdist")


@pytest.fixture
def torch(tmp_path: Path) -> None:
    """Tests that record: all that recording imports is loaded before the inner pytest (triton cannot be loaded twice)."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    Moeprof(Log(), tmp_path).record(lambda: torch.ones(1).add_(1))


HEAD = """
import pytest, torch
A = torch.ones(64, 64)
def step():
    torch.mm(A, A).add_(1)
"""


def ran(pytester: pytest.Pytester, body: str, *options: str, head: str = HEAD) -> pytest.RunResult:
    """The result of a test module with this body."""
    pytester.makepyfile(head + body)
    return pytester.runpytest_inprocess(*QUIET, *options)


# ---- captures on the CPU


@pytest.mark.usefixtures("torch")
def test_operators_of_a_block_and_of_a_callable_are_counted_an_iteration(pytester: pytest.Pytester) -> None:
    body = """
def test_block(moeprof):
    step()
    with moeprof.capture(iterations=3) as work:
        for _ in range(3):
            step()
    assert work.kernels("aten::mm", exactly=1) == 1
    work.kernels(exactly=2)
    work.only_kernels("aten::mm", "aten::add_")
    work.no_kernels("aten::relu")
    assert "operators in place of kernels" in str(work)

def test_callable(moeprof):
    calls = []
    def counted():
        calls.append(1)
        step()
    moeprof.record(counted, iterations=4, warm_up=2).kernels("aten::mm", exactly=1)
    assert len(calls) == 6

def test_two_captures_in_one_test(moeprof):
    first, second = moeprof.record(step), moeprof.record(lambda: (step(), step()))
    first.kernels(exactly=2)
    second.kernels(exactly=4)

def test_new_operator(moeprof):
    moeprof.record(lambda: (step(), torch.relu(A))).only_kernels("aten::mm", "aten::add_")
"""
    result = ran(pytester, body)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        ["*kernels other than 'aten::mm', 'aten::add_': 1; asserted: at most 0", "*1 x aten::relu*"]
    )
    result.stdout.fnmatch_lines(["*ledger of an iteration on CPU*"])
    result.stdout.no_fnmatch_line("*work.py*")  # the failure points at the test's own line


@pytest.mark.usefixtures("torch")
def test_what_goes_wrong_around_a_capture_is_one_clear_line_and_the_next_test_is_unharmed(
    pytester: pytest.Pytester,
) -> None:
    body = """
def test_empty(moeprof):
    with moeprof.capture():
        pass

def test_empty_on_purpose(moeprof):
    with moeprof.capture(may_be_empty=True) as work:
        pass
    work.kernels(exactly=0)

def test_nested(moeprof):
    with moeprof.capture():
        step()
        with moeprof.capture():
            step()

def test_timed_inside(moeprof):
    with moeprof.capture():
        moeprof.faster(step, step)

def test_raises(moeprof):
    with moeprof.capture():
        raise ValueError("the step broke")

def test_asked_after_it_raised(moeprof):
    with pytest.raises(ValueError):
        with moeprof.capture() as work:
            raise ValueError("the step broke")
    work.kernels(at_most=1)

def test_asked_too_early(moeprof):
    with moeprof.capture() as work:
        step()
        work.kernels(at_most=10)

def test_busy(moeprof):
    with torch.profiler.profile():
        with moeprof.capture():
            step()

def test_profiler_inside(moeprof):
    with moeprof.capture():
        with torch.profiler.profile():
            step()

def test_no_such_gpu(moeprof):
    moeprof.record(step, device="cuda")

def test_last(moeprof):
    moeprof.record(step).kernels(exactly=2)
"""
    result = ran(pytester, body)
    expected = {
        "empty": "the block is empty: no operator ran on the CPU", "nested": "a capture of this test is still open",
        "timed_inside": "a capture of this test is still open", "asked_after_it_raised": "nothing was captured: ValueError: the step broke",
        "asked_too_early": "the capture is still open (assert after the with block)", "busy": "a profiler of torch is already active",
        "profiler_inside": "another profiler of torch ran inside the block", "no_such_gpu": "device cuda was asked for: no CUDA GPU here",
    }  # fmt: skip
    import torch

    if torch.cuda.is_available():
        pytest.skip("what is said without a GPU")
    result.assert_outcomes(passed=2, failed=9)
    lines = result.stdout.str()
    for message in expected.values():
        assert f"ProbeError: {message}" in lines, message
    assert "ValueError: the step broke" in lines and "moeprof/testing" not in lines and "contextlib.py" not in lines


@pytest.mark.usefixtures("torch")
def test_what_is_unknown_or_unclear_fails_or_skips_as_asked(pytester: pytest.Pytester) -> None:
    body = """
class Clock:
    now, costs = 0, {}

@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr("time.perf_counter_ns", lambda: Clock.now)
    return lambda *costs: lambda cycle=[*costs]: (cycle.append(cycle.pop(0)), setattr(Clock, "now", Clock.now + cycle[-1]))

def test_unknown(moeprof):
    moeprof.record(step).launches(at_most=5)

def test_faster(moeprof, clock):
    assert moeprof.faster(clock(1000), clock(1500), by=1.2, seconds=1e-5) == pytest.approx(1.5)
    assert moeprof.not_slower(clock(1010), clock(1000), seconds=1e-5) == pytest.approx(1.01)

def test_not_faster(moeprof, clock):
    moeprof.faster(clock(1000), clock(1100), by=1.2, seconds=1e-5)

def test_unclear(moeprof, clock):
    noisy = [400] * 19 + [1900] * 23 + [700] * 17
    moeprof.not_slower(clock(*noisy), clock(1000), seconds=1e-5)

def test_unclear_throughput(moeprof, clock):
    noisy = clock(*[400] * 19, *[1900] * 23, *[700] * 17)
    work = moeprof.record(lambda: (step(), noisy()))
    work.throughput_gb_per_s(bytes_moved=1000, at_least=1, seconds=1e-5)

def test_unclear_skips(moeprof, clock):
    noisy = [400] * 19 + [1900] * 23 + [700] * 17
    moeprof.not_slower(clock(*noisy), clock(1000), seconds=1e-5, unclear="skip")
"""
    result = ran(pytester, body)
    result.assert_outcomes(passed=1, failed=4, skipped=1)
    result.stdout.fnmatch_lines(
        ["*launches: not known here: operators on a CPU make no CUDA calls; asserted: at most 5"]
    )
    result.stdout.fnmatch_lines(["*speed-up: 1.100 x (99 % interval 1.100 to 1.100); asserted: at least 1.2 x"])
    result.stdout.fnmatch_lines(["*AssertionError: UNCLEAR: time ratio: *"])
    assert re.search(r"throughput: \S+ GB/s; asserted: at least 1 GB/s\n.*UNCLEAR: 95 % interval", result.stdout.str())
    again = pytester.runpytest_inprocess(*QUIET, "--moeprof-unknown=skip", "--moeprof-unclear=skip", "-rs")
    again.assert_outcomes(passed=1, failed=1, skipped=4)
    again.stdout.fnmatch_lines(["SKIPPED*not known here: operators on a CPU make no CUDA calls*"])


@pytest.mark.usefixtures("torch")
def test_a_throughput_is_timed_without_the_profiler_or_says_that_it_was_traced(pytester: pytest.Pytester) -> None:
    body = """
def test_record(moeprof, monkeypatch):
    now = [0]
    monkeypatch.setattr("time.perf_counter_ns", lambda: now[0])
    def timed():
        now[0] += 1000
        step()
    work = moeprof.record(timed)
    assert work.throughput_gb_per_s(bytes_moved=2000, at_least=1.9, seconds=1e-5) == 2
    with pytest.raises(AssertionError, match="95 % interval 2 to 2 TFLOP/s, timed without the profiler"):
        work.throughput_tflop_per_s(flops=2e6, at_least=2.1, seconds=1e-5)

def test_block(moeprof):
    with moeprof.capture() as work:
        step()
    with pytest.raises(AssertionError, match="its time is the traced one"):
        work.throughput_gb_per_s(bytes_moved=1, at_least=1e9)
"""
    ran(pytester, body).assert_outcomes(passed=2)


def test_a_profiler_that_does_not_start_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="torch is not installed")

    class Busy:
        def __enter__(self) -> None:
            raise RuntimeError("Kineto is busy")

    monkeypatch.setattr("moeprof.worker.profiler.profiler", lambda device: Busy())
    with pytest.raises(ProbeError, match=r"torch.profiler does not start: Kineto is busy"):
        Moeprof(Log(), tmp_path).record(lambda: None, device="cpu")


def test_what_needs_a_gpu_skips_with_the_reason(pytester: pytest.Pytester) -> None:
    body = "import pytest\n@pytest.mark.moeprof_gpu\ndef test_gpu(moeprof):\n    assert moeprof.record(list)\n"
    head = "import sys; sys.modules['torch'] = None\n"  # as where it is not installed
    result = ran(pytester, body, "--strict-markers", "-rs", head=head)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*moeprof_gpu: torch is not installed"])
    result = ran(pytester, body.replace("@pytest.mark.moeprof_gpu\n", ""), head=head)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*ProbeError: torch is not installed: nothing can be captured (install it, or mark the test moeprof_gpu)"]
    )


def test_a_plain_run_loads_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(
        "import sys\ndef test_it():\n    assert 'moeprof.testing.plugin' in sys.modules\n"
        "    assert not {'torch', 'pandas', 'numpy', 'plotly', 'jinja2', 'click', 'rich'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-m", "pytest", *QUIET, "--moeprof-json", "j.json", "-q"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert json.loads((tmp_path / "j.json").read_text())["tests"] == []


# ---- the document

DOCUMENT = ROOT / "docs" / "howto" / "pytest.md"


@pytest.mark.usefixtures("torch")
def test_the_document_runs_as_it_stands(tmp_path: Path) -> None:
    documents.write_files(DOCUMENT, tmp_path)
    (block,) = (b for b in documents.blocks(DOCUMENT) if b.kind == "run")
    output = documents.run(block, tmp_path)
    assert re.search(r"[2345] passed", output) and "failed" not in output, output
    run = decode(Run, json.loads((tmp_path / "tests.json").read_text()))
    assert len(run.tests) >= 3 and "test_a_block" in (tmp_path / "tests.html").read_text()


def test_the_document_names_every_assertion_and_option(pytester: pytest.Pytester) -> None:
    written = DOCUMENT.read_text()
    names = [n for c in (Work, Moeprof) for n, f in vars(c).items() if not n.startswith("_") and callable(f)]
    assert all(f"{n}(" in written for n in names if n not in ("fill", "break_off")), names
    shown_help = pytester.runpytest_inprocess(*QUIET, "--help").stdout.str()
    options = set(re.findall(r"--moeprof-\w+", shown_help))
    assert len(options) == 4 and all(f"`{option} " in written for option in options)
