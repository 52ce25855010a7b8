"""`moeprof inspect` as a user runs it: workloads, captures and programs under a fake ncu."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from builders.ncu_pages import GEMM, folder
from click.testing import CliRunner
from fakes.command_line import FAKES, TOKEN, environment, moeprof

from moeprof import resources
from moeprof.capture.redact import leaks
from moeprof.cli.main import cli
from moeprof.errors import MoeprofError
from moeprof.kernels import inspect, ncu
from moeprof.machine import nvml
from moeprof.machine.tools import Tool
from moeprof.storage.manifest import Gpu

SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"
SLEEPER = str(FAKES / "workload.py")
RUNS = count()
NCU = Tool("ncu", Path("ncu"), "2025.3.1")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, traces: Path) -> Path:
    return folder(tmp_path_factory.mktemp("pages"), traces)


@dataclass(frozen=True)
class Ran:
    """How the command ended, as ``cli.main`` would have it."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, on a machine with a GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nvml, "gpus", lambda: (Gpu(0, "a GPU", compute_capability="9.0"),))
    return tmp_path


def run(*words: str, **changes: str) -> Ran:
    """The command in this process, the fakes in its children; no run remembers which counters another one's ncu had."""
    changes.setdefault("XDG_CACHE_HOME", str(Path.cwd().with_name(f"{Path.cwd().name}-cache-{next(RUNS)}")))
    ran = CliRunner(env=environment(**changes)).invoke(cli, ["inspect", *words])
    error = ran.exception
    if isinstance(error, MoeprofError):
        return Ran(int(error.exit_code), ran.stdout, f"error: {error.message}\nhint: {error.hint}")
    assert error is None or isinstance(error, SystemExit), ran.exc_info
    return Ran(ran.exit_code, ran.stdout, ran.stderr)


def told(ran: Ran) -> dict[str, Any]:
    assert ran.returncode == 0, ran.stderr
    said: dict[str, Any] = json.loads(ran.stdout)
    return said


def target_of(argv: list[str]) -> dict[str, Any]:
    """The target of the worker that a command starts."""
    return dict(json.loads(argv[argv.index("--spec") + 1])["target"])


def argv_of(report: Path) -> list[str]:
    """The words that the fake was started with."""
    words: list[str] = json.loads(report.read_bytes()[4:])["argv"]
    return words


def ids(said: dict[str, Any]) -> list[str]:
    return [n["id"] for n in said["notes"]]


def test_a_workload_is_counted_once_and_its_pages_are_kept(here: Path, pages: Path) -> None:
    said = told(run(f"{SLEEPER}/slow", "--kernel", "nvjet", "--json", FAKE_NCU_PAGES=str(pages)))
    assert (
        said["source"] == {"path": f"{SLEEPER}/slow", "kind": "workload"}
        and said["folder"] == "moeprof-out/inspect-001"
    )
    (kernel,) = said["kernels"]
    assert kernel["kernel"] == GEMM and kernel["speed"]["sm_percent"] == 90.418934 and len(kernel["launches"]) == 5
    assert kernel["hot_source"][0]["place"] == "gemm.cu:57" and kernel["hot_sass"][0]["stall"] == "math_pipe_throttle"
    assert kernel["rules"][0]["speedup_percent"] > 15 and kernel["flops"][0]["count"] == 2 * 4096**3
    kept = here / "moeprof-out" / "inspect-001"
    assert {p.name for p in kept.iterdir()} == {*ncu.PAGES, inspect.DATA}, "no raw report, no log, nothing half-written"
    assert json.loads((kept / inspect.DATA).read_text())["kernels"] == said["kernels"]
    for path in kept.iterdir():
        assert not leaks(path, [TOKEN, "secret-host-name", "/home/somebody"]), path
    again = told(run(str(kept), "--kernel", "nvjet", "--json", FAKE_NCU="nothing"))
    assert again["kernels"] == said["kernels"] and again["source"]["kind"] == "report"


def test_the_text_says_where_to_look_next(here: Path, pages: Path) -> None:
    ran = run(SLEEPER, "--kernel", "nvjet|SoftMax", "-o", "out", "--keep-raw", FAKE_NCU_PAGES=str(pages))
    assert ran.returncode == 0, ran.stderr
    for words in (
        "Speed of light",
        "137.439 GFLOP",
        "median of its 5 launches",
        "gemm.cu:57",
        "+0x0010",
        "What ncu's rules say",
        "Wrote out",
    ):
        assert words in ran.stdout, words
    assert ran.stdout.index("nvjet") < ran.stdout.index("cunn_SoftMax"), "the longest first"
    assert "moeprof inspect out --kernel 'nvjet|SoftMax'" in ran.stderr
    raw = here / "out" / "report.ncu-rep"
    assert leaks(raw, [TOKEN]), "kept only as asked for, and as ncu wrote it"
    argv = argv_of(raw)
    assert (
        argv[argv.index("--clock-control") + 1] == "none"
        and argv[argv.index("--nvtx-include") + 1] == "moeprof@measure/"
    )
    assert target_of(argv)["variant"] == "fast" and argv[argv.index("--kernel-name") + 1] == "regex:nvjet|SoftMax"


