"""The CUDA sources: compiled for GPUs that are not here, built once, refused with the compiler's words; proven on a GPU."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

torch = pytest.importorskip("torch", reason="torch is not installed")

from moeprof import resources  # noqa: E402
from moeprof.errors import ToolError, UsageError, WorkloadError  # noqa: E402
from moeprof.machine import tools  # noqa: E402
from moeprof.worker.built_variant import Session  # noqa: E402
from moeprof.workload.model import Machine  # noqa: E402
from moeprof.workloads.common import nvcc  # noqa: E402
from moeprof.workloads.decode import decode_kernel, stream  # noqa: E402

WORKLOAD = decode_kernel.WORKLOAD
HOPPER = Machine(cuda=True, gpus=1, compute_capability="9.0")
TINY = WORKLOAD.params("tiny", {})
HERE = tools.find("nvcc")
needs_nvcc = pytest.mark.skipif(HERE is None or shutil.which("g++") is None, reason="nvcc or g++ is missing")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "moeprof" / "cuda"


@pytest.fixture
def kept(request: pytest.FixtureRequest, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries of earlier runs are used again: their names contain the hash of the source, the compiler and the flags."""
    of_pytest = getattr(request.config, "cache", None)
    if of_pytest is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(of_pytest.mkdir("moeprof-cuda")))


@needs_nvcc
@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (10, 0), (12, 1)])
@pytest.mark.parametrize("source", sorted(p.name for p in resources.folder("cuda").glob("*.cu")))
def test_every_source_compiles_for_every_architecture(source: str, capability: tuple[int, int]) -> None:
    built = nvcc.build(source, capability)
    assert built.path.is_file() and "Compiling entry function" in built.report
    assert built.report.count("bytes spill stores") == built.report.count("Compiling entry function")


@needs_nvcc
@pytest.mark.usefixtures("kept")
def test_the_assemblers_report_is_kept_by_kernel() -> None:
    built = nvcc.build(stream.SOURCE, (9, 0))
    for name in stream.NAMES:
        usage = built.usage(name)
        assert 16 <= usage["registers a thread"] <= 128 and usage["spilled bytes"] <= 16
    assert built.usage("none") == {}


FAKE_NVCC = """#!/bin/sh
echo "$@" >> {calls}
sleep 0.3
while [ "$1" != -o ]; do shift; done
echo library > "$2"
"""


def test_a_library_is_built_once_by_whoever_comes_first(tmp_path: Path, cache: Path) -> None:
    """The compiler is an executable that notes its calls."""
    calls, program = tmp_path / "calls", tmp_path / "nvcc"
    program.write_text(FAKE_NVCC.format(calls=calls))
    program.chmod(0o755)
    fake = tools.Tool("nvcc", program, "13.0")
    with ThreadPoolExecutor(3) as pool:
        paths = {b.path for b in pool.map(lambda _: nvcc.build(decode_kernel.SOURCE, (9, 0), fake), range(3))}
    assert len(paths) == 1 and len(calls.read_text().splitlines()) == 1
    assert nvcc.build(decode_kernel.SOURCE, (9, 0), fake).path in paths and len(calls.read_text().splitlines()) == 1
    assert nvcc.build(decode_kernel.SOURCE, (8, 0), fake).path not in paths
    assert len(calls.read_text().splitlines()) == 2 and "sm_80" in calls.read_text().splitlines()[1]
    assert not list(cache.glob("*.partial"))


