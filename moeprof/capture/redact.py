"""Take the profiled process's environment, command line, user and host out of what a capture saves.

An nsys export holds them in META_DATA_*, TARGET_INFO_SYSTEM_ENV, StringIds and PROCESSES. The redacted file is built
from nothing, of the tables that analysis (ours and ``nsys stats``) needs, and only the strings that those refer to; so
no freed page keeps the rest. ``leaks`` then looks for secrets in the bytes of whatever is kept.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import socket
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from moeprof.trace.kineto.reader import GZIP_MAGIC, opened

KEPT_TABLES = re.compile(
    r"^(CUPTI_ACTIVITY_KIND_\w+|NVTX_EVENTS|NVTX_PAYLOAD_\w+|ENUM_\w+|CUDA_GRAPH_\w+|CUDA_GPU_MEMORY_\w+|GPU_METRICS|GENERIC_EVENTS?|PROFILER_OVERHEAD"
    r"|TARGET_INFO_(GPU|GPU_METRICS|CUDA_\w+|NVTX_CUDA_\w+|SESSION_START_TIME)|ANALYSIS_DETAILS|DIAGNOSTIC_EVENT"
    r"|META_DATA_EXPORT|EXPORT_META_DATA)$"
)
PER_PROCESS_TABLES = {"ThreadNames": "globalTid", "PROCESSES": "globalPid"}  # only the rows of traced processes stay
STRING_COLUMNS = (
    "nameId",
    "textId",
    "jsonTextId",
    "demangledName",
    "shortName",
    "mangledName",
    "hwNameId",
    "filenameId",
)
KEPT_META = ("EXPORT_PRODUCT", "EXPORT_SCHEMA", "EXPORT_PLATFORM", "EXPORT_ARCH")
PROCESS = 1 << 24  # globalTid and globalPid without the thread's bits
SECRET_NAME = re.compile(r"TOKEN|KEY|SECRET|PASS|CREDENTIAL|AUTH|COOKIE", re.IGNORECASE)
SECRET_LENGTH = 8  # a shorter value may be in any file by chance
HIDDEN = "(redacted)"
HIDDEN_COLUMNS = ("Process ID", "Process Name", "Host Name")
KEPT_CATEGORIES = {
    "kernel", "gpu_memcpy", "gpu_memset", "cuda_runtime", "cuda_driver", "cpu_op", "user_annotation", "gpu_user_annotation",
    "ac2g", "overhead",
}  # fmt: skip
KEPT_KEYS = (
    "schemaVersion",
    "displayTimeUnit",
    "baseTimeNanoseconds",
    "cuda_runtime_version",
    "cuda_driver_version",
    "cupti_version",
)
KEPT_DEVICE_KEYS = ("id", "name", "totalGlobalMem", "computeMajor", "computeMinor", "numSms")


def secrets(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The values that must not appear anywhere: those of variables with telling names."""
    return tuple(sorted({v for k, v in environment.items() if SECRET_NAME.search(k) and len(v) >= SECRET_LENGTH}))


def leaks(path: Path, values: Iterable[str]) -> bool:
    """Whether any of ``values`` is in the file's bytes (of a gzipped file: in its contents)."""
    data = path.read_bytes()
    data = gzip.decompress(data) if data.startswith(GZIP_MAGIC) else data
    return any(value.encode() in data for value in values)


def nsys_export(source: Path, target: Path, environment: Mapping[str, str]) -> None:
    """Copy the export at ``source`` to ``target`` without what names the user, the host, its processes or environment."""
    target.unlink(missing_ok=True)
    with closing(sqlite3.connect(target)) as db:
        db.execute("ATTACH ? AS src", (f"{source.resolve()}",))
        tables = dict(db.execute("SELECT name, sql FROM src.sqlite_master WHERE type = 'table'"))
        for name, definition in sorted(tables.items()):
            if KEPT_TABLES.match(name):
                db.execute(definition)
                db.execute(f'INSERT INTO main."{name}" SELECT * FROM src."{name}"')
        _hide_texts(db, environment)
        _copy_processes(db, tables)
        _copy_strings(db, tables)
        db.commit()
        db.execute("DETACH src")
        db.execute("VACUUM")


