"""Make small nsys SQLite exports: a copy beside and after kernels, ranges as moeprof pushes them, and what must be redacted."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

PID, TID = 4321, 4322
GLOBAL_PID = (1 << 48) | (PID << 24)
GLOBAL_TID = GLOBAL_PID | TID
PERIOD_NS = 100_000
SECRET_KEYS = ("MOEPROF_TEST_TOKEN", "HOSTNAME")

SCHEMA = """
CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT);
CREATE TABLE META_DATA_EXPORT (name TEXT, value TEXT);
CREATE TABLE META_DATA_CAPTURE (name TEXT, value TEXT);
CREATE TABLE TARGET_INFO_SYSTEM_ENV (globalVid INTEGER, devStateName TEXT, name TEXT, nameEnum INTEGER, value TEXT);
CREATE TABLE TARGET_INFO_GPU (id INTEGER, name TEXT, memoryBandwidth INTEGER, smCount INTEGER);
CREATE TABLE PROCESSES (globalPid INTEGER, pid INTEGER, name TEXT);
CREATE TABLE ThreadNames (nameId INTEGER, priority INTEGER, globalTid INTEGER);
CREATE TABLE DIAGNOSTIC_EVENT (timestamp INTEGER, severity INTEGER, text TEXT);
CREATE TABLE NVTX_EVENTS (start INTEGER, end INTEGER, eventType INTEGER, globalTid INTEGER, endGlobalTid INTEGER, text TEXT,
  textId INTEGER, domainId INTEGER, int64Value INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INTEGER, end INTEGER, eventClass INTEGER, globalTid INTEGER, correlationId INTEGER,
  nameId INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY (start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER, streamId INTEGER,
  correlationId INTEGER, globalPid INTEGER, bytes INTEGER, copyKind INTEGER, srcKind INTEGER, dstKind INTEGER);
"""
KERNELS = """
CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER, streamId INTEGER,
  correlationId INTEGER, globalPid INTEGER, demangledName INTEGER, shortName INTEGER);
"""
DOMAIN = "INSERT INTO NVTX_EVENTS VALUES (-5, NULL, 75, ?, NULL, 'moeprof', NULL, 1, NULL)"
STRINGS = {
    1: "void gemm<(int)8, float>(T1 *, T2)", 2: "gemm", 3: "cudaLaunchKernel_v7000", 4: "cudaMemcpyAsync_v3020", 5: "worker/variant",
    6: "measure", 7: "iteration", 8: "python3",
}  # fmt: skip


def make_export(
    path: Path,
    iterations: int = 8,
    kernels: bool = True,
    environment: dict[str, str] | None = None,
    pids: tuple[int, ...] = (PID,),
) -> None:
    """An export with ``iterations`` iterations of one kernel [10, 60) and one copy [40, 90) us, 100 us apart, the same in each
    of the processes ``pids``, which use a device each."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(SCHEMA + (KERNELS if kernels else ""))
        db.executemany("INSERT INTO StringIds VALUES (?, ?)", STRINGS.items())
        _describe(db, environment or {})
        for device, pid in enumerate(pids):
            process = Process(device, (1 << 48) | (pid << 24))
            if process.global_pid != GLOBAL_PID:
                db.execute(DOMAIN, (process.global_tid,))
            _range(db, 0, iterations * PERIOD_NS, 5, None, process)
            _range(db, 1, iterations * PERIOD_NS - 1, 6, None, process)
            for number in range(iterations):
                _iteration(db, number, kernels, process)
        db.commit()


class Process(NamedTuple):
    """A traced process and the device that it uses."""

    device: int
    global_pid: int

    @property
    def global_tid(self) -> int:
        return self.global_pid | TID


def _describe(db: sqlite3.Connection, environment: dict[str, str]) -> None:
    db.executemany(
        "INSERT INTO META_DATA_EXPORT VALUES (?, ?)",
        [
            ("EXPORT_PRODUCT_VERSION", "2025.3.1.0"),
            ("EXPORT_SCHEMA_VERSION", "3.20.3"),
            ("EXPORT_HOST", "secret-host-name"),
        ],
    )
    for index, (key, value) in enumerate(environment.items()):
        db.execute(
            "INSERT INTO META_DATA_CAPTURE VALUES (?, ?)", ("PROCESS_0:ENVIRONMENT_VARIABLE", f'{key}="{value}"')
        )
        db.execute("INSERT INTO TARGET_INFO_SYSTEM_ENV VALUES (0, 'Local', ?, 0, ?)", (key, value))
        db.execute("INSERT INTO StringIds VALUES (?, ?)", (1000 + index, f"{key}={value}"))
    db.execute("INSERT INTO TARGET_INFO_GPU VALUES (0, 'Fake GPU', 4800000000000, 132)")
    db.execute("INSERT INTO PROCESSES VALUES (?, ?, ?)", (GLOBAL_PID, PID, "/home/somebody/bin/python3"))
    db.execute("INSERT INTO PROCESSES VALUES (?, ?, ?)", (7 << 24, 7, "secret-daemon"))
    db.execute("INSERT INTO ThreadNames VALUES (8, 20, ?)", (GLOBAL_TID,))
    token = environment.get("MOEPROF_TEST_TOKEN", "nothing")
    db.execute("INSERT INTO DIAGNOSTIC_EVENT VALUES (0, 2, ?)", (f"could not open a file for {token}",))
    db.execute(DOMAIN, (GLOBAL_TID,))


def _range(db: sqlite3.Connection, start: int, end: int, name: int, payload: int | None, process: Process) -> None:
    row = (start, end, process.global_tid, name, payload)
    db.execute("INSERT INTO NVTX_EVENTS VALUES (?, ?, 59, ?, NULL, NULL, ?, 1, ?)", row)


def _iteration(db: sqlite3.Connection, number: int, kernels: bool, process: Process) -> None:
    zero, correlation = number * PERIOD_NS, 2 * number + 1
    _range(db, zero + 1_000, zero + 9_000, 7, number, process)
    calls = [(zero + 2_000, zero + 4_000, correlation, 3), (zero + 5_000, zero + 8_000, correlation + 1, 4)]
    for start, end, id, name in calls:
        db.execute(
            "INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (?, ?, 0, ?, ?, ?)",
            (start, end, process.global_tid, id, name),
        )
    if kernels:
        row = (zero + 10_000, zero + 60_000, process.device, correlation, process.global_pid)
        db.execute("INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (?, ?, ?, 1, 7, ?, ?, 1, 2)", row)
    row = (zero + 40_000, zero + 90_000, process.device, correlation + 1, process.global_pid)
    db.execute("INSERT INTO CUPTI_ACTIVITY_KIND_MEMCPY VALUES (?, ?, ?, 1, 13, ?, ?, 2500000, 2, 2, 1)", row)


def add_clocks(path: Path, clocks: dict[int, list[list[int]]]) -> None:
    """Ranges that tell a process's clock: [number, start, end] each, by its number; and a session that says it began at 1970."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO StringIds VALUES (9, 'clock')")
        db.execute("CREATE TABLE TARGET_INFO_SESSION_START_TIME (utcEpochNs INTEGER, utcTime TEXT, localTime TEXT)")
        db.execute("INSERT INTO TARGET_INFO_SESSION_START_TIME VALUES (5, '', '')")
        for pid, ranges in clocks.items():
            process = Process(0, (1 << 48) | (pid << 24))
            for number, start, end in ranges:
                _range(db, start, end, 9, number, process)
        db.commit()


def environment() -> dict[str, str]:
    """The environment as nsys stores it: all of it."""
    return dict(os.environ)
