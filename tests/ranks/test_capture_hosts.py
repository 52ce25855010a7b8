"""Captures of several hosts: groups of processes of this machine, each with a launcher's variables, and with clocks that differ."""

from __future__ import annotations

import gzip
import json
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.sample_captures import Ran
from fakes.command_line import FAKES, TOKEN, moeprof, whole
from fakes.hosts import QUICK, RANKED, all_ended, launched

from moeprof.storage.manifest import Manifest, Part
from moeprof.trace import read

pytest.importorskip("torch.distributed", reason="torch is not installed")

AHEAD_NS = 5_000_000_000
CPU = ("--device", "cpu", *QUICK)
TIMED = (*CPU, "--tools", "none")


def began_ns(folder: Path, found: Manifest, part: Part, rank: int) -> int:
    """When a rank's first iteration began, by host 0's clock."""
    record = found.variants[0]
    trace = read(folder / part.file)
    entry = record.ranks[rank]
    ours = trace.ranges[(trace.ranges["name"] == "iteration") & (trace.ranges["payload"] == 0)]
    assert part.zero_utc_ns is not None and entry.clock_offset_ns is not None
    return int(ours["start_ns"].min()) + part.zero_utc_ns - entry.clock_offset_ns


def test_two_hosts_keep_a_part_each_and_the_parts_are_joined_by_command(
    tmp_path: Path, command: Callable[..., Ran]
) -> None:
    clock = {"PYTHONPATH": str(FAKES / "clocksite"), "FAKE_AHEAD_NS": str(AHEAD_NS)}
    other = tmp_path / "other"
    other.mkdir()
    with launched(tmp_path, layout=(2, 1), words=CPU, changes={1: clock}, folders={1: other}) as run:
        all_ended(run.wait(), [0, 0, 0])
        assert "ranks 2 to 2 of 3 ran here" in run.said(2) and "the capture of rank 0 starts this rank" in run.said(1)
        assert "join them: moeprof join cap cap.host1" in run.said(0)
    part = whole(other / "cap.host1")
    assert (part.hosts, part.host_count, whole(tmp_path / "cap").hosts) == ((1,), 2, (0,))
    ran = command("join", "other/cap.host1", "cap", "-o", "all")
    assert ran.code == 0 and ran.out == "Wrote all\n", ran.err
    found = whole(tmp_path / "all")
    (record,) = found.variants
    assert found.complete and found.hosts == (0, 1)
    assert found.ranks == 3 and record.status == "ok" and len(record.rounds) == 2
    assert [(r.rank, r.host) for r in record.ranks] == [(0, 0), (1, 0), (2, 1)]
    assert len({r.pid for r in record.ranks}) == 3
    assert [r.facts for r in record.ranks] == [{"rank share": float(r)} for r in range(3)]
    assert all(len(timed.ranks_ns) == 3 for timed in record.rounds)
    names = ["trace.json.gz", "trace.rank1.json.gz", "trace.rank2.json.gz"]
    assert [(p.file, p.rank, p.host) for p in record.parts] == [
        (f"chunked/{name}", rank, int(rank == 2)) for rank, name in enumerate(names)
    ]
    ahead = record.ranks[2]
    assert ahead.clock_offset_ns is not None and 0 < ahead.clock_uncertainty_ns < 50_000_000
    assert abs(ahead.clock_offset_ns - AHEAD_NS) <= ahead.clock_uncertainty_ns, "the interval holds the truth"
    assert [r.clock_offset_ns for r in record.ranks[:2]] == [0, 0]
    began = [began_ns(tmp_path / "all", found, part, rank) for rank, part in enumerate(record.parts)]
    assert max(began) - min(began) < 1e9, "ranks enter the measured region together, by one clock"
    assert (tmp_path / "all" / "logs" / "chunked-clean.rank2.log").is_file()
    kept = json.loads(gzip.decompress((tmp_path / "all" / record.parts[2].file).read_bytes()))
    assert "distributedInfo" not in kept and "traceName" not in kept, "redacted"
    clocks = json.loads(command("ranks", "all", "--json").out)["clocks"]
    assert clocks["method"] == "given" and clocks["uncertainty_ns"] >= ahead.clock_uncertainty_ns
    shown = command("report", "all").out
    assert f"{ahead.clock_offset_ns} ± {ahead.clock_uncertainty_ns} ns" in " ".join(shown.split())