def test_a_counter_that_the_chip_lacks_is_named_and_not_asked_for(here: Path, pages: Path) -> None:
    ran = run(SLEEPER, "--kernel", "nvjet", "--counters", "dram__bytes_read.sum,sm__new_thing.avg", "--json", "-o", "out", "--keep-raw",
              FAKE_NCU_PAGES=str(pages))  # fmt: skip
    said = told(ran)
    assert ids(said) == ["chip-lacks"] and said["notes"][0]["evidence"] == {"names": "sm__new_thing.avg"}
    assert said["kernels"][0]["asked"] == {
        "gpu__time_duration.sum": 174944.0,
        "dram__bytes_read.sum": 148175360.0,
        "sm__new_thing.avg": None,
    }
    assert said["kernels"][0]["missing"] == {"asked for": ["sm__new_thing.avg"]}
    argv = argv_of(here / "out" / "report.ncu-rep")
    assert argv[argv.index("--metrics") + 1] == "gpu__time_duration.sum,dram__bytes_read.sum" and "--set" not in argv
    ran = run(
        SLEEPER,
        "--kernel",
        "nvjet",
        "--json",
        FAKE_NCU_PAGES=str(pages),
        FAKE_NCU_LACKS="dram__bytes_read lts__throughput",
    )
    assert (
        told(ran)["notes"][0]["evidence"]["names"].split(", ")[0] == "lts__throughput.avg.pct_of_peak_sustained_elapsed"
    )


def test_pages_and_names_that_cannot_be_had_are_said_and_the_rest_is_shown(here: Path, pages: Path) -> None:
    said = told(run(SLEEPER, "--kernel", "nvjet", "--json", FAKE_NCU_PAGES=str(pages), FAKE_NCU_NO_PAGE="details.csv"))
    assert ids(said) == ["no-page"] and "details page" in said["notes"][0]["text"] and said["kernels"][0]["rules"] == []
    blank = run(
        SLEEPER, "--kernel", "nvjet", "--json", FAKE_NCU_PAGES=str(pages), FAKE_NCU_BLANK_PAGE="source-lines.csv"
    )
    assert ids(told(blank)) == ["no-page"] and told(blank)["notes"][0]["evidence"]["why"] == "the page is empty", (
        "a library's kernel"
    )
    said = told(
        run(SLEEPER, "--kernel", "gemm", "--json", FAKE_NCU="nolist")
    )  # lists no metrics, and has a raw page alone
    assert ids(said) == ["metrics-unchecked", "no-page", "no-page", "no-page"]
    (kernel,) = said["kernels"]
    assert (
        kernel["speed"]["duration_ns"] == 3000.0 and "warp states" in kernel["missing"] and len(kernel["launches"]) == 2
    )
    assert kernel["speed"]["sm_percent"] is None, "absent, not 0"


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("noperm", 4, ("ERR_NVGPUCTRPERM", "NVreg_RestrictProfilingToAdminUsers=0")), ("nothing", 4, ("ncu failed", "Failed to find metric")),
        ("empty", 2, ("counted no kernel", "another_kernel")),
    ],
)  # fmt: skip
def test_each_way_that_ncu_fails_leaves_one_line_and_no_folder(
    here: Path, how: str, code: int, words: tuple[str, ...]
) -> None:
    ran = run(SLEEPER, "--kernel", "gemm", FAKE_NCU=how)
    assert ran.returncode == code and "Traceback" not in ran.stderr
    assert all(word in ran.stderr for word in words), ran.stderr
    assert [p for p in here.rglob("*") if p.name != "moeprof-out"] == []


def test_a_workload_that_breaks_says_so_in_its_own_words(here: Path) -> None:
    ran = run(SLEEPER, "--kernel", "gemm", FAKE_WORKLOAD="crash")
    assert ran.returncode == 5 and "the workload broke" in ran.stderr
    ran = run(f"{SLEEPER}/never", "--kernel", "gemm")
    assert ran.returncode == 4 and "needs a quantum computer" in ran.stderr


