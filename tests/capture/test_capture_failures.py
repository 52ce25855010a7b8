"""How a whole capture fails: tools, workloads, disks, Ctrl-C, command lines; one clear line, nothing half-written. Each way in which
a tool fails: tests/unit/capture/test_parts.py; each request that is refused: test_plan.py."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fakes.command_line import FAKES, FAST, capture, environment, moeprof, one_clear_line, running, whole

from moeprof.storage import manifest


def test_a_workload_of_which_nothing_runs_here_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    ran = capture(tmp_path, "--variants", "never")
    assert ran.returncode == 4
    one_clear_line(ran, "no variant of sleeper runs here: needs a quantum computer")
    assert "moeprof list" in ran.stderr
    assert not list(tmp_path.glob("cap*"))


def test_a_wrong_variant_is_not_timed_and_the_others_are_kept(tmp_path: Path) -> None:
    ran = capture(tmp_path, "--variants", "slow,wrong,never,fast", "--rounds", "1")
    assert ran.returncode == 5
    one_clear_line(ran, "wrong is wrong", "part 0 differs")
    status = {v.name: v.status for v in whole(tmp_path / "cap").variants}
    assert status == {"slow": "ok", "wrong": "failed", "never": "skipped", "fast": "ok"}
    wrong = manifest.read(tmp_path / "cap").variant("wrong")
    assert wrong is not None and not wrong.rounds and not wrong.parts


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("lost", 1, ("2 iteration ranges, 3 ran",)),
        ("killed", 5, ("killed by SIGKILL",)),
    ],
)
def test_an_nsys_that_fails_takes_only_its_traces_along(
    tmp_path: Path, how: str, code: int, words: tuple[str, ...]
) -> None:
    ran = capture(tmp_path, FAKE_NSYS=how)
    assert ran.returncode == code, ran.stderr
    one_clear_line(ran, *words)
    finished = tmp_path / ("cap" if code == 5 else "cap.partial")
    assert finished.is_dir() and not (tmp_path / ("cap.partial" if code == 5 else "cap")).exists()
    found = whole(finished)
    for record in found.variants:
        assert [p.kind for p in record.parts] == ["counters"], "what was finished is kept, the broken trace is not"
        assert len(record.rounds) == 2
    assert "no-trace" in [n.id for n in found.notes]


def test_a_hanging_nsys_is_killed(tmp_path: Path) -> None:
    started = time.monotonic()
    ran = capture(
        tmp_path, "--tools", "nsys", "--timeout", "4", "--rounds", "1", "--variants", "slow", FAKE_NSYS="hang"
    )
    assert ran.returncode == 5
    one_clear_line(ran, "ran past 4 s", "--timeout")
    assert time.monotonic() - started < 60
    assert not running("fakes/bin", tmp_path)


def test_an_ncu_that_may_not_count_takes_only_its_counters_along(tmp_path: Path) -> None:
    ran = capture(tmp_path, "--rounds", "1", FAKE_NCU="noperm")
    assert ran.returncode == 4, ran.stderr
    one_clear_line(ran, "ERR_NVGPUCTRPERM", "NVreg_RestrictProfilingToAdminUsers=0")
    for record in whole(tmp_path / "cap.partial").variants:
        assert [p.kind for p in record.parts] == ["trace"]


def test_a_tool_that_was_asked_for_and_is_missing_stops_before_anything_runs(tmp_path: Path) -> None:
    bare = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(FAKES / "site")}
    ran = capture(tmp_path, "--tools", "nsys", **bare)
    assert ran.returncode == 4
    one_clear_line(ran, "nsys was asked for and is not here")
    assert list(tmp_path.iterdir()) == []
    named = capture(tmp_path, "--nsys", str(tmp_path / "nowhere"))
    assert named.returncode == 4
    one_clear_line(named, "does not exist")


def test_a_workload_that_crashes(tmp_path: Path) -> None:
    ran = capture(tmp_path, FAKE_WORKLOAD="crash")
    assert ran.returncode == 5
    one_clear_line(ran, "the workload broke", "nothing could be kept")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48k", "none", str(small)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        ran = capture(small)
        assert ran.returncode == 1, ran.stderr
        one_clear_line(ran, "No space left on device")
        assert not (small / "cap").exists()
        assert not list(small.rglob("trace.sqlite")) and not list((small / "cap.partial").rglob("*.partial"))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def started(cwd: Path, number: signal.Signals, **changes: str) -> subprocess.Popen[str]:
    """A capture in a fresh interpreter that heeds the signal: one that this process ignores (``nohup``, ``&``) a child ignores too."""
    command = [sys.executable, "-P", "-m", "moeprof", "capture", str(FAKES / "workload.py"), "-o", "cap", *FAST]
    before = signal.signal(number, lambda *_: None)  # a handler is not handed on, so that the child has the default
    try:
        return subprocess.Popen(
            command, cwd=cwd, env=environment(**changes), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_and_a_jobs_end_keep_what_was_finished_and_say_so(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path, number, FAKE_NSYS="hang") as child:
        assert child.stderr is not None
        for line in child.stderr:
            if "profile ..." in line:
                break
        time.sleep(1.0)
        child.send_signal(number)
        rest = child.stderr.read()
        assert child.wait(30) == 128 + number
    assert "Traceback" not in rest
    line = next(line for line in rest.splitlines() if line.startswith("error:"))
    assert "interrupted" in line and "cap.partial holds slow (2 rounds, 0 parts), fast (2 rounds, 0 parts)" in line
    found = whole(tmp_path / "cap.partial")
    assert not found.complete and "interrupted" in [n.id for n in found.notes]
    assert not (tmp_path / "cap").exists() and not running("fakes/bin", tmp_path)
    again = capture(tmp_path)
    assert again.returncode == 2
    one_clear_line(again, "cap.partial holds what an earlier capture finished")
    assert manifest.read(tmp_path / "cap.partial") == found
    shown = moeprof("report", "cap.partial", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr


def test_ctrl_c_before_anything_is_finished_leaves_nothing(tmp_path: Path) -> None:
    with started(tmp_path, signal.SIGINT) as child:
        assert child.stderr is not None and "prove" in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        rest = child.stderr.read()
        assert child.wait(30) == 130
    assert "error: interrupted before anything was finished; nothing was kept" in rest
    assert list(tmp_path.iterdir()) == []


def test_an_existing_capture_is_not_overwritten(tmp_path: Path) -> None:
    quick = ("--tools", "none", "--rounds", "1", "--variants", "fast")
    assert capture(tmp_path, *quick).returncode == 0
    before = (tmp_path / "cap" / "manifest.json").read_bytes()
    again = capture(tmp_path, *quick)
    assert again.returncode == 2
    one_clear_line(again, "cap exists")
    assert (tmp_path / "cap" / "manifest.json").read_bytes() == before
    assert capture(tmp_path, *quick, "--force").returncode == 0


def test_a_program_that_fails_keeps_its_trace_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("import sys; print('bad luck'); sys.exit(3)\n")
    ran = moeprof("capture", "-o", "cap", "--", sys.executable, "p.py", cwd=tmp_path)
    assert ran.returncode == 5
    one_clear_line(ran, "exit status 3", "bad luck")
    assert [p.tool for p in whole(tmp_path / "cap").variants[0].parts] == ["nsys"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("capture",), "nothing to capture"),
        (("capture", "a", "b"), "one workload at a time"),
        (("capture", "nothing_of_that_name"), "there is no workload"),
        (("capture", "kv_transfer", "--set", "layers"), "is not KEY=VALUE"),
        (("capture", "kv_transfer", "--tools", "gdb"), "does not fit"),
        (("capture", "kv_transfer", "--rounds", "0"), "--rounds"),
        (("capture", "kv_transfer", "--budget", "0"), "--budget"),
    ],
)
def test_a_wrong_command_line_is_one_clear_line_and_status_2(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    ran = moeprof(*words, cwd=tmp_path)
    assert ran.returncode == 2, ran.stderr
    one_clear_line(ran, said)
    assert list(tmp_path.iterdir()) == []


def test_errors_are_json_where_json_was_asked_for(tmp_path: Path) -> None:
    ran = moeprof("capture", "nothing_of_that_name", "--json", cwd=tmp_path)
    said: dict[str, Any] = json.loads(ran.stdout)
    assert said["code"] == ran.returncode == 2 and "there is no workload" in said["error"] and said["hint"]
