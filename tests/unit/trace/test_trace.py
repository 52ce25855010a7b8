"""Readers: real files of several producers, schemas with parts missing, and files that are something else."""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from builders.nsys_export import PERIOD_NS, PID, make_export
from recorded import recordings

from moeprof.analysis.analyze import analyze, iterations
from moeprof.errors import TraceError
from moeprof.trace import read
from moeprof.trace.kineto.reader import _ns
from moeprof.trace.ncu.counters import base_unit, read_counters
from moeprof.trace.nsys import export
from moeprof.trace.nsys.reader import read_nsys
from moeprof.trace.tables import CALLS, OPS, RANGES, table


def test_a_made_export(tmp_path: Path) -> None:
    make_export(tmp_path / "t.sqlite", iterations=4)
    found = read(tmp_path / "t.sqlite")
    assert (found.kind, found.producer, found.schema) == ("nsys", "nsys 2025.3.1.0", "3.20.3")
    assert (
        list(found.ops.columns) == list(OPS)
        and list(found.calls.columns) == list(CALLS)
        and list(found.ranges.columns) == list(RANGES)
    )
    first = found.ops.iloc[0]
    assert (first["kind"], first["name"], first["pid"], first["call"]) == (
        "kernel",
        "void gemm<(int)8, float>(T1 *, T2)",
        PID,
        0,
    )
    copy = found.ops[found.ops["kind"] == "copy"].iloc[0]
    assert (copy["direction"], copy["src_memory"], copy["dst_memory"], copy["bytes"]) == (
        "D2H",
        "device",
        "pinned",
        2_500_000,
    )
    assert list(found.calls["name"][:2]) == ["cudaLaunchKernel", "cudaMemcpyAsync"]
    mine = found.ranges[found.ranges["name"] == "iteration"]
    assert list(mine["payload"]) == [0, 1, 2, 3] and set(mine["domain"]) == {"moeprof"}
    assert found.devices[0].memory_bytes_per_s == 4_800_000_000_000
    windows = iterations(found)
    assert windows is not None and [w.span_ns for w in windows.windows] == [PERIOD_NS] * 3 + [80_000]
    assert windows.windows[0].copies[0].overlapped_ns == 20_000


def test_old_schemas_lack_tables_and_columns(tmp_path: Path) -> None:
    """2020: no META, no ranges, no globalPid, no graph nodes; an extra column and an unknown table beside."""
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "CREATE TABLE StringIds (id INTEGER, value TEXT); INSERT INTO StringIds VALUES (1, 'k'), (2, 'cudaLaunchKernel_v7000');"
            "CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, correlationId, shortName, novel);"
            "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (10, 20, 0, 7, 5, 1, 'x');"
            "CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start, end, correlationId, nameId);"
            "INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (1, 3, 5, 2); CREATE TABLE DLPROF_THING (x);"
        )
    found = read(path)
    assert (found.producer, found.schema, len(found.ranges)) == (None, None, 0)
    assert found.ops.iloc[0]["name"] == "k" and found.ops.iloc[0]["call"] == 0
    assert analyze(found).windows[0].launch.queue_ns_median == 7


@pytest.mark.parametrize("name", ["mfu_2gpu_before", "saxpy_mpi_2022.2", "cloverleaf_a100_2024.5"])
def test_arrow_and_sqlite3_read_the_same(traces: Path, name: str) -> None:
    pytest.importorskip("adbc_driver_sqlite", reason="Arrow's driver is not installed")
    path = traces / "nsys" / f"{name}.sqlite"
    fast, slow = read_nsys(path), read_nsys(path, fast=False)
    for one, other in ((fast.ops, slow.ops), (fast.calls, slow.calls), (fast.ranges, slow.ranges)):
        pd.testing.assert_frame_equal(one, other)


def test_text_where_numbers_belong_is_named(tmp_path: Path) -> None:
    make_export(tmp_path / "t.sqlite")
    with closing(sqlite3.connect(tmp_path / "t.sqlite")) as db:
        db.execute("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = 'soon' WHERE rowid = 3")
        db.commit()
    with pytest.raises(TraceError, match="table CUPTI_ACTIVITY_KIND_KERNEL does not read as whole numbers"):
        read(tmp_path / "t.sqlite")


def test_an_old_real_file(traces: Path) -> None:
    found = read(traces / "nsys" / "saxpy_mpi_2022.2.sqlite")
    assert found.schema == "2.9.1" and set(found.ranges["domain"]) == {"MPI", ""}
    assert {(c.direction, c.memory, c.count) for c in analyze(found).windows[0].copies} == {
        ("H2D", "pageable", 10),
        ("D2H", "pageable", 5),
    }


def test_both_forms_of_nvtx_names(traces: Path) -> None:
    found = read(traces / "nsys" / "mfu_2gpu_before.sqlite")
    assert len(found.ranges) > 19_000 and not (found.ranges["name"] == "").any()


@pytest.mark.parametrize(
    ("name", "kernels", "joined"),
    [
        ("h200/torch_profiler.json", 25, 40),
        ("kineto/vllm_decode_graph.json.gz", 425, 434),
        ("kineto/h100_qwen.json.gz", 1465, 1198),
    ],
)
def test_kineto_files(traces: Path, name: str, kernels: int, joined: int) -> None:
    found = read(traces / name)
    assert found.kind == "kineto"
    assert int((found.ops["kind"] == "kernel").sum()) == kernels
    assert int((found.ops["call"] >= 0).sum()) == joined


