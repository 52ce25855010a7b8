"""Captures of programs with the real nsys and ncu on a GPU: interrupted servers, windows, children, failures, counters.

Run with ``pytest -m gpu tests/gpu/test_program_capture.py``.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moeprof.storage import manifest
from moeprof.trace import Trace, read

pytestmark = pytest.mark.gpu

# serves until Ctrl-C: a step of 4 GEMMs under an NVTX range every 50 ms; says when it is ready and how many steps it did
SERVER = """
import signal, sys, time, torch
a = torch.randn(1024, 1024, device="cuda")
torch.mm(a, a); torch.cuda.synchronize()
print("ready", flush=True)
count = 0
try:
    while True:
        torch.cuda.nvtx.range_push("step")
        for _ in range(4):
            torch.mm(a, a)
        torch.cuda.synchronize()
        torch.cuda.nvtx.range_pop()
        count += 1
        time.sleep(0.05)
except KeyboardInterrupt:
    print("steps", count, flush=True)
    print("shut down", file=sys.stderr, flush=True)
"""
STUBBORN = SERVER.replace("import signal,", "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nimport", 1)
# 40 steps of 50 ms, then exit status 3; "load" before them
STEPS = """
import sys, time, torch
a = torch.randn(2048, 2048, device="cuda")
for _ in range(3):
    torch.nn.functional.gelu(a)
torch.cuda.synchronize()
for index in range(40):
    torch.cuda.nvtx.range_push(f"step {index}")
    torch.mm(a, a); torch.softmax(a, 0)
    torch.cuda.synchronize()
    torch.cuda.nvtx.range_pop()
    time.sleep(0.05)
print("done", sys.argv[1:], sys.stdout.isatty())
sys.exit(3 if "fail" in sys.argv else 0)
"""
CHILDREN = """
import multiprocessing, sys, time
def work(number):
    import torch
    a = torch.randn(512, 512, device="cuda")
    for _ in range(5):
        torch.mm(a, a)
    torch.cuda.synchronize()
    print("child", number, flush=True)
    time.sleep(3)  # a forked child ends by os._exit: nsys flushes every half second
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    children = [context.Process(target=work, args=(number,)) for number in range(2)]
    [child.start() for child in children]
    [child.join() for child in children]
    sys.exit(any(child.exitcode for child in children))
"""


def command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "moeprof", "capture", "-o", "cap", *words]


def captured(folder: Path, code: str, *options: str, args: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A capture of this program, in ``folder``/cap."""
    (folder / "prog.py").write_text(code)
    words = command(*options, "--", sys.executable, "prog.py", *args)
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=400, check=False)


def trace_of(folder: Path) -> tuple[manifest.Manifest, Trace]:
    found = manifest.read(folder / "cap")
    part = found.variants[0].part("trace")
    assert part is not None and part.tool == "nsys"
    return found, read(folder / "cap" / part.file)


