"""What `moeprof inspect` asks ncu for, where its pages go, and what becomes of a run that left none: without any process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moeprof import resources
from moeprof.errors import MoeprofError, ToolError, UsageError, WorkloadError
from moeprof.kernels import ncu
from moeprof.kernels import target as targets
from moeprof.kernels.inspect import output_folder
from moeprof.kernels.ncu import NcuRequest, available, failure
from moeprof.kernels.target import InspectRequest
from moeprof.machine import nvml, tools
from moeprof.machine.tools import Tool
from moeprof.storage import manifest
from moeprof.storage.files import whole_folder
from moeprof.storage.manifest import Gpu
from moeprof.worker.spec import Target
from moeprof.workloads.common import nvcc

SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"
NCU = Tool("ncu", Path("ncu"), "2025.3.1")


def test_an_output_is_not_replaced_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").touch()
    with pytest.raises(UsageError, match="mine exists"):
        output_folder(Path("mine"), False)
    with pytest.raises(UsageError, match="mine is no inspection"):
        output_folder(Path("mine"), True)
    for number in (1, 2):
        final = output_folder(None, False)
        with whole_folder(final) as partial:
            (partial / ncu.RAW).write_text(str(number))
        assert final == Path(f"moeprof-out/inspect-00{number}")
    with pytest.raises(RuntimeError), whole_folder(final):
        raise RuntimeError("half way")
    assert (final / ncu.RAW).read_text() == "2", "what was there stays until the new one is whole"
    with whole_folder(output_folder(final, True)) as partial:
        (partial / ncu.RAW).write_text("3")
    assert (final / ncu.RAW).read_text() == "3" and not list(tmp_path.rglob("*.partial"))


def test_ranges_are_ours_unless_spelled_as_ncu_does() -> None:
    target = Target("w", "v", "cuda", {})

    def included(given: Target | None, name: str | None) -> str | None:
        argv = ncu.count(NcuRequest("k", given, ("p",), name), NCU, Path("f")).argv
        return argv[argv.index("--nvtx-include") + 1] if "--nvtx-include" in argv else None

    assert [included(target, name) for name in (None, "iteration", "A/*/B/", "x@y")] == [
        "moeprof@measure/",
        "moeprof@iteration/",
        "A/*/B/",
        "x@y",
    ]
    assert [included(None, name) for name in (None, "step")] == [None, "step/"]


def test_metrics_are_told_apart_by_their_base_name() -> None:
    names = frozenset({"sm__throughput", "dram__bytes"})
    given = (
        "sm__throughput.avg.pct_of_peak_sustained_elapsed",
        "dram__bytes.sum",
        "dram__bytes_read.sum",
        "launch__registers_per_thread",
        "dram__bytes.sum",
    )
    assert available(given, names) == ((given[0], given[1], given[3]), (given[2],))


@pytest.mark.parametrize(
    ("log", "status", "kind", "said"),
    [
        ('{"type": "error_reply", "error": "no memory", "hint": "less", "code": 5}\n==ERROR== The application returned an error code (5).\n', 5, WorkloadError, "no memory"),
        ("==ERROR== The application returned an error code (139).\n", 139, WorkloadError, "exit status 139"), ("", -9, WorkloadError, "killed by SIGKILL"),
        ("==ERROR== Unknown Metrics\n", 1, ToolError, "Unknown Metrics"), ("==WARNING== No kernels were profiled.\n", 0, UsageError, "counted no kernel"),
    ],
)  # fmt: skip
def test_why_there_is_no_report(log: str, status: int, kind: type[MoeprofError], said: str) -> None:
    error = failure(log, status)
    assert type(error) is kind and said in error.message


def test_a_capture_on_the_cpu_or_of_a_lost_workload_cannot_be_counted_again() -> None:
    found = manifest.read(SAMPLE)
    assert targets.workload_of(found) == "kv_transfer"
    with pytest.raises(MoeprofError, match="not found from here"):
        targets.workload_of(replace(found, name="lost", argv=("moeprof", "capture", "gone.py")))
    request = InspectRequest("k", (str(SAMPLE),), variant="graph")
    with pytest.raises(MoeprofError, match="on the CPU"):
        targets._of_capture(request, replace(found, device="cpu"))
    program, target = targets._of_capture(
        request, replace(found, kind="program", argv=("moeprof", "capture", "--", "a.out", "-n"))
    )
    assert (program, target) == (("a.out", "-n"), None)


def test_what_the_compiler_said_of_our_own_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler = Tool("nvcc", Path("nvcc"), "13.0")
    monkeypatch.setattr(tools, "find", lambda name, *_: compiler if name == "nvcc" else None)
    monkeypatch.setattr(nvml, "gpus", lambda: (Gpu(0, "a GPU", compute_capability="9.0"),))
    assert targets.compiled("tma") == {}, "not built"
    target = nvcc.library_path(resources.folder("cuda") / "stream_tile.cu", compiler, nvcc.architecture((9, 0)))
    target.parent.mkdir(parents=True)
    target.touch()
    target.with_suffix(".log").write_text(
        "ptxas info : Compiling entry function '_ZN1x3tmaE4Work' for 'sm_90a'\n 0 bytes stack frame, 24 bytes spill stores, 8 bytes spill loads\nptxas info : Used 96 registers\n"
    )
    assert targets.compiled("tma") == {"source": "stream_tile.cu", "registers a thread": 96, "spilled bytes": 24}
    assert targets.compiled("other") == {} and "-lineinfo" in nvcc.FLAGS
