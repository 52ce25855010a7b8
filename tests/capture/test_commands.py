"""`moeprof capture --variant` as a user runs it, on a CPU: a faster command, an equal one, one that does other work."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.command_line import moeprof, one_clear_line

from moeprof.errors import ExitCode
from moeprof.loaded import capture as loaded
from moeprof.report import build, text
from moeprof.storage import manifest
from moeprof.storage.manifest import RUN, Manifest

PYTHON = shlex.quote(sys.executable)
# prints the times of its steps, 2 % apart from run to run, and writes a result: no clock of this machine decides
PROGRAM = """
import os, sys, time
ms, wrong, steps = float(sys.argv[1]), "wrong" in sys.argv, int(sys.argv[3]) if len(sys.argv) > 3 else 3
noise = 1 + 0.02 * ((time.time_ns() // 1000) % 1000 / 1000 - 0.5)
for step in range(steps):
    print(f"step {step}: {ms * noise * (1 + 0.001 * step):.6f} ms")
with open(os.environ["MOEPROF_OUT"] + "/y.json", "w") as file:
    file.write(str([1.0, 2.0, 3.0 + wrong]))
if "fails" in sys.argv:
    sys.exit("it broke")
"""
TIME = r"step \d+: (?P<value>[\d.]+) (?P<unit>ms)"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "gen.py").write_text(PROGRAM, encoding="utf-8")
    return tmp_path


def run(
    place: Path, baseline: str, optimized: str, *words: str, **changes: str
) -> tuple[subprocess.CompletedProcess[str], Manifest | None]:
    """A capture of two commands, timed alone; its manifest, where one was kept."""
    ran = moeprof(
        "capture", "--variant", f"baseline={PYTHON} gen.py {baseline}", "--variant", f"optimized={PYTHON} gen.py {optimized}",
        "--tools", "none", "--device", "cpu", "-o", "cap", *words, cwd=place, **changes,
    )  # fmt: skip
    folder = next((f for f in (place / "cap", place / "cap.partial") if f.is_dir()), None)
    return ran, None if folder is None else manifest.read(folder)


def shown(folder: Path) -> str:
    return " ".join(text.render(build.page_of((loaded.load(folder),))).split())


def test_a_faster_command_is_faster_and_proven(place: Path) -> None:
    ran, found = run(place, "10", "8", "--time", TIME, "--check-file", "y.json", "--rounds", "8")
    assert ran.returncode == 0 and ran.stdout == "Wrote cap\n", ran.stderr
    assert ran.stderr.endswith("Next: moeprof report cap\n")
    assert found is not None and found.kind == "commands" and found.complete and found.unit == RUN
    base, fast = found.variants
    assert len(base.rounds) == len(base.twin) == len(fast.rounds) == 8 and not fast.twin
    assert all(len(r.times_ns) == 2 for r in base.rounds), "the first step of three warms up"
    assert sorted(r.position for rounds in (base.rounds[:1], base.twin[:1], fast.rounds[:1]) for r in rounds) == [
        0,
        1,
        2,
    ]
    assert fast.proof is not None and fast.proof.ok and found.checked == "y.json: equal"
    assert fast.command == (sys.executable, "gen.py", "8")
    page = shown(place / "cap")
    ratio = re.match(r"FASTER optimized is (\d\.\d+) times as fast as baseline", page)
    assert ratio is not None and float(ratio[1]) == pytest.approx(10 / 8, rel=0.01), page[:300]
    assert "Same work, proven: y.json: equal." in page


def test_an_equal_command_is_not_faster_and_an_unchecked_one_not_proven(place: Path) -> None:
    ran, found = run(place, "10", "10", "--time", TIME, "--rounds", "8")
    assert ran.returncode == 0 and found is not None and found.checked == ""
    page = shown(place / "cap")
    assert page.startswith(("SAME", "UNCLEAR")) and "Same work: not proven." in page
    assert "not-proven" in [n.id for n in found.notes]


def test_other_work_has_no_verdict(place: Path) -> None:
    ran, found = run(
        place, "10", "1 wrong", "--time", TIME, "--check-file", "y.json", "--tolerance", "1e-3", "--rounds", "8"
    )
    assert ran.returncode == ExitCode.WORKLOAD and "does not do the work of baseline" in ran.stderr
    assert found is not None and found.complete and not any(v.rounds for v in found.variants)
    assert [v.status for v in found.variants] == ["ok", "failed"]
    page = shown(place / "cap")
    assert page.startswith("No verdict: optimized does not do the work of baseline") and "FASTER" not in page
    assert "The check failed: y.json: equal within 0.001." in page


def test_a_check_command_decides_by_its_exit_status(place: Path) -> None:
    check = f"{PYTHON} -c 'import sys; sys.exit(open(sys.argv[1]).read() != open(sys.argv[2]).read())' {{baseline}}/y.json {{candidate}}/y.json"
    for optimized, code in (("8", 0), ("8 wrong", ExitCode.WORKLOAD)):
        ran, found = run(place, "10", optimized, "--time", TIME, "--check", check, "--rounds", "1", "--force")
        assert ran.returncode == code, ran.stderr
        assert found is not None and (found.variants[1].status == "ok") is (code == 0)


def test_more_steps_a_run_are_not_the_same_step(place: Path) -> None:
    """Twice the steps of half the batch would be called twice as fast."""
    ran, found = run(place, "10 x 4", "5 x 8", "--time", TIME, "--rounds", "8")
    assert (
        ran.returncode == ExitCode.WORKLOAD and "optimized has 8 times" in ran.stderr and "baseline has 4" in ran.stderr
    )
    assert found is not None and not any(v.rounds for v in found.variants)


def test_a_region_and_the_whole_run_are_timed_by_the_clock(tmp_path: Path) -> None:
    (tmp_path / "gen.py").write_text(
        "import sys, time\nfrom moeprof import region\nfor _ in range(3):\n"
        "    with region('step'): time.sleep(float(sys.argv[1]))\n"
    )
    ran, found = run(tmp_path, "0.06", "0.02", "--unit", "step", "--rounds", "2")
    assert ran.returncode == 0 and found is not None and found.unit == "step", ran.stderr
    medians = [v.rounds[0].times_ns for v in found.variants]
    assert all(len(times) == 2 for times in medians) and min(medians[0]) >= 60_000_000 > min(medians[1]) >= 20_000_000
    ran, found = run(tmp_path, "0.06", "0.02", "--rounds", "2", "--force")
    assert ran.returncode == 0 and found is not None and found.unit == RUN
    assert all(r.times_ns[0] >= 180_000_000 and len(r.times_ns) == 1 for r in found.variants[0].rounds)


@pytest.mark.parametrize(
    ("optimized", "words", "code", "says"),
    [
        ("8 fails", (), ExitCode.WORKLOAD, "it broke"),
        ("8", ("--time", r"(?P<value>x)(?P<unit>y)"), ExitCode.WORKLOAD, "nothing that it printed matches"),
        ("8", ("--unit", "step"), ExitCode.WORKLOAD, "no time of a region 'step'; its regions: none"),
        ("8", ("--check-file", "none.pt"), ExitCode.WORKLOAD, "it wrote no none.pt"),
    ],
)  # fmt: skip
def test_a_command_that_fails_is_one_line(
    place: Path, optimized: str, words: tuple[str, ...], code: int, says: str
) -> None:
    ran, _ = run(place, "10", optimized, *words, "--rounds", "1")
    assert ran.returncode == code and says in ran.stderr and "Traceback" not in ran.stderr


def test_a_stale_file_proves_nothing(place: Path) -> None:
    (place / "old.json").write_text("[1.0]")
    os.utime(place / "old.json", (1, 1))
    ran, _ = run(place, "10", "8", "--check-file", "old.json", "--rounds", "1")
    assert ran.returncode == ExitCode.WORKLOAD and "old.json is older than its run" in ran.stderr


def test_options_that_do_not_fit_are_one_line(place: Path) -> None:
    two = ("--variant", "a=x", "--variant", "b=y")
    for words, says in (
        (("router", *two), "are for commands, not for a workload or a program"),
        (("--unit", "x", "--", "python", "p.py"), "are for commands, not for a workload or a program"),
        ((*two, "--preset", "tiny"), "--preset is not for commands"),
        ((*two, "--duration", "3"), "--duration is not for commands"),
        ((*two, "--tools", "ncu"), "ncu counts no commands"),
        (("--variants", "none.toml"), "cannot read none.toml"),
        ((*two, "--variants", "none.toml"), "exclude each other"),
    ):
        ran = moeprof("capture", *words, "--dry-run", cwd=place)
        assert ran.returncode == ExitCode.USAGE
        one_clear_line(ran, says)
    ran = moeprof(
        "capture", "--variant", "a=no-such-program", "--variant", "b=no-such-program", "--tools", "none", cwd=place
    )
    assert "'no-such-program' cannot be started" in ran.stderr and "Traceback" not in ran.stderr


def test_a_file_of_commands_and_its_dry_run(place: Path) -> None:
    (place / "two.toml").write_text(
        f"name = 'moe'\ntime = '{TIME}'\nwarm_up_steps = 0\n[check]\nfile = 'y.json'\n"
        f"[variants.baseline]\ncommand = \"{PYTHON} gen.py 10\"\n[variants.optimized]\ncommand = ['{sys.executable}', 'gen.py', '9']\n"
    )
    ran = moeprof("capture", "--variants", "two.toml", "--dry-run", "--tools", "none", cwd=place)
    assert (
        ran.returncode == 0
        and "# baseline: clean timing (twice per round)" in ran.stdout
        and not (place / "moeprof-out").exists()
    )
    ran = moeprof("capture", "--variants", "two.toml", "--tools", "none", "--rounds", "1", cwd=place)
    assert ran.returncode == 0, ran.stderr
    found = manifest.read(place / "moeprof-out" / "moe-001")
    assert all(len(r.times_ns) == 3 for v in found.variants for r in v.rounds)


def test_the_trace_of_a_region_explains_the_verdict(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    (tmp_path / "gen.py").write_text(
        "import sys, torch\nfrom moeprof import region\nx = torch.ones(64, 64)\nfor _ in range(4):\n    with region('step'):\n"
        "        for _ in range(int(sys.argv[1])): x = x @ x / 64\n"
    )
    ran, found = run(tmp_path, "30", "3", "--unit", "step", "--rounds", "1", "--tools", "torch", PYTHONPATH="")
    assert ran.returncode == 0 and found is not None and [len(v.parts) for v in found.variants] == [1, 1], ran.stderr
    study = loaded.load(tmp_path / "cap")
    spans = [v.representative.span_ns for v in study.variants if v.representative is not None]
    assert len(spans) == 2 and [len(v.iterations.windows) for v in study.variants if v.iterations] == [4, 4]
    page = build.page_of((study,))
    assert "waterfall" in [s.id for s in page.sections]
    private = re.compile(re.escape(str(tmp_path)))
    assert not private.search((tmp_path / "cap" / "manifest.json").read_text()), "no path of this machine"