def test_a_program_of_the_users_own_and_a_program_that_fails(here: Path, pages: Path) -> None:
    ran = run("--kernel", "nvjet", "--range", "step", "--skip", "2", "--keep-raw", "-o", "out", "--", sys.executable, "-c", "import sys", "--json", "--kernel", "z",
              FAKE_NCU_PAGES=str(pages))  # fmt: skip
    assert ran.returncode == 0 and "Wrote out" in ran.stdout, ran.stderr
    argv = argv_of(here / "out" / "report.ncu-rep")
    assert argv[-6:] == [sys.executable, "-c", "import sys", "--json", "--kernel", "z"]
    assert argv[argv.index("--nvtx-include") + 1] == "step/" and argv[argv.index("--launch-skip") + 1] == "2"
    ended = moeprof("inspect", "--kernel", "k", "--", sys.executable, "-c", "raise SystemExit(3)", cwd=here)
    assert ended.returncode == 5 and "exit status 3" in ended.stderr and "Traceback" not in ended.stderr


def captured(target: Path) -> Path:
    """The recorded sample as a capture of the sleeping workload: baseline is slow, overlap is fast."""
    shutil.copytree(SAMPLE, target)
    text = (target / "manifest.json").read_text()
    made = json.loads(text) | {
        "name": "sleeper",
        "argv": ["moeprof", "capture", SLEEPER],
        "params": {"stages": 7, "seed": 3},
        "preset": "default",
    }
    made |= {"baseline": "slow", "optimized": "fast"}
    made["variants"] = [
        v | {"name": {"baseline": "slow", "overlap": "fast"}.get(v["name"], v["name"])} for v in made["variants"]
    ]
    (target / "manifest.json").write_text(json.dumps(made))
    return target


def test_a_capture_is_counted_again_as_it_was_captured(here: Path, pages: Path) -> None:
    captured(here / "cap")
    ran = run(
        "cap", "--kernel", "nvjet", "--set", "seed=9", "--json", "-o", "out", "--keep-raw", FAKE_NCU_PAGES=str(pages)
    )
    said = told(ran)
    assert said["source"] == {"path": "cap", "kind": "capture"} and said["kernels"][0]["kernel"] == GEMM
    assert {t["variant"] for t in said["traced"]} == {"slow", "fast", "graph"} and min(
        t["rank"] for t in said["traced"]
    ) == 1
    argv = argv_of(here / "out" / "report.ncu-rep")
    assert target_of(argv) == {
        "workload": SLEEPER,
        "variant": "fast",
        "device": "cuda",
        "params": {"stages": 7, "seed": 9},
    }


def test_a_capture_whose_counters_are_denied_still_shows_its_trace(here: Path) -> None:
    said = told(run(str(captured(here / "cap")), "--kernel", "nvjet", "--variant", "slow", "--json", FAKE_NCU="noperm"))
    assert {t["variant"] for t in said["traced"]} == {"slow"} and said["folder"] is None
    assert (
        ids(said) == ["recorded-counters"]
        and "ERR_NVGPUCTRPERM" in said["notes"][0]["text"]
        and "NVreg_" in said["notes"][0]["text"]
    )
    for counters in (here / "cap").rglob("counters.csv"):
        counters.unlink()
    made = json.loads((here / "cap" / "manifest.json").read_text())
    made["variants"] = [v | {"parts": [p for p in v["parts"] if p["kind"] == "trace"]} for v in made["variants"]]
    (here / "cap" / "manifest.json").write_text(json.dumps(made))
    bare = told(run("cap", "--kernel", "nvjet", "--json", FAKE_NCU="noperm"))
    assert bare["traced"] and bare["kernels"] == [] and ids(bare) == ["no-ncu"]
    assert "In the trace, without ncu" in run("cap", "--kernel", "nvjet", FAKE_NCU="noperm").stdout


def test_a_raw_report_is_read_by_the_ncu_that_is_here(here: Path, pages: Path) -> None:
    report = here / "r.ncu-rep"
    report.write_bytes(b"NVR\0{}")
    said = told(run("r.ncu-rep", "--kernel", "nvjet", "--json", FAKE_NCU_PAGES=str(pages)))
    assert said["kernels"][0]["hot_sass"] and said["folder"] is None and list(here.iterdir()) == [report]
    said_nothing = run("r.ncu-rep", "--kernel", "nvjet", FAKE_NCU_PAGES=str(pages), FAKE_NCU_NO_PAGE="raw.csv")
    assert said_nothing.returncode == 4 and "cannot read r.ncu-rep" in said_nothing.stderr


def test_a_dry_run_prints_every_command_and_runs_none(here: Path) -> None:
    ran = run(SLEEPER, "--kernel", "a b", "--counters", "basic", "--set", "stages=5", "--dry-run", PATH="/usr/bin:/bin")
    assert ran.returncode == 0 and list(here.iterdir()) == []
    lines = ran.stdout.splitlines()
    assert (
        len(lines) == 6
        and lines[0] == "ncu --query-metrics"
        and [line for line in lines if "--import " in line] == lines[2:]
    )
    assert (
        "'regex:a b'" in lines[1]
        and "--set basic --section SchedulerStats --section WarpStateStats" in lines[1]
        and '"stages": 5' in lines[1]
    )
