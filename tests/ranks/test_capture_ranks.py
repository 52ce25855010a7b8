"""Capture of a workload with ranks, for real on gloo: what is kept, and what is said of a rank that dies, hangs or is wrong."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fakes.command_line import FAKES, environment, moeprof, one_clear_line, whole
from fakes.forked import WITH_TORCH
from paths import ROOT

from moeprof.storage import manifest
from moeprof.storage.manifest import Manifest

pytest.importorskip("torch.distributed", reason="torch is not installed")

RANKED = str(FAKES / "ranked_workload.py")
QUICK = ("--rounds", "2", "--iterations", "3", "--timeout", "60")
MOEPROF = ("-P", "-m", "moeprof", "capture", RANKED, "-o", "cap")
HANG_S = 12  # time for two processes to form a group on a busy machine
Ran = subprocess.CompletedProcess[str]


def capture(cwd: Path, *words: str, **changes: str) -> Ran:
    """Capture with two ranks on the CPU, with the real torch."""
    given = ("--device", "cpu", *QUICK, *words)
    return moeprof("capture", RANKED, "-o", "cap", *given, cwd=cwd, **({"PYTHONPATH": ""} | changes))


def on_gpus(cwd: Path, *words: str, **changes: str) -> Ran:
    """Capture on two GPUs that are not there, under the fake nsys."""
    fake = {"PYTHONPATH": str(FAKES / "ranksite"), "FAKE_GPUS": "2"} | changes
    return moeprof("capture", RANKED, "-o", "cap", *QUICK, *words, cwd=cwd, **fake)


def states(found: Manifest) -> dict[str, str]:
    return {v.name: v.status for v in found.variants}


@dataclass(frozen=True)
class Captures:
    """Three captures on the CPU that ran while in a fourth one a rank hung: the folder of each and what its command printed."""

    folder: Path
    under_torchrun: Ran
    alone: Ran
    killed: Ran
    hung: Ran


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Captures:
    """Taken once; the others need the time that the hanging one only waits."""
    place = tmp_path_factory.mktemp("ranks")
    under, alone, killed, hung = (place / name for name in ("under_torchrun", "alone", "killed", "hung"))
    for folder in (under, alone, killed, hung):
        folder.mkdir()
    words = ("--device", "cpu", *QUICK, "--tools", "none", "--timeout", str(HANG_S), "--variants", "chunked")
    given = environment(PYTHONPATH="", RANKED="hang:1")
    with (hung / "out").open("w") as out, (hung / "err").open("w") as err:
        waiting = WITH_TORCH.start([*MOEPROF, *words], hung, given, stdout=out.fileno(), stderr=err.fileno())
    try:
        ended = (
            torchrun(under),
            capture(alone, "--nproc", "1", "--tools", "none", "--rounds", "1"),
            capture(killed, "--nproc", "2", "--tools", "none", RANKED="kill:1:30", RANKED_IN="chunked"),
        )
        status = waiting.wait(HANG_S + 40)
    finally:
        waiting.close()
    said = ((hung / name).read_text() for name in ("out", "err"))
    return Captures(place, *ended, subprocess.CompletedProcess(words, status, *said))


def torchrun(cwd: Path) -> Ran:
    """A capture that torchrun starts on each of two ranks."""
    words = (
        "-P",
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "-m",
        "moeprof",
        "capture",
        RANKED,
        "-o",
        "cap",
    )
    given = environment(PYTHONPATH="", OMP_NUM_THREADS="1")
    return WITH_TORCH.run_python((*words, "--device", "cpu", *QUICK), cwd, given, timeout_s=150)


def test_torchrun_starts_the_capture_and_rank_0_leads(captures: Captures) -> None:
    ran = captures.under_torchrun
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "Wrote cap"
    assert "rank 1 of 2: the capture of rank 0 starts this rank" in ran.stderr


def test_a_whole_capture_of_two_ranks(captures: Captures) -> None:
    folder = captures.folder / "under_torchrun"
    found = whole(folder / "cap")
    assert found.complete and found.ranks == 2 and states(found) == {"whole": "ok", "chunked": "ok"}
    for record in found.variants:
        assert record.proof is not None and record.proof.ok and "each of 2 ranks" in record.proof.checked
        assert [p.file for p in record.parts] == [f"{record.name}/trace.json.gz", f"{record.name}/trace.rank1.json.gz"]
        assert [p.rank for p in record.parts] == [0, 1] and record.part("trace") is record.parts[0]
        assert [r.rank for r in record.ranks] == [0, 1] and len({r.pid for r in record.ranks}) == 2
        assert [r.facts for r in record.ranks] == [{"rank share": 0.0}, {"rank share": 1.0}]
        assert all(r.status == "ok" and r.host == 0 and r.clock_offset_ns == 0 for r in record.ranks)
        for timed in record.rounds:
            assert len(timed.ranks_ns) == 2 and len(timed.times_ns) >= 3
            middle = sorted(timed.times_ns)[len(timed.times_ns) // 2]
            assert middle >= max(timed.ranks_ns) * 0.999, "an iteration takes as long as its slowest rank"
    assert found.variants[0].twin_process is True
    shown = moeprof("report", "--diff", "cap", cwd=folder)
    assert shown.returncode == 0 and "Ranks: an iteration counts as long as its slowest rank" in shown.stdout
    assert 'id="ranks"' in (folder / "moeprof-out" / "cap-diff.html").read_text()


def test_a_workload_with_ranks_runs_alone_too(captures: Captures) -> None:
    assert captures.alone.returncode == 0, captures.alone.stderr
    found = whole(captures.folder / "alone" / "cap")
    assert found.ranks == 1 and states(found) == {"whole": "ok", "chunked": "skipped"}
    assert [r.rank for r in found.variants[0].ranks] == [0]


def test_a_rank_that_is_killed_is_named_and_the_rest_is_kept(captures: Captures) -> None:
    """Which rank is named for every other fault: tests/unit/worker/test_rank_group.py."""
    ran, folder = captures.killed, captures.folder / "killed"
    assert ran.returncode == 5, ran.stderr
    one_clear_line(ran, "chunked", "rank 1 of 2 died in a timed round (killed by SIGKILL)")
    found = whole(folder / "cap")
    good, bad = found.variants
    assert good.status == "ok" and len(good.rounds) >= 2 and bad.status == "failed"
    assert [r.status for r in bad.ranks] == ["ok", "failed"] and bad.proof is not None, "the proof stays"
    shown = moeprof("report", "cap", cwd=folder)
    assert shown.returncode == 0 and "FAILED" in shown.stdout


def test_a_rank_that_hangs_is_named_within_the_timeout(captures: Captures) -> None:
    """That it is named within that time ends the fixture's wait."""
    ran = captures.hung
    assert ran.returncode == 5, ran.stderr
    one_clear_line(ran, f"rank 1 of 2 gave no answer in the proof within {HANG_S} s", "ranked_workload.py:")


