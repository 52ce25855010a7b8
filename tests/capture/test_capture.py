"""`moeprof capture` as a user runs it: what a capture holds, keeps and removes; rounds, twins, dry runs, programs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes.command_line import FAKES, TOKEN, capture, moeprof, one_clear_line, whole

from moeprof.capture.redact import leaks
from moeprof.loaded import capture as study
from moeprof.storage import manifest


@dataclass(frozen=True)
class Captured:
    """A capture that several tests read: where it is and what the command printed."""

    folder: Path
    ran: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Captured, Captured, Path]:
    """Two captures with all tools that share a cache, the second one with ``--keep-raw``; a file with a line for each time that
    ncu was asked for its counters."""
    place = tmp_path_factory.mktemp("twice")
    shared = {"FAKE_NCU_ASKED": str(place / "asked"), "XDG_CACHE_HOME": str(place / "cache")}
    captures = []
    for name, words in (("first", ()), ("second", ("--keep-raw", "--rounds", "1"))):
        (place / name).mkdir()
        captures.append(Captured(place / name / "cap", capture(place / name, *words, **shared)))
    return captures[0], captures[1], place / "asked"


def test_a_whole_capture(twice: tuple[Captured, Captured, Path]) -> None:
    folder, ran = twice[0].folder, twice[0].ran
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "Wrote cap"
    found = whole(folder)
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
    loaded = study.load(folder)
    assert loaded.variants[0].iterations is not None and len(loaded.variants[0].iterations.windows) == 3
    assert loaded.variants[0].counters is not None and set(loaded.variants[0].counters["launch"]) == {0, 1}


def test_ncu_is_asked_once_which_counters_it_knows_and_counts_those(twice: tuple[Captured, Captured, Path]) -> None:
    _, second, asked = twice
    assert second.ran.returncode == 0, second.ran.stderr
    assert asked.read_text() == "asked\n", "the second capture remembers"
    found = whole(second.folder)
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
    frame = study.load(second.folder).variants[0].counters
    assert frame is not None
    assert list(frame.loc[frame["metric"] == "sm__ops_path_tensor_src_bf16_dst_fp32.sum", "value"]) == [4e9, 4e9]


def test_an_ncu_that_lists_no_counters_counts_the_rest(tmp_path: Path) -> None:
    ran = capture(tmp_path, "--rounds", "1", FAKE_NCU="nolist")
    assert ran.returncode == 0, ran.stderr
    found = whole(tmp_path / "cap")
    assert ["gave no list" in n.text for n in found.notes if n.id == "no-flops"] == [True]
    for variant in study.load(tmp_path / "cap").variants:
        assert variant.counters is not None and set(variant.counters["launch"]) == {0, 1}
        part = variant.record.part("counters")
        assert part is not None and "op_ffma" not in " ".join(part.argv), (
            "the manifest names the command that made the part"
        )


def test_no_secret_and_no_host_in_anything_that_is_kept(twice: tuple[Captured, Captured, Path]) -> None:
    folder = twice[0].folder
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert len(files) > 8
    for path in files:
        assert not leaks(path, [TOKEN, "secret-host-name", "secret-daemon", "/home/somebody"]), path
    notes = [n for n in manifest.read(folder).notes if n.id == "redacted"]
    assert len(notes) == 2 and "was not kept" in notes[0].text


def test_the_raw_report_is_kept_only_when_asked_for(twice: tuple[Captured, Captured, Path]) -> None:
    first, second, _ = twice
    raw = second.folder / "slow" / "trace.nsys-rep"
    assert raw.is_file() and leaks(raw, [TOKEN]), "the raw report is as nsys wrote it"
    assert not list(first.folder.rglob("*.nsys-rep"))


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
    assert (
        "2 of 4 rounds were disturbed" in said["rounds-left-out"]
        and "the verdict uses 2 rounds" in said["rounds-left-out"]
    )
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


def test_timing_only_without_memory_for_a_second_process(tmp_path: Path) -> None:
    ran = capture(tmp_path, "--tools", "none", FAKE_USED="80000000000")
    assert ran.returncode == 0, ran.stderr
    found = whole(tmp_path / "cap")
    slow = found.variants[0]
    assert slow.twin_process is False and len(slow.twin) == 2, "the twin shares the first process"
    assert all(not v.parts and v.rounds for v in found.variants)
    notes = {n.id: n.text for n in found.notes}
    assert "timing-only" in notes and "memory would not hold another process" in notes["twin-shared"]


def test_a_program_under_nsys(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("print('hello')\n")
    ran = moeprof("capture", "-o", "cap", "--", sys.executable, "p.py", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = whole(tmp_path / "cap")
    assert found.kind == "program" and [p.tool for p in found.variants[0].parts] == ["nsys"]
    following = ran.stderr.rpartition("Next: moeprof ")[2].split()
    assert following == ["report", "cap"]
    assert "Wrote moeprof-out/cap.html" in moeprof(*following, cwd=tmp_path).stdout


def test_dry_run_prints_the_commands_and_runs_nothing(tmp_path: Path) -> None:
    ran = capture(tmp_path, "--dry-run")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count('"mode": "serve"') == 3, "two variants and the baseline's twin"
    assert ran.stdout.count('"mode": "measure"') == 4 and "# slow (twin): clean timing" in ran.stdout
    assert ran.stdout.count("--cuda-graph-trace=node") == 2
    assert ran.stdout.count("--nvtx-include moeprof@measure/") == 2
    assert list(tmp_path.iterdir()) == []


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