def _kept(db: sqlite3.Connection) -> list[tuple[str, list[str]]]:
    names = [row[0] for row in db.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")]
    return [(n, [c[1] for c in db.execute(f'PRAGMA main.table_info("{n}")')]) for n in names]


def _hide_texts(db: sqlite3.Connection, environment: Mapping[str, str]) -> None:
    """Keep the product's own metadata alone, and take hosts, users and secrets out of diagnostic texts."""
    there = dict(_kept(db))
    for name in ("META_DATA_EXPORT", "EXPORT_META_DATA"):
        if name in there:
            keep = " AND ".join(f"name NOT LIKE '{prefix}%'" for prefix in KEPT_META)
            db.execute(f"DELETE FROM main.{name} WHERE {keep}")
    if "DIAGNOSTIC_EVENT" in there:
        names = {
            environment.get("USER", ""),
            environment.get("LOGNAME", ""),
            socket.gethostname(),
            *secrets(environment),
        }
        for word in sorted(names - {"", "root"}, key=len, reverse=True):
            db.execute("UPDATE main.DIAGNOSTIC_EVENT SET text = replace(text, ?, ?)", (word, HIDDEN))
        db.execute(
            r"UPDATE main.DIAGNOSTIC_EVENT SET text = substr(text, 1, instr(text, ', see /') - 1) WHERE text LIKE '%, see /%'"
        )


def _copy_processes(db: sqlite3.Connection, tables: Mapping[str, str]) -> None:
    """Names of the traced processes and their threads; nsys lists every process of the machine."""
    traced: set[int] = set()
    for name, columns in _kept(db):
        for column in ("globalTid", "globalPid"):
            if column in columns and name.startswith(("CUPTI", "NVTX")):
                traced |= {
                    row[0]
                    for row in db.execute(f'SELECT DISTINCT "{column}" / {PROCESS} FROM main."{name}"')
                    if row[0] is not None
                }
    wanted = ",".join(str(int(p)) for p in sorted(traced)) or "NULL"
    for name, column in PER_PROCESS_TABLES.items():
        if name in tables:
            db.execute(tables[name])
            db.execute(f"INSERT INTO main.{name} SELECT * FROM src.{name} WHERE {column} / {PROCESS} IN ({wanted})")
    if "PROCESSES" in tables:
        for rowid, path in db.execute("SELECT rowid, name FROM main.PROCESSES").fetchall():
            db.execute("UPDATE main.PROCESSES SET name = ? WHERE rowid = ?", (str(path).rpartition("/")[2], rowid))


def _copy_strings(db: sqlite3.Connection, tables: Mapping[str, str]) -> None:
    """Only the strings that a kept row refers to."""
    if "StringIds" not in tables:
        return
    used = [f'SELECT "{c}" FROM main."{name}"' for name, columns in _kept(db) for c in STRING_COLUMNS if c in columns]
    db.execute(tables["StringIds"])
    if used:
        db.execute(f"INSERT INTO main.StringIds SELECT * FROM src.StringIds WHERE id IN ({' UNION '.join(used)})")


def ncu_csv(source: Path, target: Path) -> None:
    """Copy the CSV without process and host; without the tool's own lines (==PROF==)."""
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(line for line in file if not line.startswith("==") and line.strip()))
    hidden = [i for i, name in enumerate(rows[0]) if name in HIDDEN_COLUMNS] if rows else []
    for row in rows[1:]:
        for index in hidden:
            row[index] = ""
    with target.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)


def ncu_source(source: Path, target: Path) -> None:
    """Copy a source page; the names of files lose their folders, and the tool's own lines are left out."""
    with (
        source.open(encoding="utf-8", errors="replace", newline="") as given,
        target.open("w", encoding="utf-8", newline="") as made,
    ):
        writer = csv.writer(made, quoting=csv.QUOTE_ALL, lineterminator="\n")
        for row in csv.reader(line for line in given if not line.startswith("==") and line.strip()):
            is_path = len(row) > 1 and row[0] == "File Path"
            writer.writerow([row[0], row[1].rpartition("/")[2], *row[2:]] if is_path else row)


def kineto_json(source: Path, target: Path) -> None:
    """Copy a torch.profiler trace, gzipped, with the events and keys that analysis needs and nothing of the host."""
    with opened(source) as file:
        document = json.load(file, parse_float=Verbatim)
    redacted: dict[str, Any] = {key: document[key] for key in KEPT_KEYS if key in document}
    redacted["deviceProperties"] = [
        {k: d[k] for k in KEPT_DEVICE_KEYS if k in d} for d in document.get("deviceProperties", [])
    ]
    redacted["traceEvents"] = [e for e in document["traceEvents"] if e.get("cat") in KEPT_CATEGORIES]
    data = json.dumps(redacted, separators=(",", ":")).encode()
    with target.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
        file.write(data)


class Verbatim(float):
    """A number that is written as it was read: times have more digits than a float holds."""

    def __new__(cls, text: str) -> Verbatim:
        made = super().__new__(cls, text)
        made.text = text
        return made

    text: str

    def __repr__(self) -> str:
        return self.text