def launched(rank: int, ranks: int, local: int) -> dict[str, str]:
    """The variables of Open MPI's mpirun."""
    names = {"RANK": rank, "SIZE": ranks, "LOCAL_RANK": rank % local, "LOCAL_SIZE": local}
    return {f"OMPI_COMM_WORLD_{name}": str(value) for name, value in names.items()}


def test_under_mpirun_only_rank_0_captures(tmp_path: Path) -> None:
    ran = capture(tmp_path, "--dry-run", **launched(1, 3, 3))
    assert ran.returncode == 0 and ran.stdout == "" and "rank 1 of 3" in ran.stderr
    ran = capture(tmp_path, "--dry-run", **launched(0, 3, 3))
    specs = "".join(ran.stdout.split())
    assert ran.returncode == 0 and specs.count('"layout":[3]') == 5, "three that are timed, two that are traced"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "changes", "code", "said"),
    [
        (("capture", str(FAKES / "workload.py"), "--nproc", "2"), {}, 2, "runs in one process"),
        (("capture", str(FAKES / "workload.py")), launched(0, 2, 2), 2, "runs in one process"),
        (("capture", "--nproc", "2", "--", "true"), {}, 2, "a program runs in one process"),
        (("capture", RANKED, "--nproc", "3"), launched(0, 2, 2), 2, "--nproc 3, and mpirun started 2 ranks"),
        (
            ("capture", RANKED),
            launched(0, 4, 2) | {"FAKE_GPUS": "2"},
            2,
            "mpirun does not report the address of rank 0's host",
        ),
        (("capture", RANKED, "--nproc", "3"), {"FAKE_GPUS": "2"}, 4, "3 ranks need 3 GPUs"),
        (("capture", RANKED, "--tools", "nsys,ncu"), {"FAKE_GPUS": "2"}, 2, "ncu cannot count 2 ranks"),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    tmp_path: Path, words: tuple[str, ...], changes: dict[str, str], code: int, said: str
) -> None:
    ran = moeprof(*words, cwd=tmp_path, **changes)
    assert ran.returncode == code, ran.stderr
    one_clear_line(ran, said)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def on_two_gpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """A folder with a capture under nsys, in whose first timed phase rank 1's GPU was too hot; what the command printed."""
    folder = tmp_path_factory.mktemp("gpus")
    script = folder / "second"
    script.write_text('{}\n{}\n{"reasons": 64, "clock": 1200}\n')
    return folder, on_gpus(folder, FAKE_NVML_1=str(script))


def test_all_ranks_of_a_host_are_in_one_report_of_nsys(on_two_gpus: tuple[Path, Ran]) -> None:
    folder, ran = on_two_gpus
    assert ran.returncode == 0, ran.stderr
    found = whole(folder / "cap")
    assert found.ranks == 2 and found.device == "cuda"
    for record in found.variants:
        assert [(p.tool, p.file, p.rank) for p in record.parts] == [("nsys", f"{record.name}/trace.sqlite", None)]
        assert [(r.device_index, r.gpu_uuid) for r in record.ranks] == [(0, "aaaa-0"), (1, "aaaa-1")]
    assert ["replays the kernels of one rank" in n.text for n in found.notes if n.id == "no-ncu"] == [True]
    shown = moeprof("report", "--diff", "cap", cwd=folder)
    assert shown.returncode == 0, shown.stderr


def test_what_held_the_gpu_of_another_rank_back_leaves_its_round_out(on_two_gpus: tuple[Path, Ran]) -> None:
    folder, _ = on_two_gpus
    found = whole(folder / "cap")
    phases = [r for v in found.variants for r in (*v.rounds, *v.twin)]
    assert all([g.index for g in r.gpus] == [0, 1] and r.gpu == r.gpus[0] for r in phases)
    assert [r.disturbed for r in phases if r.disturbed] == [
        ("thermal (hardware) (GPU of rank 1)", "SM clock fell (GPU of rank 1)")
    ]
    assert {r.index for r in phases if not r.used} == {0}, "another rank's GPU counts as rank 0's does"
    shown = moeprof("report", "--diff", "cap", "-o", "page.html", cwd=folder)
    assert shown.returncode == 0, shown.stderr
    assert "1980 MHz / 1200 MHz" in (folder / "page.html").read_text()


def test_an_old_capture_is_read_and_has_no_ranks() -> None:
    found: Any = manifest.read(ROOT / "reports" / "samples" / "kv_transfer")
    assert found.ranks == 1 and not any(v.ranks for v in found.variants)
    assert all(p.rank is None for v in found.variants for p in v.parts)