def started(folder: Path, code: str, *options: str) -> subprocess.Popen[str]:
    (folder / "prog.py").write_text(code)
    return subprocess.Popen(
        command(*options, "--", sys.executable, "prog.py"), cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def left(folder: Path) -> list[str]:
    """Processes that work in ``folder``, or nsys processes of its captures, that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and ("prog.py" in line or "nsys" in line) and (path / "cwd").resolve() == folder.resolve():
                found.append(line)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_server_keeps_its_whole_trace(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path, SERVER) as capture:
        assert capture.stdout is not None and capture.stdout.readline() == "ready\n"
        time.sleep(10)
        capture.send_signal(number)
        out, err = capture.communicate(timeout=120)
    assert capture.returncode == 0, err
    count = int(out.split("steps ")[1].split()[0])
    assert "shut down" in err and "Traceback" not in err
    found, trace = trace_of(tmp_path)
    assert found.complete and [n.id for n in found.notes if n.id == "recording-partial"]
    steps = trace.ranges[trace.ranges["name"] == "step"]
    assert count - 1 <= len(steps) <= count, "every step until the signal"
    assert (trace.ops["kind"] == "kernel").sum() >= 4 * len(steps)
    assert not left(tmp_path)


def test_a_program_that_ignores_ctrl_c_is_ended_and_its_trace_kept(tmp_path: Path) -> None:
    with started(tmp_path, STUBBORN) as capture:
        assert capture.stdout is not None and capture.stdout.readline() == "ready\n"
        time.sleep(3)
        capture.send_signal(signal.SIGINT)
        _, err = capture.communicate(timeout=180)
    assert capture.returncode == 0, err
    assert "did not end within" in err and not left(tmp_path)
    _, trace = trace_of(tmp_path)
    assert len(trace.ranges[trace.ranges["name"] == "step"]) > 20


def test_ctrl_c_twice_stops_at_once(tmp_path: Path) -> None:
    with started(tmp_path, STUBBORN) as capture:
        assert capture.stdout is not None and capture.stdout.readline() == "ready\n"
        for _ in range(2):
            capture.send_signal(signal.SIGINT)
            time.sleep(1)
        begun = time.monotonic()
        capture.communicate(timeout=60)
    assert capture.returncode == 130 and time.monotonic() - begun < 10
    time.sleep(2)
    assert not left(tmp_path)


def test_a_window_by_the_clock_records_that_part_and_the_program_goes_on(tmp_path: Path) -> None:
    ran = captured(tmp_path, STEPS.replace("range(40)", "range(400)"), "--start-after", "15", "--duration", "2")
    assert ran.returncode == 0, ran.stderr
    assert "done [] False" in ran.stdout, "it ran to its own end"
    _, trace = trace_of(tmp_path)
    span_s = (trace.ops["end_ns"].max() - trace.ops["start_ns"].min()) / 1e9
    assert 1.0 < span_s < 3.0
    assert 15 < len(trace.ranges[trace.ranges["name"].astype(str).str.startswith("step")]) < 45


def test_a_window_can_end_the_program(tmp_path: Path) -> None:
    begun = time.monotonic()
    ran = captured(tmp_path, SERVER, "--start-after", "15", "--duration", "2", "--end-program")
    assert ran.returncode == 0, ran.stderr
    assert time.monotonic() - begun < 90 and "steps" in ran.stdout and not left(tmp_path)
    found, _ = trace_of(tmp_path)
    assert "recording-partial" not in [n.id for n in found.notes]


def test_a_window_of_ranges_keeps_so_many_steps(tmp_path: Path) -> None:
    ran = captured(tmp_path, STEPS, "--start-on", r"step \d+", "--steps", "5")
    assert ran.returncode == 0, ran.stderr
    _, trace = trace_of(tmp_path)
    names = [str(name) for name in trace.ranges["name"] if str(name).startswith("step")]
    assert names == [f"step {index}" for index in range(5)]
    kernels = trace.ops[trace.ops["kind"] == "kernel"]
    assert len(kernels) >= 10 and len(kernels) % 5 == 0, "a GEMM and a softmax per step"
    assert not kernels["name"].astype(str).str.contains("(?i)gelu").any(), "nothing of the load"


def test_a_time_limit_ends_the_program_and_keeps_its_trace(tmp_path: Path) -> None:
    ran = captured(tmp_path, SERVER, "--timeout", "25")
    assert ran.returncode == 5 and "time limit of 25 s" in ran.stderr
    _, trace = trace_of(tmp_path)
    assert len(trace.ranges[trace.ranges["name"] == "step"]) > 5 and not left(tmp_path)


def test_a_failing_program_keeps_its_trace_and_output_is_passed_through(tmp_path: Path) -> None:
    ran = captured(tmp_path, STEPS, args=("fail",))
    assert ran.returncode == 5 and ran.stdout.splitlines()[0] == "done ['fail'] False"
    assert ran.stdout.splitlines()[1:] == ["Wrote cap"], "nothing of nsys is mixed in"
    found, trace = trace_of(tmp_path)
    assert "exit status 3" in found.variants[0].reason and (trace.ops["kind"] == "kernel").sum() > 80
    assert found.environment.torch and found.environment.cuda and found.environment.gpus_after


FORKED = pytest.mark.xfail(strict=True, reason="nsys 2025.3.2 records nothing of forked children, whatever it is asked")


@pytest.mark.parametrize("method", ["spawn", pytest.param("fork", marks=FORKED)])
def test_children_are_traced(tmp_path: Path, method: str) -> None:
    options = ("--trace-fork-before-exec",) if method == "fork" else ()
    ran = captured(tmp_path, CHILDREN, *options, args=(method,))
    assert ran.returncode == 0, ran.stderr
    _, trace = trace_of(tmp_path)
    kernels = trace.ops[trace.ops["kind"] == "kernel"]
    assert kernels["pid"].nunique() == 2 and len(kernels) >= 10


def test_ncu_counts_the_kernels_that_cost_most(tmp_path: Path) -> None:
    ran = captured(tmp_path, STEPS, "--tools", "nsys,ncu", "--ncu-kernels", "2")
    assert ran.returncode == 0, ran.stderr
    assert "runs once more" in ran.stderr
    found = manifest.read(tmp_path / "cap")
    part = found.variants[0].part("counters")
    assert part is not None and "two-runs" in [n.id for n in found.notes]
    from moeprof.trace.ncu.counters import read_counters

    kernels = read_counters(tmp_path / "cap" / part.file)["kernel"].astype(str).unique()
    assert any("softmax" in name.lower() for name in kernels) and len(kernels) == 2
    assert not any("gelu" in name.lower() for name in kernels), "not the load"


def test_more_options_of_nsys_are_handed_through(tmp_path: Path) -> None:
    ran = captured(tmp_path, STEPS, "--nsys-args", "--trace=cuda,nvtx,osrt --cuda-memory-usage=true")
    assert ran.returncode == 0, ran.stderr
    part = manifest.read(tmp_path / "cap").variants[0].part("trace")
    assert part is not None and "--trace=cuda,nvtx,osrt" in part.argv and "--trace=cuda,nvtx" not in part.argv
    wrong = captured(tmp_path, STEPS, "-f", "--nsys-args", "--no-such-option=1")
    assert wrong.returncode != 0 and "--no-such-option" in wrong.stderr


@pytest.mark.parametrize("where", ["cuda", "cpu"])
def test_without_nsys_torch_profiler_traces(tmp_path: Path, where: str) -> None:
    code = (
        STEPS
        if where == "cuda"
        else STEPS.replace('device="cuda"', 'device="cpu"').replace("torch.cuda.synchronize()", "pass")
    )
    code = (
        code
        if where == "cuda"
        else code.replace("torch.cuda.nvtx.range_push(f", "(lambda name: None)(f").replace(
            "torch.cuda.nvtx.range_pop()", "pass"
        )
    )
    ran = captured(tmp_path, code, "--tools", "torch", args=("fail",))
    assert ran.returncode == 5 and "done ['fail']" in ran.stdout, ran.stderr
    part = manifest.read(tmp_path / "cap").variants[0].part("trace")
    assert part is not None and part.tool == "torch"
    report = subprocess.run(
        [sys.executable, "-P", "-m", "moeprof", "analyze", "cap", "--json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert report.returncode == 0 and json.loads(report.stdout)["kernels"], report.stderr


def test_a_window_by_the_clock_under_torch_profiler(tmp_path: Path) -> None:
    code = STEPS.replace("range(40)", "range(500)")
    ran = captured(tmp_path, code, "--tools", "torch", "--start-after", "20", "--duration", "2")
    assert ran.returncode == 0 and "done [] False" in ran.stdout, ran.stderr
    part = manifest.read(tmp_path / "cap").variants[0].part("trace")
    assert part is not None
    trace = read(tmp_path / "cap" / part.file)
    assert 1.0 < (trace.ops["end_ns"].max() - trace.ops["start_ns"].min()) / 1e9 < 3.0
