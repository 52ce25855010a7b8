"""What ranks are read from: one export of several, folders of one trace per rank, captures; and what is refused."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import rank_traces
from builders.rank_traces import EXPORT, Planted, grow, write_folder
from builders.sample_captures import Ran, answer, made, variant

from moeprof.storage.manifest import Manifest, Rank
from moeprof.trace import Trace, read
from moeprof.trace.kineto.messages import element_bytes
from moeprof.trace.peek import peek
from moeprof.trace.split import split

Run = Callable[..., Ran]

base = rank_traces.base


# one export


def test_a_kernel_on_another_rank_s_gpu_makes_no_rank(traces: Path) -> None:
    trace = read(traces / "nsys" / EXPORT)
    pieces = split(trace)
    assert [(p.pid, p.device, p.stray) for p in pieces] == [(144, 0, 0), (145, 1, 0)]
    kernels = trace.ops.index[(trace.ops["pid"] == 145) & (trace.ops["kind"] == "kernel")][:3]
    moved = replace(trace, ops=trace.ops.assign(device=trace.ops["device"].where(~trace.ops.index.isin(kernels), 0)))
    pieces = split(moved)
    assert [(p.pid, p.device, p.stray) for p in pieces] == [(144, 0, 0), (145, 1, 3)]
    assert sum(len(p.trace.ops) for p in pieces) == len(trace.ops) - 3


# folders


def test_a_folder_of_torch_traces(command: Run, base: Trace, tmp_path: Path) -> None:
    clocks = (0, 4_000_000, -2_000_000)
    ranks, truth = grow(base, Planted(clocks, jitter=0.002, late={1: ("compute", 150_000)}))
    write_folder(tmp_path / "set", ranks)
    found = answer(command("ranks", "set", "--json"))
    assert [(r["place"]["rank"], r["place"]["derived"]) for r in found["ranks"]] == [
        (r, "distributedInfo") for r in range(3)
    ]
    assert (found["clocks"]["method"], found["of_ranks"], found["kind"]) == ("ends", 3, "ranks")
    (row,) = found["collectives"]
    assert (row["kind"], row["group"], row["group_size"], row["matched"]) == ("AllReduce", "0", 3, 7)
    skew = truth.arrivals.max(axis=0) - truth.arrivals.min(axis=0)
    assert [a["skew_ns"] for a in row["arrivals"]] == pytest.approx(skew.tolist(), abs=3_000)
    assert row["bytes"] == 7 * 2 * (1 << 20) and row["bus_gb_per_s"] == pytest.approx(
        4 / 3 * (2 << 20) / 200_500, rel=0.02
    )
    assert [(s["rank"], s["cause"]) for s in found["stragglers"]] == [(1, "slower compute")]
    for rank in found["ranks"]:
        assert all(sum(w["ledger"].values()) == w["span_ns"] for w in rank["windows"])
        assert [w["range"] for w in rank["windows"]] == ["ProfilerStep"] * 2


def test_ranks_by_the_names_of_files_and_folders(command: Run, base: Trace, tmp_path: Path) -> None:
    ranks, _ = grow(base, Planted((0, 0)))
    write_folder(tmp_path / "named", ranks, named=True)
    found = answer(command("ranks", "named", "--json"))
    assert [(r["place"]["rank"], r["place"]["derived"]) for r in found["ranks"]] == [(0, "file name"), (1, "file name")]
    for rank in (0, 1):
        (tmp_path / "sub" / f"rank{rank}").mkdir(parents=True)
        (tmp_path / "named" / f"rank{rank}.json.gz").rename(tmp_path / "sub" / f"rank{rank}" / "trace.json.gz")
    found = answer(command("ranks", "sub", "--json"))
    assert [r["place"]["rank"] for r in found["ranks"]] == [0, 1] and len(found["collectives"][0]["arrivals"]) == 7


def test_a_rank_that_cannot_be_read_is_left_out_and_said(command: Run, base: Trace, tmp_path: Path) -> None:
    ranks, _ = grow(base, Planted((0,) * 3))
    write_folder(tmp_path / "set", ranks, named=True)
    (tmp_path / "set" / "rank1.json.gz").write_bytes(b"\x1f\x8bbroken")
    found = answer(command("ranks", "set", "--json"))
    assert [r["place"]["rank"] for r in found["ranks"]] == [0, 2]
    assert any(n["id"] == "rank-unread" and "rank1.json.gz" in n["text"] for n in found["notes"])


def test_what_is_no_group_is_refused(command: Run, base: Trace, traces: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ranks, _ = grow(base, Planted((0, 0)))
    write_folder(tmp_path / "set", ranks, named=True)
    first, second = sorted((tmp_path / "set").iterdir())
    second.rename(tmp_path / "set" / "other.json.gz")
    said = [
        (command("ranks", "nowhere"), 2, "there is nothing at nowhere"),
        (command("ranks", "empty"), 2, "empty holds no trace"),
        (command("ranks", "set"), 2, "1 of 2 traces do not tell their rank, other.json.gz is the first"),
        (command("ranks", traces / "nsys" / "cloverleaf_a100_2024.5.sqlite"), 1, "holds GPU work of one rank"),
        (command("ranks", first, "--variant", "x"), 2, "no variant 'x'"),
        (command("ranks", traces / "nsys" / EXPORT, "-o", first), 2, "exists"),
    ]
    (tmp_path / "set" / "other.json.gz").rename(tmp_path / "set" / "again-rank0.json.gz")
    said.append((command("ranks", "set"), 1, "rank 0 is in two files"))
    made(tmp_path / "set" / "cap")
    said.append((command("ranks", "set"), 2, "set holds the capture cap"))
    for ran, code, text in said:
        assert (ran.code, text in ran.err) == (code, True), ran.err


def test_a_launcher_s_rank_is_read_from_the_export(traces: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.sqlite"
    shutil.copyfile(traces / "nsys" / EXPORT, path)
    assert peek(path).rank is None
    with closing(sqlite3.connect(path)) as db:
        rows = [
            ("PROCESS_0:ENVIRONMENT_VARIABLE", 'SLURM_PROCID="5"'),
            ("PROCESS_0:ENVIRONMENT_VARIABLE", 'SLURM_NTASKS="8"'),
        ]
        db.executemany("INSERT INTO META_DATA_CAPTURE(name, value) VALUES (?, ?)", rows)
        db.commit()
    found = peek(path)
    assert (found.rank, found.world_size, found.rank_source) == (5, 8, "environment (SLURM_PROCID)")
    (tmp_path / "none").write_text("nothing")
    assert peek(tmp_path / "none").rank is None


@pytest.mark.parametrize(
    ("dtype", "size"), [("BFloat16", 2), ("Float8_e4m3fn", 1), ("torch.float32", 4), ("", -1), ("odd", -1)]
)
def test_bytes_of_an_element(dtype: str, size: int) -> None:
    assert element_bytes(dtype) == size


# captures


def of_ranks(traces: Path, folder: Path, ranks: tuple[Rank, ...], **facts: Any) -> Path:
    """A capture whose variant "overlap" ran on two ranks: the real export in the place of its trace."""

    def many(found: Manifest) -> Manifest:
        return replace(found, ceilings=found.ceilings | {"peer_gb_per_s": 350.0}, ranks=2)

    made(folder, many, variant("overlap", lambda v: replace(v, ranks=ranks, facts=v.facts | facts)))
    shutil.copyfile(traces / "nsys" / EXPORT, folder / "overlap" / "trace.sqlite")
    return folder


def test_a_capture_s_ranks_are_those_of_its_manifest(command: Run, traces: Path, tmp_path: Path) -> None:
    rows = ({"expert_rows": (30.0, 30.0)}, {"expert_rows": (50.0, 90.0)})
    ranks = tuple(Rank(r, device_index=0, pid=pid, facts=dict(rows[r])) for r, pid in ((0, 145), (1, 144)))
    of_ranks(traces, tmp_path / "cap", ranks, expert_rows=(30.0, 30.0))
    found = answer(command("ranks", "cap", "--variant", "overlap", "--json"))
    assert [(r["place"]["rank"], r["place"]["device"], r["place"]["pid"]) for r in found["ranks"]] == [
        (0, 1, 145),
        (1, 0, 144),
    ]
    assert {r["place"]["derived"] for r in found["ranks"]} == {"manifest"} and found["variant"] == "overlap"
    assert found["link_ceiling_gb_per_s"] == 350.0
    (load,) = found["load"]
    assert (load["name"], load["load"]) == ("expert_rows", [60.0, 140.0])
    (straggler,) = found["stragglers"]
    assert (straggler["rank"], straggler["cause"]) == (0, "late launch")
    assert straggler["load_ratio"] == pytest.approx(60 / 140)
    ran = command("ranks", "cap")
    assert ran.code == 1 and "holds GPU work of one rank" in ran.err, "the other variants ran on one"


def test_a_capture_s_ranks_by_their_gpu(command: Run, traces: Path, tmp_path: Path) -> None:
    ranks = tuple(
        Rank(r, device_index=1 - r, pid=9, status="failed" if r else "ok", reason="ended early" if r else "")
        for r in (0, 1)
    )
    of_ranks(traces, tmp_path / "cap", ranks)
    found = answer(command("ranks", "cap", "--variant", "overlap", "--json"))
    assert [(r["place"]["rank"], r["place"]["device"]) for r in found["ranks"]] == [(0, 1), (1, 0)]
    assert any("rank 1: ended early" in n["text"] for n in found["notes"])


def test_a_capture_of_one_trace_a_rank(command: Run, base: Trace, tmp_path: Path) -> None:
    traced, _ = grow(base, Planted((0, 900_000)))
    write_folder(tmp_path / "traces", traced, named=True)

    def parts(found: Any) -> Any:
        each = [replace(found.parts[0], file=f"overlap/rank{r}.json.gz", tool="torch", rank=r) for r in (0, 1)]
        return replace(
            found, parts=tuple(each), ranks=tuple(Rank(r, host=r, clock_offset_ns=900_000 * r) for r in (0, 1))
        )

    made(tmp_path / "cap", variant("overlap", parts))
    for r in (0, 1):
        shutil.copyfile(tmp_path / "traces" / f"rank{r}.json.gz", tmp_path / "cap" / "overlap" / f"rank{r}.json.gz")
    found = answer(command("ranks", "cap", "--variant", "overlap", "--json"))
    assert found["clocks"]["method"] == "given" and found["clocks"]["residual_ns"] < 1_000
    assert [r["place"]["host"] for r in found["ranks"]] == ["host0", "host1"]
    assert found["ranks"][1]["aligned_by_ns"] == 0 == found["ranks"][0]["aligned_by_ns"], (
        "the zeros differ by the clocks' difference"
    )


def test_a_capture_s_own_zeros_and_doubts_count_and_an_unknown_clock_is_not_taken(
    command: Run, base: Trace, tmp_path: Path
) -> None:
    traced, _ = grow(base, Planted((0, 900_000)))
    write_folder(tmp_path / "traces", traced, named=True)

    def captured(name: str, offset: int | None) -> Any:
        def parts(found: Any) -> Any:
            first = found.parts[0]
            each = [
                replace(
                    first,
                    file=f"overlap/rank{r}.json.gz",
                    tool="torch",
                    rank=r,
                    host=r,
                    zero_utc_ns=10**18 + 70 * r,
                    zero_uncertainty_ns=2_000,
                )
                for r in (0, 1)
            ]
            ranks = (Rank(0), Rank(1, host=1, clock_offset_ns=offset, clock_uncertainty_ns=21_000))
            return replace(found, parts=tuple(each), ranks=ranks)

        made(tmp_path / name, variant("overlap", parts))
        for r in (0, 1):
            shutil.copyfile(tmp_path / "traces" / f"rank{r}.json.gz", tmp_path / name / "overlap" / f"rank{r}.json.gz")
        return answer(command("ranks", name, "--variant", "overlap", "--json"))

    found = captured("known", 50)
    assert found["clocks"]["method"] == "given" and found["clocks"]["uncertainty_ns"] == 21_000 + 2_000 + 2_000
    assert found["ranks"][1]["aligned_by_ns"] == 70 - 50, "the part's zero, and not the trace's"
    assert captured("unknown", None)["clocks"]["method"] in ("own clocks", "ends")
