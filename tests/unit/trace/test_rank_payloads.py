"""NCCL's payloads in an export: sizes, communicators and bandwidth, and which call a kernel belongs to."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders.rank_traces import EXPORT
from builders.sample_captures import Ran, answer

from moeprof.capture import redact
from moeprof.trace import read
from moeprof.trace.nsys import nccl

Run = Callable[..., Ran]
SEND, RECEIVE, COMMUNICATOR, EACH = (
    16777226,
    16777225,
    0xABCDEF,
    4 << 20,
)  # the schemas of ncclSend and ncclRecv in that export


def payload(schema: int, size: int, peer: int, cut: int = 0) -> bytes:
    """As nsys stores the payload of a send or receive."""
    body = struct.pack("<QQi4x", COMMUNICATOR, size, peer)
    return (struct.pack("<IIIIQQ", 1, 0, schema, 0, len(body), 32 + len(body)) + body)[: 56 - cut]


def paid(traces: Path, target: Path, cut: int = 0) -> Path:
    """The real export with payloads at its sends and receives: each group of two of both, with peers 0 and 1."""
    shutil.copyfile(traces / "nsys" / EXPORT, target)
    with closing(sqlite3.connect(target)) as db:
        query = "SELECT n.rowid, n.globalTid, COALESCE(n.text, s.value) AS name FROM NVTX_EVENTS n LEFT JOIN StringIds s ON s.id = n.textId WHERE name IN ('ncclSend', 'ncclRecv') ORDER BY n.globalTid, n.start"
        counts: dict[tuple[int, str], int] = {}
        rows = []
        for row, thread, name in db.execute(query).fetchall():
            number = counts[thread, name] = counts.get((thread, name), -1) + 1
            rows.append((payload(SEND if name == "ncclSend" else RECEIVE, EACH, number % 2, cut), row))
        db.executemany("UPDATE NVTX_EVENTS SET binaryData = ? WHERE rowid = ?", rows)
        db.commit()
    return target


def test_payloads_give_sizes_communicator_and_bandwidth(command: Run, traces: Path, tmp_path: Path) -> None:
    path = paid(traces, tmp_path / "paid.sqlite")
    messages = read(path).messages
    assert len(messages) == 64 and set(messages["bytes"]) == {2 * EACH} and set(messages["peers"]) == {2}
    assert set(messages["group"]) == {f"{COMMUNICATOR:016x}"} and set(messages["collective"]) == {"ncclSendRecv"}
    found = answer(command("ranks", path, "--link-ceiling", "400", "--json"))
    unknown, row = found["collectives"]  # one kernel of each was launched before the recording began
    assert (unknown["group"], unknown["matched"], unknown["bytes"]) == ("", 1, None) and "message sizes" in unknown[
        "no_bandwidth"
    ]
    assert (row["exchange"], row["bytes"], row["matched"], row["no_bandwidth"]) == (True, 32 * 2 * EACH, 32, "")
    rates = [0.5 * 2 * EACH / a["moving_ns"] for a in row["arrivals"]]
    assert [a["bus_gb_per_s"] for a in row["arrivals"]] == pytest.approx(rates)
    assert row["of_ceiling"] == pytest.approx(np.median(rates) / 400) and max(rates) < 400
    shown = command("ranks", path).out
    assert "SendRecv (all-to-all) of" in shown


def test_a_capture_keeps_the_payloads(traces: Path, tmp_path: Path) -> None:
    source, kept = paid(traces, tmp_path / "paid.sqlite"), tmp_path / "kept.sqlite"
    redact.nsys_export(source, kept, {})
    pd.testing.assert_frame_equal(read(kept).messages, read(source).messages)


def test_payloads_that_are_cut_short_tell_nothing(command: Run, traces: Path, tmp_path: Path) -> None:
    assert len(read(paid(traces, tmp_path / "whole.sqlite")).messages) > 0
    for lost, cut in {"header": 30, "size": 16}.items():
        assert read(paid(traces, tmp_path / f"{lost}.sqlite", cut=cut)).messages.empty, lost


def test_without_payloads_sizes_are_not_known(traces: Path) -> None:
    assert read(traces / "nsys" / EXPORT).messages.empty


def call(name: str, start: int, end: int, size: int = -1, communicator: int = 7, peer: int = -1) -> nccl.Call:
    fields = {nccl.COMMUNICATOR: communicator} | ({nccl.SIZE: size} if size >= 0 else {})
    return nccl.Call(start, end, name, fields | {nccl.PEER: peer})


def test_a_kernel_belongs_to_the_innermost_call_or_its_group() -> None:
    calls = [
        call("ncclAllReduce", 0, 10, 64), call("ncclGroupStart", 20, 21), call("ncclSend", 22, 23, 8, peer=0), call("ncclRecv", 24, 25, 32, peer=1),
        call("ncclGroupEnd", 30, 40),
    ]  # fmt: skip
    assert [nccl._place(calls, at) for at in (5, 15, 23, 35, 50)] == [0, -1, 2, 4, -1]
    assert nccl._members(calls, 0) == [calls[0]] and nccl._members(calls, 4) == calls[2:4]
    (message,) = nccl._described(calls[2:4], 1, {7: 2})
    assert (message["bytes"], message["peers"], message["group_size"]) == (32, 2, 2)
    assert nccl._described(calls[2:4], 3, {}) == [{}] * 3, "three kernels of two calls: whose is which is not known"
    assert [m["bytes"] for m in nccl._described([calls[0], calls[0]], 2, {})] == [64, 64]


def test_groups_of_several_kinds_have_no_size_and_of_several_communicators_no_row() -> None:
    mixed = [call("ncclAllReduce", 0, 1, 64), call("ncclAllGather", 2, 3, 8)]
    assert nccl._described(mixed, 1, {})[0]["bytes"] == -1
    other = [call("ncclAllReduce", 0, 1, 64), call("ncclAllReduce", 2, 3, 8, communicator=8)]
    assert nccl._described(other, 1, {}) == [{}]
    assert nccl._described(mixed[1:], 1, {})[0]["per_rank"] == 1
