"""Captures of programs as a user runs them: what they print, what ends them, what is kept; the fake nsys, and the real torch."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from fakes.command_line import environment, gone, moeprof, one_clear_line, running, whole

from moeprof.storage import manifest

SERVER = """
import os, sys, time
open("pid", "w").write(str(os.getpid()))
print("ready", flush=True)
try:
    while True:
        time.sleep(0.02)
except KeyboardInterrupt:
    print("shut down", flush=True)
    sys.exit(130)
"""
STUBBORN = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + SERVER
CHILD = "import subprocess, sys\nsubprocess.run([sys.executable, 'child.py'], start_new_session=True)\n"


def command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "moeprof", "capture", "-o", "cap", *words]


@contextmanager
def started(folder: Path, code: str, *words: str, **changes: str) -> Iterator[subprocess.Popen[str]]:
    """A capture of this program that has said that it is ready; of both nothing is left afterwards, whatever the test found."""
    (folder / "serve.py").write_text(code)
    capture = subprocess.Popen(
        command(*words, "--", sys.executable, "serve.py"), cwd=folder, env=environment(**changes), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        assert capture.stdout is not None and capture.stdout.readline() == "ready\n"
        yield capture
    finally:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("MOEPROF_HOLDER") == str(capture.pid):
                    process.kill()
        capture.kill()
        capture.communicate()


def notes(folder: Path) -> list[str]:
    return [note.id for note in manifest.read(folder).notes]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_the_program_and_keeps_its_trace(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path, SERVER) as capture:
        for _ in range(2):  # `timeout` sends it to the process and to its group
            capture.send_signal(number)
            time.sleep(0.05)
        out, err = capture.communicate(timeout=30)
    assert capture.returncode == 0, err
    assert out == "shut down\nWrote cap\n" and "saving what was recorded. Again: stop at once" in err
    found = whole(tmp_path / "cap")
    assert found.complete and [p.tool for p in found.variants[0].parts] == ["nsys"]
    assert found.variants[0].status == "ok" and "recording-partial" in notes(tmp_path / "cap")


def test_the_second_signal_stops_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(STUBBORN)
    with started(tmp_path, "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + CHILD) as capture:
        begun = time.monotonic()
        capture.send_signal(signal.SIGINT)
        time.sleep(1.0)
        capture.send_signal(signal.SIGINT)
        _, err = capture.communicate(timeout=30)
        assert capture.returncode == 130 and time.monotonic() - begun < 8, err
        assert "Traceback" not in err and "error: interrupted before anything was finished" in err
        assert gone([int((tmp_path / "pid").read_text())], 3.0), "a child in a session of its own is ended too"
    assert not running("serve.py", tmp_path) and not running("nsys", tmp_path) and not (tmp_path / "cap").exists()


def test_a_program_that_ignores_ctrl_c_is_ended_and_its_trace_is_kept(tmp_path: Path) -> None:
    with started(tmp_path, STUBBORN) as capture:
        capture.send_signal(signal.SIGINT)
        _, err = capture.communicate(timeout=60)
        assert capture.returncode == 0, err
        assert "did not end within 10 s of SIGINT" in err
        assert gone([int((tmp_path / "pid").read_text())])
    assert [p.tool for p in whole(tmp_path / "cap").variants[0].parts] == ["nsys"]


def test_a_program_has_no_time_limit_unless_given_and_keeps_its_trace_then(tmp_path: Path) -> None:
    with started(tmp_path, SERVER, "--timeout", "2") as capture:
        out, err = capture.communicate(timeout=60)
    assert capture.returncode == 5 and "shut down" in out
    assert "error: the program ran past its time limit of 2 s (its trace was kept)" in err
    assert [p.tool for p in whole(tmp_path / "cap").variants[0].parts] == ["nsys"]
    assert "recording-partial" in notes(tmp_path / "cap")


def test_a_window_is_recorded_while_the_program_goes_on(tmp_path: Path) -> None:
    with started(tmp_path, SERVER, "--start-after", "1.5", "--duration", "0.5") as capture:
        assert capture.stderr is not None
        for line in capture.stderr:
            if "nsys: kept" in line:
                break
        assert running("serve.py", tmp_path), "it goes on, and its trace is kept already"
        assert manifest.read(tmp_path / "cap.partial").variants[0].parts
        capture.send_signal(signal.SIGINT)
        out, err = capture.communicate(timeout=30)
    assert capture.returncode == 0 and "shut down" in out, err
    assert "recording-window" in notes(tmp_path / "cap") and "recording-partial" not in notes(tmp_path / "cap")


def test_a_window_can_end_the_program(tmp_path: Path) -> None:
    with started(tmp_path, SERVER, "--duration", "2", "--end-program") as capture:
        out, err = capture.communicate(timeout=30)
    assert capture.returncode == 0 and "shut down" in out, err


def test_a_program_that_ends_before_its_window_says_so(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("print('short')\n")
    ran = moeprof("capture", "-o", "cap", "--start-after", "9", "--", sys.executable, "p.py", cwd=tmp_path)
    assert ran.returncode == 1 and not (tmp_path / "cap").exists()
    one_clear_line(ran, "the program ended", "before recording began", "--start-after 9")


def test_output_goes_where_it_belongs_and_into_logs(tmp_path: Path) -> None:
    code = "import sys\nprint('to out', sys.stdin.read()); print('to err', file=sys.stderr)\nprint(b'\\xff'.hex()); sys.stdout.buffer.write(b'\\xff\\n')"
    (tmp_path / "p.py").write_text(code)
    words = command("--", sys.executable, "p.py")
    ran = subprocess.run(words, cwd=tmp_path, env=environment(), input=b"typed", capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == b"to out typed\nff\n\xff\nWrote cap\n" and b"to err\n" in ran.stderr
    logs = {path.name: path.read_bytes() for path in (tmp_path / "cap" / "logs").iterdir()}
    assert logs["program-nsys.out.log"] == b"to out typed\nff\n\xff\n" and logs["program-nsys.err.log"] == b"to err\n"


def test_json_is_alone_on_stdout(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("print('hello')\n")
    ran = moeprof("capture", "-o", "cap", "--json", "--", sys.executable, "p.py", cwd=tmp_path)
    assert ran.returncode == 0 and ran.stdout.startswith("{") and "hello" in ran.stderr


def test_on_a_terminal_the_program_has_one_too(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(
        "import os\nprint([os.isatty(n) for n in range(3)], os.get_terminal_size().columns, input())\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execvpe(sys.executable, command("--", sys.executable, "p.py"), environment(COLUMNS=""))
    os.write(terminal, b"typed\n")
    shown, until = b"", time.monotonic() + 30
    while time.monotonic() < until:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                shown += os.read(terminal, 4096)
            except OSError:
                break
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown
    assert b"[True, True, True]" in shown and b"typed" in shown.rpartition(b"True]")[2]
    assert (tmp_path / "cap" / "logs" / "program-nsys.out.log").read_bytes().count(b"\r") == 0


@pytest.mark.parametrize("status", [1, 3, 255])
def test_the_programs_exit_status_is_recorded_and_its_trace_kept(tmp_path: Path, status: int) -> None:
    (tmp_path / "p.py").write_text(f"import sys\nprint('bad luck', file=sys.stderr)\nsys.exit({status})\n")
    ran = moeprof("capture", "-o", "cap", "--", sys.executable, "p.py", cwd=tmp_path)
    assert ran.returncode == 5
    one_clear_line(ran, f"exit status {status}", "bad luck", "its trace was kept")
    record = whole(tmp_path / "cap").variants[0]
    assert record.status == "failed" and f"exit status {status}" in record.reason and record.parts


def test_a_report_that_cannot_be_exported_is_kept_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("print('hello')\n")
    ran = moeprof("capture", "-o", "cap", "--", sys.executable, "p.py", cwd=tmp_path, FAKE_NSYS="noexport")
    assert ran.returncode == 1
    one_clear_line(ran, "nsys export failed", "kept what was finished in cap.partial")
    assert (tmp_path / "cap.partial" / "program" / "trace.nsys-rep").is_file()
    assert "raw-report" in notes(tmp_path / "cap.partial")


def test_a_script_given_in_place_of_a_workload_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("open('ran', 'w')\nimport time; time.sleep(60)\n")
    ran = moeprof("capture", "train.py", cwd=tmp_path)
    assert ran.returncode == 2 and not (tmp_path / "ran").exists()
    one_clear_line(ran, "train.py declares no WORKLOAD: it is a program")
    assert "hint: moeprof capture -- python train.py" in ran.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--start-after", "3", "--start-on", "x"), "--start-after and --start-on exclude each other"),
        (("--steps", "3"), "--steps counts NVTX ranges and needs --start-on"),
        (("--end-program",), "--end-program needs --duration"),
        (("--start-on", "("), "--start-on is no regular expression"),
        (("--nsys-args", "--delay=3"), "--delay conflicts with what the capture sets itself"),
        (("--nsys-args", "-o x"), "--output conflicts"),
        (("--nsys-args", "--trace=osrt"), "--trace=osrt lacks cuda"),
        (("--nsys-args", "x"), "'x' is no option"),
        (("--tools", "none"), "--tools none leaves nothing to record of a program"),
        (("--nsys-args", "'"), "No closing quotation"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    ran = moeprof("capture", *words, "--", sys.executable, "-c", "0", cwd=tmp_path)
    assert ran.returncode == 2
    one_clear_line(ran, message)
    assert not list(tmp_path.rglob("manifest.json"))


def test_an_option_that_nsys_does_not_know_is_told(tmp_path: Path) -> None:
    ran = moeprof("capture", "-o", "cap", "--nsys-args=--no-such=1", "--", sys.executable, "-c", "0", cwd=tmp_path)
    assert ran.returncode == 4 and not (tmp_path / "cap").exists()
    one_clear_line(ran, "nsys 2025.3.1.0 refused its options: unrecognised option '--no-such=1'")


def test_ncu_counts_in_a_second_run_what_the_trace_shows_to_cost_most(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("print('ran')\n")
    words = ("--tools", "nsys,ncu", "--ncu-kernels", "2", "--", sys.executable, "p.py")
    ran = moeprof("capture", "-o", "cap", *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "ran\nran\nWrote cap\n" and "the program runs once more: ncu counts gemm" in ran.stderr
    found = whole(tmp_path / "cap")
    part = found.variants[0].part("counters")
    assert part is not None and {"two-runs", "counters-of-program"} <= set(notes(tmp_path / "cap"))
    argv = " ".join(part.argv)
    assert (
        "--kernel-name-base function --kernel-name regex:^(gemm)$ --launch-skip 1 --kill yes --launch-count 1" in argv
    )
    assert part.argv[-2:] == (Path(sys.executable).name, "p.py"), (
        "the process that opens streams is no part of the command"
    )


def test_the_environment_of_the_program_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "p.py").write_text("print('ran')\n")
    git = ["git", "-C", str(tmp_path / "code"), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    ran = moeprof("capture", "--", sys.executable, "code/p.py", cwd=tmp_path)
    assert ran.returncode == 0 and "Wrote moeprof-out/p-001" in ran.stdout, ran.stderr
    found = whole(tmp_path / "moeprof-out" / "p-001")
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
    assert found.git == head.stdout.strip() and found.environment.python.startswith("3.")
    assert found.environment.packages.get("numpy") and found.environment.gpus_before and found.environment.gpus_after
    shell = moeprof("capture", "-o", "other", "--", "sh", "-c", "true", cwd=tmp_path)
    assert shell.returncode == 0, shell.stderr
    assert not whole(tmp_path / "other").environment.packages, "a shell has no Python whose packages could be told"


def test_a_program_that_is_not_there_is_refused(tmp_path: Path) -> None:
    ran = moeprof("capture", "--", "./no_such", cwd=tmp_path)
    assert ran.returncode == 2
    one_clear_line(ran, "there is no program './no_such'")
    assert not list((tmp_path / "moeprof-out").glob("*"))