def test_kineto_times_are_exact_to_the_nanosecond() -> None:
    assert _ns("6520618853487.683") == 6_520_618_853_487_683
    assert _ns(5) == 5_000 and _ns("5") == 5_000 and _ns("0.1") == 100 and _ns("-1.5") == -1_500
    assert _ns("1e3") == 1_000_000


def test_kineto_ranges_of_ours_and_cpu_operators_standing_in(tmp_path: Path) -> None:
    def event(cat: str, name: str, ts: float, dur: float, tid: int) -> dict[str, object]:
        return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "pid": 1, "tid": tid, "args": {}}

    events = [
        event("user_annotation", "moeprof:kv_transfer/overlap", 0, 100, 1), event("user_annotation", "moeprof:iteration:3", 5, 90, 1),
        event("cpu_op", "aten::mm", 10, 40, 1), event("cpu_op", "aten::inner", 20, 5, 1), event("cpu_op", "aten::copy_", 30, 30, 2),
        event("user_annotation", "theirs:7", 0, 1, 1),
    ]  # fmt: skip
    path = tmp_path / "t.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": events}).encode()))
    found = read(path)
    assert [n.id for n in found.notes] == ["cpu-operators"]
    assert [(r.domain, r.name, r.payload) for r in found.ranges.itertuples()] == [
        ("", "theirs:7", -1),
        ("moeprof", "kv_transfer/overlap", -1),
        ("moeprof", "iteration", 3),
    ]
    assert [(o.kind, o.name, o.stream) for o in found.ops.itertuples()] == [
        ("kernel", "aten::mm", 0),
        ("copy", "H2H", 1),
    ], "the inner operator is not counted twice"
    windows = iterations(found)
    assert windows is not None and windows.windows[0].copies[0].overlapped_ns == 20_000


def test_ncu_pages_agree(traces: Path) -> None:
    raw = read_counters(traces / "h200" / "ncu_raw.csv")
    assert raw["launch"].nunique() == 10
    one = raw[raw["launch"] == 0].set_index("metric")
    assert (
        one.loc["gpu__time_duration.sum", "value"] == pytest.approx(174_592)
        and one.loc["gpu__time_duration.sum", "unit"] == "ns"
    )
    assert (
        one.loc["dram__bytes_read.sum", "value"] == pytest.approx(148_130_304)
        and one.loc["dram__bytes_read.sum", "unit"] == "byte"
    )
    assert one.loc["launch__occupancy_per_register_count", "value"] == 2028, "thousands separators"
    details = read_counters(traces / "h200" / "ncu_details.csv")
    assert details["launch"].nunique() == 10
    assert details[(details["launch"] == 0) & (details["metric"] == "DRAM Frequency")]["value"].iloc[
        0
    ] == pytest.approx(3.20e9)


@pytest.mark.parametrize(
    ("unit", "base", "factor"),
    [
        ("Gbyte/s", "byte/s", 1e9),
        ("Tbyte/second", "byte/s", 1e12),
        ("byte", "byte", 1),
        ("us", "ns", 1e3),
        ("msecond", "ns", 1e6),
        ("%", "%", 1),
        ("register/thread", "register/thread", 1),
        ("Ghz", "hz", 1e9),
    ],
)
def test_ncu_units_become_base_units(unit: str, base: str, factor: float) -> None:
    assert base_unit(unit) == (base, factor)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\x00\x01garbage", "is no trace that moeprof reads"),
        (b"NVIDIA Tegra Profiler Report 2024@6@1@90-..\x00", "a raw report of nsys 2024.6.1"),
        (b"NVR\x00....", "a raw report of Nsight Compute"),
        (b"SQLite format 3\x00" + b"\x00" * 200, "cannot be read as SQLite"),
        (b'{"traceEvents": [', "is not a whole JSON file"),
        (b'{"other": 1}', "has no list traceEvents"),
        (b"\x1f\x8b\x08broken", "is not a whole JSON file"),
    ],
)
def test_what_is_no_trace_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(content)
    with pytest.raises(TraceError) as caught:
        read(path)
    assert words in caught.value.message and str(path) in caught.value.message and caught.value.hint


def test_missing_folder_and_foreign_sqlite(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="there is no trace"):
        read(tmp_path / "absent")
    with pytest.raises(TraceError, match="is a folder"):
        read(tmp_path)
    with closing(sqlite3.connect(tmp_path / "foreign.sqlite")) as db:
        db.execute("CREATE TABLE mine (x)")
        db.commit()
    with pytest.raises(TraceError, match="no nsys export"):
        read(tmp_path / "foreign.sqlite")


def test_a_truncated_export_is_one_clear_line(tmp_path: Path) -> None:
    make_export(tmp_path / "t.sqlite")
    data = (tmp_path / "t.sqlite").read_bytes()
    (tmp_path / "t.sqlite").write_bytes(data[: len(data) // 2])
    with pytest.raises(TraceError, match="cannot be read as SQLite"):
        read(tmp_path / "t.sqlite")


def test_pieces_of_a_table_are_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("adbc_driver_sqlite", reason="Arrow's driver is not installed")
    path = recordings.path("sync-item-faulty")
    whole = read_nsys(path, fast=False)
    for piece in (7, 600, 601):
        monkeypatch.setattr(export, "PIECE", piece)
        pieces = read_nsys(path)
        for name in ("ops", "calls", "ranges"):
            pd.testing.assert_frame_equal(getattr(pieces, name), getattr(whole, name))


def test_a_number_that_does_not_fit_is_not_known() -> None:
    found = table(OPS, {"start_ns": [1, 2], "end_ns": [3, 4], "stream": [2**40, 5], "bytes": [2**40, 1]})
    assert list(found["stream"]) == [-1, 5] and list(found["bytes"]) == [2**40, 1]
