"""Damaged and hostile files end in one clear line or in numbers, never in a traceback: mutated real and made files."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import sqlite3
import warnings
from contextlib import closing, suppress
from pathlib import Path

import pytest
from builders.nsys_export import make_export
from recorded import recordings

from moeprof.analysis.analyze import iterations
from moeprof.errors import MoeprofError, TraceError
from moeprof.loaded.trace import analysis_of
from moeprof.trace import read
from moeprof.trace.ncu.counters import read_counters

# Enough that each kind of damage meets each outcome; a campaign over nights sets some thousand.
ROUNDS = int(os.environ.get("MOEPROF_FUZZ_ROUNDS", "24"))
HOSTILE = (-1, 0, -(2**63), 2**63 - 1, 2**62, None, "'; DROP TABLE StringIds; --", "<script>", 1e300, float("inf"))
TABLES = (
    "CUPTI_ACTIVITY_KIND_KERNEL",
    "CUPTI_ACTIVITY_KIND_MEMCPY",
    "CUPTI_ACTIVITY_KIND_RUNTIME",
    "NVTX_EVENTS",
    "StringIds",
)


def survives(path: Path) -> bool:
    """Whether the file gives numbers; a MoeprofError says that it does not. Anything else is a defect."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            trace = read(path)
            analysis_of(trace)
            iterations(trace)
        except MoeprofError as error:
            assert error.message and "\n" not in error.message
            return False
    return True


def flipped(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, or the end cut off."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 30))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.2 else changed)


def test_flipped_bytes_of_an_export(tmp_path: Path) -> None:
    rng, path = random.Random(1), tmp_path / "t.sqlite"
    make_export(path, 3)
    data = path.read_bytes()
    outcomes = set()
    for _ in range(ROUNDS):
        path.write_bytes(flipped(data, rng))
        outcomes.add(survives(path))
    assert outcomes == {True, False}, "some are read, some are refused: the mutation is neither harmless nor total"


def test_hostile_values_in_every_column(tmp_path: Path) -> None:
    rng, path, whole = random.Random(2), tmp_path / "t.sqlite", tmp_path / "whole.sqlite"
    make_export(whole, 3)
    with closing(sqlite3.connect(whole)) as db:
        columns = [(table, row[1]) for table in TABLES for row in db.execute(f"PRAGMA table_info({table})")]
    assert len(columns) == 37
    for table, column in columns * max(1, ROUNDS // 24):
        shutil.copy(whole, path)
        with closing(sqlite3.connect(path)) as db:
            values = (rng.choice(HOSTILE), rng.randrange(3))
            with suppress(sqlite3.IntegrityError):
                db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid % 3 = ?", values)
            db.commit()
        survives(path)


REAL = (
    "sync-item-faulty",
    "late-issue-faulty",
    "migration-stall-faulty",
    "legacy-default-stream-faulty",
    "peer",
    "startend",
)


@pytest.mark.parametrize("name", REAL)
def test_flipped_bytes_of_real_exports(tmp_path: Path, name: str) -> None:
    rng, path = random.Random(name), tmp_path / "t.sqlite"
    data = recordings.path(name).read_bytes()
    for _ in range(ROUNDS // 4):
        path.write_bytes(flipped(data, rng))
        survives(path)


@pytest.mark.parametrize("name", REAL)
def test_hostile_values_in_real_exports(tmp_path: Path, name: str) -> None:
    rng, path = random.Random(name), tmp_path / "t.sqlite"
    for _ in range(ROUNDS // 4):
        path.write_bytes(recordings.path(name).read_bytes())
        spoil(path, rng)
        survives(path)


def spoil(path: Path, rng: random.Random) -> None:
    """A hostile value in every seventh row of a column of some table."""
    with closing(sqlite3.connect(path)) as db:
        there = [
            r[0] for r in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'ENUM%'")
        ]
        table = rng.choice(there)
        column = rng.choice([row[1] for row in db.execute(f"PRAGMA table_info({table})")])
        with suppress(sqlite3.IntegrityError):
            db.execute(
                f'UPDATE {table} SET "{column}" = ? WHERE rowid % 7 = ?', (rng.choice(HOSTILE), rng.randrange(7))
            )
        db.commit()


def test_a_gzip_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    path = tmp_path / "bomb.json.gz"
    with gzip.open(path, "wb") as file:
        file.write(b'{"traceEvents": [')
        for _ in range(200):
            file.write(b" " * (1 << 20))
    with pytest.raises(TraceError, match="unpacks to more than 100 times its size"):
        read(path)


def test_a_locked_export_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, connect = tmp_path / "t.sqlite", sqlite3.connect
    make_export(path, 3)
    # sqlite3 waits 5 s for the writer
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, timeout=0.05, **named))
    with closing(connect(path)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TraceError, match="locked") as caught:
            read(path)
    assert caught.value.hint == "wait for the program that writes it"


def test_ranges_that_cross_and_run_backwards(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    make_export(path, 5)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE NVTX_EVENTS SET start = end + 5000, end = start - 5000 WHERE rowid % 2 = 0")
        db.execute("UPDATE NVTX_EVENTS SET end = end + 60000 WHERE rowid % 2 = 1 AND end IS NOT NULL")
        db.commit()
    assert survives(path)


def test_flipped_bytes_of_kineto(traces: Path, tmp_path: Path) -> None:
    rng, path = random.Random(3), tmp_path / "t.json"
    data = (traces / "h200" / "torch_profiler.json").read_bytes()
    for _ in range(ROUNDS // 2):
        path.write_bytes(flipped(data, rng))
        survives(path)
        path.write_bytes(gzip.compress(flipped(data, rng)))
        survives(path)


@pytest.mark.parametrize("value", [None, -5, 2**70, "x", [], {}, True, 1e308, "1e400"])
@pytest.mark.parametrize("key", ["ts", "dur", "name", "pid", "tid", "args", "cat"])
def test_hostile_values_in_kineto(tmp_path: Path, key: str, value: object) -> None:
    event = {
        "ph": "X",
        "cat": "kernel",
        "name": "k",
        "ts": 5,
        "dur": 5,
        "pid": 0,
        "tid": 7,
        "args": {"device": 0, "correlation": 1},
    }
    call = event | {"cat": "cuda_runtime", "name": "cudaLaunchKernel"}
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"traceEvents": [event, event | {key: value}, call, call | {key: value}]}))
    survives(path)


def test_flipped_bytes_of_ncu(traces: Path, tmp_path: Path) -> None:
    rng, path = random.Random(4), tmp_path / "t.csv"
    data = b"".join((traces / "h200" / "ncu_raw.csv").read_bytes().splitlines(keepends=True)[:5])
    refused = 0
    for _ in range(ROUNDS):
        path.write_bytes(flipped(data, rng))
        try:
            read_counters(path)
        except MoeprofError as error:
            refused += 1
            assert "\n" not in error.message
    assert 0 < refused < ROUNDS