def test_each_host_leaves_a_report_of_nsys_and_a_shared_folder_joins_by_itself(
    tmp_path: Path, command: Callable[..., Ran]
) -> None:
    site = {"PYTHONPATH": str(FAKES / "ranksite"), "FAKE_GPUS": "2"}
    secret = {
        "FAKE_AHEAD_NS": str(-AHEAD_NS),
        "MOEPROF_TEST_TOKEN": "another_hosts_SECRET_token",
        "FAKE_DRIVER": "1000.2",
    }
    with launched(tmp_path, layout=(1, 2), words=QUICK, changes={0: site, 1: site | secret}) as run:
        all_ended(run.wait(), [0, 0, 0])
    found = whole(tmp_path / "cap")
    assert not list(tmp_path.glob("cap.host*")) and found.hosts == (0, 1) and found.complete
    assert [n.evidence for n in found.notes if n.id == "hosts-differ"] == [
        {"host": 1, "how": "driver 1000.2, 999.1 on rank 0's host"}
    ]
    (record,) = found.variants
    assert [(p.tool, p.file, p.rank, p.host) for p in record.parts] == [
        ("nsys", "chunked/trace.sqlite", None, 0),
        ("nsys", "chunked/trace.host1.sqlite", None, 1),
    ]
    assert [(r.rank, r.host, r.device_index, r.gpu_uuid) for r in record.ranks] == [
        (0, 0, 0, "aaaa-0"),
        (1, 1, 0, "aaaa-0"),
        (2, 1, 1, "aaaa-1"),
    ]
    far = record.ranks[1]
    assert far.clock_offset_ns is not None and abs(far.clock_offset_ns + AHEAD_NS) <= far.clock_uncertainty_ns
    zeros = [(p.zero_utc_ns or 0) + (AHEAD_NS if p.host else 0) for p in record.parts]
    # both count from the start of this machine; were it not for the anchors the session would begin in 1970
    most = sum(p.zero_uncertainty_ns for p in record.parts) + 1_000_000
    assert abs(zeros[0] - zeros[1]) <= most and abs(zeros[0] + time.monotonic_ns() - time.time_ns()) < 1e9
    data = (tmp_path / "cap" / record.parts[1].file).read_bytes()
    assert all(word.encode() not in data for word in (TOKEN, secret["MOEPROF_TEST_TOKEN"], "secret-host-name"))
    with sqlite3.connect(tmp_path / "cap" / record.parts[1].file) as db:
        assert db.execute("SELECT COUNT(*) FROM NVTX_EVENTS WHERE textId = 7").fetchone() == (6,), (
            "two ranks, three iterations"
        )
    db.close()
    shown = command("analyze", f"cap/{record.parts[1].file}", "--all").out
    assert "moeprof@iteration" in shown and "moeprof@clock" not in shown
    analysed = json.loads(command("ranks", "cap", "--json").out)
    assert [(r["place"]["rank"], r["place"]["host"], r["place"]["derived"]) for r in analysed["ranks"]] == [
        (0, "host0", "manifest"),
        (1, "host1", "manifest"),
        (2, "host1", "manifest"),
    ]


def test_a_rank_of_a_further_host_that_is_killed_is_named(tmp_path: Path) -> None:
    with launched(tmp_path, layout=(1, 2), words=TIMED, common={"RANKED": "kill:2:5"}, skip=(2,)) as run:
        all_ended(run.wait(), [5, 0])
        assert "rank 2 of 3 (host 1) died in a timed round (killed by SIGKILL)" in run.error(0)


def test_a_capture_of_a_further_host_that_is_killed_takes_nothing_with_it(tmp_path: Path) -> None:
    log = tmp_path / "cap.partial" / "logs" / "chunked-clean.log"
    with launched(tmp_path, words=TIMED, common={"RANKED": "hang:0"}) as run:
        until = time.monotonic() + 60
        while "about to hang" not in (log.read_text() if log.is_file() else ""):
            assert time.monotonic() < until and run.running[0].poll() is None, run.said(0)
            time.sleep(0.05)
        run.running[1].send_signal(signal.SIGKILL)
        all_ended(run.wait(), [5, -9])
        assert "rank 1 of 2 (host 1) died in the proof (the capture of its host ended)" in run.error(0)


def test_hosts_that_do_not_fit_together_are_one_clear_line(tmp_path: Path) -> None:
    cyclic = {"SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_STEP_NUM_TASKS": "4"}
    with launched(tmp_path, words=TIMED, changes={0: cyclic, 1: cyclic}) as run:
        all_ended(run.wait(), [2, 2])
        for rank in (0, 1):
            assert "rank 1 is the first of its host, 2 was expected" in run.error(rank)
    assert not list(tmp_path.glob("cap*"))


def test_a_dry_run_meets_nobody(tmp_path: Path) -> None:
    srun = {
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_LOCALID": "0",
        "SLURM_STEP_TASKS_PER_NODE": "2,1",
        "SLURM_STEP_NODELIST": "n[1-2]",
    }
    words = ("capture", RANKED, "--device", "cpu", "--dry-run")
    ran = moeprof(*words, cwd=tmp_path, SLURM_PROCID="0", SLURM_NODEID="0", MASTER_PORT="7", **srun)
    assert ran.returncode == 0 and ran.stdout.count('"address": "n1"') == ran.stdout.count('"port": 7') == 5
    ran = moeprof(*words, cwd=tmp_path, SLURM_PROCID="2", SLURM_NODEID="1", **srun)
    assert (
        ran.returncode == 0
        and ran.stdout == ""
        and "rank 2 of 3: this capture runs the ranks of its host" in ran.stderr
    )