@needs_nvcc
@pytest.mark.usefixtures("kept")
def test_flags_of_the_user_make_a_library_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With MOEPROF_MEET nobody goes ahead of a barrier, which racecheck could not follow."""
    source = "latent_attention.cu"
    plain = nvcc.build(source, (9, 0))
    monkeypatch.setenv("MOEPROF_NVCC_FLAGS", "-DMOEPROF_MEET -DANOTHER='1 + 1'")
    assert nvcc.flags()[-2:] == ("-DMOEPROF_MEET", "-DANOTHER=1 + 1")
    met = nvcc.build(source, (9, 0))
    assert met.path != plain.path
    beside = Path(str(pytest.importorskip("triton").__file__)).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    dump = shutil.which("cuobjdump") or (str(beside) if beside.is_file() else None)
    if dump is None:
        pytest.skip("cuobjdump is missing: whether the barriers differ was not looked at")
    code = [
        subprocess.run([dump, "-sass", built.path], capture_output=True, text=True, check=True).stdout
        for built in (plain, met)
    ]
    assert "BAR.ARV" in code[0] and "BAR.ARV" not in code[1]


@needs_nvcc
def test_what_the_compiler_refuses_is_said_in_its_words(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.cu").write_text("__global__ void f() { undeclared(); }\n")
    monkeypatch.setattr(nvcc, "folder", lambda name: tmp_path)
    with pytest.raises(WorkloadError, match='identifier "undeclared" is undefined') as caught:
        nvcc.build("broken.cu", (9, 0))
    assert "nvcc" in caught.value.hint
    assert not list(cache.glob("*.so")) and not list(cache.glob("*.partial"))


def test_a_missing_compiler_and_an_old_gpu_are_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nvcc.needs_nvcc(Machine(cuda=False, gpus=0)) == "needs a CUDA GPU"
    found = tools.Tool("nvcc", Path("nvcc"), "13.0")
    monkeypatch.setattr(tools, "find", lambda name: found)
    assert nvcc.needs_nvcc(HOPPER) is None and nvcc.needs_tma(HOPPER) is None
    assert "compute capability 9.0" in str(nvcc.needs_tma(replace(HOPPER, compute_capability="8.9")))
    monkeypatch.setattr(tools, "find", lambda name: replace(found, version="12.8"))
    assert "nvcc 13 or later, found 12.8" in str(nvcc.needs_tma(HOPPER)) and nvcc.needs_nvcc(HOPPER) is None
    monkeypatch.setattr(tools, "find", lambda name: None)
    assert "needs nvcc" in str(nvcc.needs_nvcc(HOPPER)) and "needs nvcc" in str(nvcc.needs_tma(HOPPER))
    with pytest.raises(ToolError, match="nvcc is missing"):
        nvcc.build(stream.SOURCE, (9, 0))


def test_an_architecture_has_its_own_features_from_hopper_on() -> None:
    assert nvcc.architecture((8, 6)) == "arch=compute_86,code=sm_86"
    assert nvcc.architecture((9, 0)) == "arch=compute_90a,code=sm_90a"
    assert nvcc.architecture((12, 1)) == "arch=compute_121a,code=sm_121a"


def test_the_reference_passes_and_each_planted_fault_fails_the_proof() -> None:
    given = stream.tensors(TINY, "cpu")
    right = stream.step(TINY, given, lambda: given[2].copy_(stream.reference(given)))
    proof = WORKLOAD.prove(TINY, "cpu", right)
    assert proof.ok and right.bytes_moved == 3 * 256 * 128 * 2 + 3 * 128 * (2 + 4) and right.flops == 4 * 3 * 256 * 128
    for name, build in WORKLOAD.faults.items():
        assert not WORKLOAD.prove(TINY, "cpu", build(TINY, "cpu")).ok, name
    assert not WORKLOAD.prove(TINY, "cpu", replace(right, run=lambda: None)).ok
    with pytest.raises(UsageError, match="no multiple of 64"):
        stream.tensors({**TINY, "rows": 100}, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize(
    "more",
    [{}, {"slices": "1", "rows": "64"}, {"slices": "777", "rows": "320"}, {"slices": "64", "rows": "8192"}],
    ids=str,
)
@pytest.mark.parametrize("name", stream.NAMES)
def test_each_version_is_proven_on_the_gpu(name: str, more: dict[str, str]) -> None:
    variant = WORKLOAD.variant(name)
    session = Session(WORKLOAD, variant, "cuda", WORKLOAD.params("tiny", more))
    for _ in range(2):
        proof = session.prove()
        assert proof.ok, proof.reason


@pytest.mark.gpu
def test_the_operator_is_accepted_by_the_compiler() -> None:
    given: Any = stream.tensors(TINY, "cuda")
    parts, counts = torch.zeros(2 * 132 * 8, 128, device="cuda"), torch.zeros(3, dtype=torch.int32, device="cuda")

    launch = stream.operator()  # made outside: making an operator is nothing to compile

    def run(cached: Any, query: Any, out: Any) -> Any:
        launch(cached, query, out, parts, counts, 1)
        return out * 2

    found = torch.compile(run, fullgraph=True)(*given)
    assert torch.allclose(found.double(), 2 * stream.reference(given), rtol=1e-4, atol=1e-6)


PLANTED = "import sys; from moeprof.worker.script import main; from moeprof.workloads.decode import decode_kernel, stream; stream.SOURCE = sys.argv.pop(1); main(decode_kernel.WORKLOAD)"


@pytest.mark.gpu
@pytest.mark.parametrize("kept", [True, False])
def test_a_missing_wait_for_the_copy_is_caught_by_the_proof(kept: bool, tmp_path: Path) -> None:
    shutil.copytree(resources.folder("cuda"), tmp_path / "cuda")
    source = tmp_path / "cuda" / "stream_tile.cu"
    text, count = re.subn(r"barrier_wait\(&full\[stage\], [^;]*>> 1[^;]*;", "", source.read_text(encoding="utf-8"))
    assert count == 1
    if not kept:
        source.write_text(text, encoding="utf-8")
    words = ["--variant", "tma", "--preset", "tiny", "--set", "slices=512", "--set", "rows=8192", "--seconds", "0.1"]
    ran = subprocess.run([sys.executable, "-P", "-c", PLANTED, str(source), *words], capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert (ran.returncode == 0) is kept, ran.stderr
    assert (
        kept or "tma is wrong" in ran.stderr or "launch failure" in ran.stderr
    )  # a block that ends before its copies arrive


def test_the_tutorials_changes_fit_the_source(tmp_path: Path) -> None:
    tutorial = runpy.run_path(str(ROOT / "scripts" / "first_investigation.py"))
    source = tmp_path / "stream_tile.cu"
    source.write_text((resources.folder("cuda") / "stream_tile.cu").read_text(encoding="utf-8"), encoding="utf-8")
    tutorial["apply"](source, tutorial["DRAFT"])
    drafted = source.read_text(encoding="utf-8")
    assert "constexpr int STAGES = 2;" in drafted and "evict_first()" not in drafted
    for change in tutorial["CHANGES"]:
        tutorial["apply"](source, change.edits)
    assert "evict_first()" in source.read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="0 times"):
        tutorial["apply"](source, (*tutorial["DRAFT"][:1], ("no such text", "")))
