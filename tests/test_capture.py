"""`moeprof capture` as a user runs it: a child process, fake nsys and ncu, a GPU that is not there; every way it can fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from moeprof import manifest, study
from moeprof.capture.redact import leaks

HERE = Path(__file__).resolve().parent
FAKES = HERE / "fakes"
TOKEN = "ghp_planted0123456789abcdefTOKEN"
FAST = ("--rounds", "2", "--iterations", "3", "--variants", "slow,fast")


def environment(**changes: str) -> dict[str, str]:
    """The fakes on PATH and PYTHONPATH, a planted token, nothing of the user's own tool settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MOEPROF", "FAKE"))}
    path = {"PATH": f"{FAKES / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(FAKES / "site")}
    return kept | path | {"MOEPROF_TEST_TOKEN": TOKEN} | changes


def moeprof(*words: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the command in ``cwd``."""
    command = [sys.executable, "-P", "-m", "moeprof", *words]
    changes.setdefault(
        "XDG_CACHE_HOME", str(cwd.with_name(f"{cwd.name}-cache"))
    )  # nothing of the user, nothing in ``cwd``
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment(**changes), timeout=120, check=False
    )


def capture(cwd: Path, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Capture the sleeping workload into ``cwd``/cap."""
    return moeprof("capture", str(FAKES / "workload.py"), "-o", "cap", *FAST, *words, cwd=cwd, **changes)


def whole(folder: Path) -> manifest.Manifest:
    """The manifest of a finished capture, in which nothing is left half-written."""
    assert not list(folder.rglob("*.partial"))
    assert not (folder / "scratch").exists()
    return manifest.read(folder)


def one_clear_line(ran: subprocess.CompletedProcess[str], *words: str) -> None:
    """The failure is one line, without a traceback, and says these words."""
    assert "Traceback" not in ran.stderr
    line = next(line for line in ran.stderr.splitlines() if line.startswith("error:"))
    for word in words:
        assert word in line


def test_a_whole_capture(tmp_path: Path) -> None:
    ran = capture(tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "Wrote cap"
    found = whole(tmp_path / "cap")
    assert found.complete and found.device == "cuda" and found.preset == "default"
    assert (
        found.environment.torch == "2.99.0+fake"
        and found.environment.nsys == "2025.3.1.0"
        and found.environment.ncu == "2025.3.1.0"
    )
    assert found.ceilings == {"link_gb_per_s": 50.0} and found.seed == 3
    for record in found.variants:
        assert record.status == "ok" and record.proof is not None and record.proof.ok
        assert [p.kind for p in record.parts] == ["trace", "counters"]
        assert [len(r.times_ns) >= 3 for r in record.rounds] == [True, True]
    slow, fast = found.variants
    places = [[r.position for r in rounds] for rounds in (slow.rounds, slow.twin, fast.rounds)]
    assert sorted(p[0] for p in places) == [0, 1, 2] and all(sum(p) == 2 for p in places), (
        "the second round runs backwards"
    )
    assert slow.twin_process is True and not fast.twin and found.looks == 1
    loaded = study.load(tmp_path / "cap")
    assert loaded.variants[0].iterations is not None and len(loaded.variants[0].iterations.windows) == 3
    assert loaded.variants[0].counters is not None and set(loaded.variants[0].counters["launch"]) == {0, 1}


def test_ncu_is_asked_once_which_counters_it_knows_and_counts_those(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    for _ in range(2):
        ran = capture(tmp_path, "-f", FAKE_NCU_ASKED=str(asked))
        assert ran.returncode == 0, ran.stderr
    assert asked.read_text() == "asked\n", "the second capture remembers"
    found = whole(tmp_path / "cap")
    part = found.variants[0].part("counters")
    assert part is not None and not [n for n in found.notes if n.id == "no-flops"]
    metrics = part.argv[part.argv.index("--metrics") + 1].split(",")
    assert (
        "smsp__sass_thread_inst_executed_op_ffma_pred_on.sum" in metrics
        and "sm__ops_path_tensor_src_bf16_dst_fp32.sum" in metrics
    )
    assert not [m for m in metrics if "dfma" in m or "sparsity" in m or m.startswith("sm__cycles")], (
        "only what this chip has, nothing twice"
    )
    frame = study.load(tmp_path / "cap").variants[0].counters
    assert frame is not None
    assert list(frame.loc[frame["metric"] == "sm__ops_path_tensor_src_bf16_dst_fp32.sum", "value"]) == [4e9, 4e9]


@pytest.mark.parametrize(("how", "words"), [("nolist", "gave no list"), ("strict", "Failed to find metric smsp__sass")])
def test_an_ncu_that_does_not_know_the_counters_counts_the_rest(tmp_path: Path, how: str, words: str) -> None:
    ran = capture(tmp_path, FAKE_NCU=how)
    assert ran.returncode == 0, ran.stderr
    found = whole(tmp_path / "cap")
    assert [words in n.text for n in found.notes if n.id == "no-flops"] == [True]
    for variant in study.load(tmp_path / "cap").variants:
        assert variant.counters is not None and set(variant.counters["launch"]) == {0, 1}
        part = variant.record.part("counters")
        assert part is not None and "op_ffma" not in " ".join(part.argv), (
            "the manifest names the command that made the part"
        )


def test_no_secret_and_no_host_in_anything_that_is_kept(tmp_path: Path) -> None:
    assert capture(tmp_path).returncode == 0
    files = [p for p in (tmp_path / "cap").rglob("*") if p.is_file()]
    assert len(files) > 8
    for path in files:
        assert not leaks(path, [TOKEN, "secret-host-name", "secret-daemon", "/home/somebody"]), path
    notes = [n for n in manifest.read(tmp_path / "cap").notes if n.id == "redacted"]
    assert len(notes) == 2 and "was not kept" in notes[0].text


def test_the_raw_report_is_kept_only_when_asked_for(tmp_path: Path) -> None:
    assert capture(tmp_path, "--keep-raw").returncode == 0
    raw = tmp_path / "cap" / "slow" / "trace.nsys-rep"
    assert raw.is_file() and leaks(raw, [TOKEN]), "the raw report is as nsys wrote it"


def test_a_workload_of_which_nothing_runs_here_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    ran = capture(tmp_path, "--variants", "never")
    assert ran.returncode == 4
    one_clear_line(ran, "no variant of sleeper runs here: needs a quantum computer")
    assert "moeprof list" in ran.stderr
    assert not list(tmp_path.glob("cap*"))


def test_a_wrong_variant_is_not_timed_and_the_others_are_kept(tmp_path: Path) -> None:
    ran = capture(tmp_path, "--variants", "slow,wrong,never,fast")
    assert ran.returncode == 5
    one_clear_line(ran, "wrong is wrong", "part 0 differs")
    status = {v.name: v.status for v in whole(tmp_path / "cap").variants}
    assert status == {"slow": "ok", "wrong": "failed", "never": "skipped", "fast": "ok"}
    wrong = manifest.read(tmp_path / "cap").variant("wrong")
    assert wrong is not None and not wrong.rounds and not wrong.parts


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("exit1", 1, ("without a report", "something went wrong")),
        ("noreport", 1, ("without a report", "No reports were generated")),
        ("qdstrm", 4, (".qdstrm", "moeprof doctor")),
        ("nokernels", 1, ("the trace holds no kernels",)),
        ("truncated", 1, ("the trace cannot be read",)),
        ("lost", 1, ("2 iteration ranges, 3 ran",)),
        ("killed", 5, ("killed by SIGKILL",)),
    ],
)
def test_each_way_that_nsys_fails(tmp_path: Path, how: str, code: int, words: tuple[str, ...]) -> None:
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
    ran = capture(tmp_path, "--tools", "nsys", "--timeout", "4", FAKE_NSYS="hang")
    assert ran.returncode == 5
    one_clear_line(ran, "ran past 4 s", "--timeout")
    assert time.monotonic() - started < 60
    assert not _running(tmp_path)


def _running(folder: Path) -> list[str]:
    """Fake tools that still run in ``folder``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if "fakes/bin" in text and (entry / "cwd").readlink() == folder:
                found.append(text)
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("noperm", 4, ("ERR_NVGPUCTRPERM", "NVreg_RestrictProfilingToAdminUsers=0")),
        ("nothing", 1, ("wrote nothing",)),
        ("empty", 1, ("counted no kernel",)),
    ],
)
def test_each_way_that_ncu_fails(tmp_path: Path, how: str, code: int, words: tuple[str, ...]) -> None:
    ran = capture(tmp_path, FAKE_NCU=how)
    assert ran.returncode == code, ran.stderr
    one_clear_line(ran, *words)
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


def readings(tmp_path: Path, *phases: dict[str, int]) -> str:
    """What NVML is to say after each phase; two readings of memory come before the first."""
    script = tmp_path / "nvml.jsonl"
    script.write_text("".join(json.dumps(state) + "\n" for state in ({}, {}, *phases)))
    return str(script)


def test_a_disturbed_round_is_repeated_kept_and_does_not_count(tmp_path: Path) -> None:
    script = readings(tmp_path, {}, {"reasons": 0x24}, {}, {}, {}, {}, {}, {"others": 1})
    ran = capture(tmp_path, "--tools", "none", FAKE_NVML=script)
    assert ran.returncode == 0, ran.stderr
    found = whole(tmp_path / "cap")
    used = {tuple(r.used for r in rounds) for v in found.variants for rounds in (v.rounds, v.twin) if rounds}
    assert used == {(False, True, False, True)}
    marks = sorted(d for v in found.variants for r in (*v.rounds, *v.twin) for d in r.disturbed)
    assert marks == ["another process on the GPU", "thermal (software)"], "the power cap, in every phase, disturbs none"
    said = {n.id: n.text for n in found.notes}
    assert "2 of 4 rounds were disturbed" in said["rounds-left-out"] and "which rests on 2" in said["rounds-left-out"]
    assert "slow 4 of 4" in said["power-capped"] and "slow (twin) 4 of 4" in said["power-capped"]
    shown = moeprof("report", "--diff", "cap", cwd=tmp_path)
    assert shown.returncode == 0 and "2 of 4 rounds were disturbed" in shown.stdout
    page = (tmp_path / "moeprof-out" / "cap-diff.html").read_text()
    assert "slow, twin, disturbed" in page and "no: thermal (software)" in page
    assert "2 of 4 rounds were disturbed and do not count" in page


def test_a_budget_ends_the_timing_and_the_verdict_says_what_is_missing(tmp_path: Path) -> None:
    words = ("capture", str(FAKES / "workload.py"), "-o", "cap", "--variants", "slow,fast", "--tools", "none")
    ran = moeprof(*words, "--budget", "2", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = whole(tmp_path / "cap")
    assert 1 <= len(found.variants[0].rounds) < 10 and found.looks == 5
    said = json.loads(moeprof("report", "--diff", "--json", "cap", cwd=tmp_path).stdout)["diff"]
    verdict = said["rows"][1]["verdict"]
    assert verdict["word"] == "UNCLEAR" and "too few: 10 is the least" in verdict["reason"]
    assert list(said).index("unlike") < list(said).index("rows")


def test_without_memory_for_a_second_process_the_twin_shares_the_first(tmp_path: Path) -> None:
    ran = capture(tmp_path, "--tools", "none", FAKE_USED="80000000000")
    assert ran.returncode == 0, ran.stderr
    slow = whole(tmp_path / "cap").variants[0]
    assert slow.twin_process is False and len(slow.twin) == 2
    said = {n.id: n.text for n in manifest.read(tmp_path / "cap").notes}
    assert "memory would not hold another process" in said["twin-shared"]


def test_timing_only(tmp_path: Path) -> None:
    ran = capture(tmp_path, "--tools", "none")
    assert ran.returncode == 0, ran.stderr
    found = whole(tmp_path / "cap")
    assert all(not v.parts and v.rounds for v in found.variants)
    assert "timing-only" in [n.id for n in found.notes]


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


def test_ctrl_c_keeps_what_was_finished_and_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "moeprof", "capture", str(FAKES / "workload.py"), "-o", "cap", *FAST]
    env = environment(FAKE_NSYS="hang")
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if "profile ..." in line:
                break
        time.sleep(1.0)
        child.send_signal(signal.SIGINT)
        rest = child.stderr.read()
        assert child.wait(30) == 130
    assert "Traceback" not in rest
    line = next(line for line in rest.splitlines() if line.startswith("error:"))
    assert "interrupted" in line and "cap.partial holds slow (2 rounds, 0 parts), fast (2 rounds, 0 parts)" in line
    found = whole(tmp_path / "cap.partial")
    assert not found.complete and "interrupted" in [n.id for n in found.notes]
    assert not (tmp_path / "cap").exists() and not _running(tmp_path)
    again = capture(tmp_path)
    assert again.returncode == 2
    one_clear_line(again, "cap.partial holds what an earlier capture finished")
    assert manifest.read(tmp_path / "cap.partial") == found
    shown = moeprof("report", "cap.partial", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr


def test_ctrl_c_before_anything_is_finished_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "moeprof", "capture", str(FAKES / "workload.py"), "-o", "cap", *FAST]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None and "prove" in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        rest = child.stderr.read()
        assert child.wait(30) == 130
    assert "error: interrupted before anything was finished; nothing was kept" in rest
    assert list(tmp_path.iterdir()) == []


def test_an_existing_capture_is_not_overwritten(tmp_path: Path) -> None:
    assert capture(tmp_path, "--tools", "none").returncode == 0
    before = (tmp_path / "cap" / "manifest.json").read_bytes()
    again = capture(tmp_path, "--tools", "none")
    assert again.returncode == 2
    one_clear_line(again, "cap exists")
    assert (tmp_path / "cap" / "manifest.json").read_bytes() == before
    assert capture(tmp_path, "--tools", "none", "--force").returncode == 0


def test_a_program_under_nsys(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("print('hello')\n")
    ran = moeprof("capture", "-o", "cap", "--", sys.executable, "p.py", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = whole(tmp_path / "cap")
    assert found.kind == "program" and [p.tool for p in found.variants[0].parts] == ["nsys"]


def test_a_program_that_fails_keeps_its_trace_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("import sys; print('bad luck'); sys.exit(3)\n")
    ran = moeprof("capture", "-o", "cap", "--", sys.executable, "p.py", cwd=tmp_path)
    assert ran.returncode == 5
    one_clear_line(ran, "exit status 3", "bad luck")
    assert [p.tool for p in whole(tmp_path / "cap").variants[0].parts] == ["nsys"]


def test_dry_run_prints_the_commands_and_runs_nothing(tmp_path: Path) -> None:
    ran = capture(tmp_path, "--dry-run")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("moeprof.worker serve") == 3, "two variants and the baseline's twin"
    assert ran.stdout.count("--cuda-graph-trace=node") == 2
    assert ran.stdout.count("--nvtx-include moeprof@measure/") == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("capture",), "nothing to capture"),
        (("capture", "a", "b"), "one workload at a time"),
        (("capture", "nothing_of_that_name"), "there is no workload"),
        (("capture", "kv_transfer", "--set", "layers"), "is not KEY=VALUE"),
        (("capture", "kv_transfer", "--set", "nothing=1"), "no parameter 'nothing'"),
        (("capture", "kv_transfer", "--variants", "none"), "no variant 'none'"),
        (("capture", "kv_transfer", "--tools", "gdb"), "does not fit"),
        (("capture", "kv_transfer", "--tools", "none,ncu"), "does not fit"),
        (("capture", "kv_transfer", "--rounds", "0"), "--rounds"),
        (("capture", "kv_transfer", "--budget", "0"), "--budget"),
        (("capture", "kv_transfer", "--rounds", "4", "--budget", "9"), "exclude each other"),
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


@pytest.mark.parametrize("program", [("-m", "json.tool", "--help"), ("p.py",)])
def test_on_a_cpu_torch_profiler_stands_in(tmp_path: Path, program: tuple[str, ...]) -> None:
    """The real torch, no GPU, no nsys: a Python program is traced with torch.profiler."""
    pytest.importorskip("torch", reason="torch is not installed")
    (tmp_path / "p.py").write_text("import torch\nx = torch.ones(64, 64)\nfor _ in range(3):\n    x = x @ x * 1e-3\n")
    words = ("capture", "-o", "cap", "--", sys.executable, *program)
    ran = moeprof(*words, cwd=tmp_path, PYTHONPATH="", PATH="/usr/bin:/bin")
    if program[0] == "p.py":
        assert ran.returncode == 0, ran.stderr
        part = whole(tmp_path / "cap").variants[0].parts[0]
        assert part.tool == "torch" and (tmp_path / "cap" / part.file).is_file()
    else:  # it does no tensor work: a zero exit is not a capture
        assert ran.returncode == 1
        one_clear_line(ran, "the trace holds no kernels")


def test_a_raw_report_is_exported_by_the_nsys_that_is_here(tmp_path: Path) -> None:
    raw = tmp_path / "mine.nsys-rep"
    raw.write_text('NVIDIA Tegra Profiler Report 2025@3@1@9\n{"iterations": 2, "environment": {}}')
    ran = moeprof("analyze", "mine.nsys-rep", "--json", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["source"]["path"] == "mine.nsys-rep" and found["windows"][0]["launch"]["kernels"] == 2
    without = moeprof("analyze", "mine.nsys-rep", cwd=tmp_path, PATH="/usr/bin:/bin")
    assert without.returncode == 1
    one_clear_line(without, "is a raw report of nsys 2025.3.1")
    raw.write_text("NVIDIA Tegra Profiler Report 2025@3@1@9 damaged")
    broken = moeprof("analyze", "mine.nsys-rep", cwd=tmp_path)
    assert broken.returncode == 4
    one_clear_line(broken, "nsys 2025.3.1.0 could not export mine.nsys-rep")
    raw.write_text("NVIDIA Tegra Profiler Report 2026@2@1@9 damaged")
    newer = moeprof("analyze", "mine.nsys-rep", cwd=tmp_path)
    assert newer.returncode == 4
    one_clear_line(newer, "was written by nsys 2026.2.1; the nsys here is 2025.3.1.0, too old to export it")
