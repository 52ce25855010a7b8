"""Read an nsys SQLite export of any schema from 2020 on: the only place that knows its tables and columns.

Tables are written only when they have rows and columns come and go, so columns are picked by name and what is missing
takes a default. Correlation ids repeat across processes: operations join to calls by process and correlation id.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moeprof.errors import TraceError
from moeprof.notes import Note, note
from moeprof.trace import classify
from moeprof.trace.tables import CALLS, OPS, RANGES, Device, Trace, table

PUSH_POP, START_END, DOMAIN = 59, 60, 75  # NVTX event types
DIAGNOSTIC_LENGTH = 240  # characters of a diagnostic text that are kept; severity 2 is a warning, 3 an error
PROCESS, TID_MASK = 1 << 24, 0xFFFFFF  # globalTid = hardware:8 | VM:8 | pid:24 | tid:24

_KERNEL = {
    "start": -1, "end": -1, "deviceId": 0, "contextId": -1, "streamId": -1, "correlationId": -1, "globalPid": 0,
    "demangledName": -1, "shortName": -1, "graphNodeId": -1, "gridX": -1, "gridY": -1, "gridZ": -1, "blockX": -1,
    "blockY": -1, "blockZ": -1, "registersPerThread": -1, "staticSharedMemory": -1, "dynamicSharedMemory": -1,
}  # fmt: skip
_ON_DEVICE = {key: _KERNEL[key] for key in list(_KERNEL)[:7]} | {"graphNodeId": -1}
_COPY = _ON_DEVICE | {"bytes": -1, "copyKind": 0, "srcKind": 7, "dstKind": 7}
_MEMSET = _ON_DEVICE | {"bytes": -1}
_CALL = {"start": -1, "end": -1, "globalTid": 0, "correlationId": -1, "nameId": -1}
_NVTX = {
    "start": -1, "end": None, "eventType": 0, "globalTid": 0, "endGlobalTid": None, "text": None, "textId": None,
    "domainId": 0, "int64Value": None, "uint64Value": None, "int32Value": None, "uint32Value": None,
}  # fmt: skip


def read_nsys(path: Path) -> Trace:
    """The tables of the export at ``path``.

    Raises:
        TraceError: the file is damaged, or is SQLite but no nsys export.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            return _Export(path, db).trace()
    except sqlite3.DatabaseError as error:
        raise TraceError(
            f"{path} cannot be read as SQLite: {error}", "export it again: nsys export --type sqlite"
        ) from error


class _Export:
    """One open export."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path, self.db = path, db
        self.tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
        if not self.tables & {"StringIds", "CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_RUNTIME", "NVTX_EVENTS"}:
            raise TraceError(
                f"{path} is SQLite but no nsys export (its tables: {', '.join(sorted(self.tables)[:5]) or 'none'})",
                "give the file that `nsys export --type sqlite` wrote",
            )
        self.strings = self._strings()

    def trace(self) -> Trace:
        """All tables, joined."""
        calls = self._calls()
        ops = _joined(self._ops(), calls)
        ranges, open_ranges = self._ranges()
        return Trace(
            path=self.path,
            kind="nsys",
            producer=self._producer(),
            schema=self._schema(),
            ops=ops.drop(columns="process"),
            calls=calls.drop(columns="process"),
            ranges=ranges,
            devices=self._devices(),
            notes=self._notes(ops, open_ranges),
        )

    def _strings(self) -> pd.Series:
        rows = self.db.execute("SELECT id, value FROM StringIds").fetchall() if "StringIds" in self.tables else []
        return pd.Series([r[1] for r in rows], index=pd.Index([r[0] for r in rows], dtype="int64"), dtype=object)

    def _select(self, name: str, wanted: dict[str, Any]) -> pd.DataFrame:
        """The wanted columns of a table; a column or a whole table that is missing takes its default."""
        if name not in self.tables:
            return pd.DataFrame({c: pd.Series([], dtype=object if d is None else "int64") for c, d in wanted.items()})
        there = {row[1] for row in self.db.execute(f'PRAGMA table_info("{name}")')}
        columns = [c for c in wanted if c in there]
        cursor = self.db.execute(f"SELECT {', '.join(columns)} FROM {name}")
        frame = pd.DataFrame.from_records(cursor.fetchall(), columns=columns)
        for column, default in wanted.items():
            if column not in there:
                frame[column] = default
            elif default is not None:
                frame[column] = frame[column].fillna(default).astype("int64")
        return frame

    def _names(self, ids: pd.Series) -> pd.Categorical:
        codes, unique = pd.factorize(ids)
        texts = self.strings.reindex(unique).fillna("").astype(str)
        distinct, index = np.unique(texts.to_numpy(dtype=object), return_inverse=True)
        return pd.Categorical.from_codes(
            index[codes] if len(codes) else [], categories=pd.Index(distinct, dtype=object)
        )

    def _ops(self) -> pd.DataFrame:
        parts = [self._kernels(), self._copies(), self._memsets(), self._graphs()]
        frame = pd.concat([_completed(p) for p in parts if len(p)] or [_completed(parts[0])], ignore_index=True)
        frame = frame.sort_values(["start_ns", "end_ns"], kind="stable", ignore_index=True)
        return table(OPS, {column: frame[column] for column in OPS}).assign(process=frame["process"])

    def _kernels(self) -> pd.DataFrame:
        raw = self._select("CUPTI_ACTIVITY_KIND_KERNEL", _KERNEL)
        names = self._names(raw["demangledName"].where(raw["demangledName"] >= 0, raw["shortName"]))
        shape = {
            "registers": "registersPerThread",
            "static_shared_bytes": "staticSharedMemory",
            "dynamic_shared_bytes": "dynamicSharedMemory",
        }
        shape |= {f"{kind}_{axis}": f"{kind}{axis.upper()}" for kind in ("grid", "block") for axis in "xyz"}
        extra = {new: raw[old] for new, old in shape.items()}
        return _device_columns(raw).assign(
            name=names.astype(object), kind=classify.kernel_kinds(names).to_numpy(), **extra
        )

    def _copies(self) -> pd.DataFrame:
        raw = self._select("CUPTI_ACTIVITY_KIND_MEMCPY", _COPY)
        migrated = raw["copyKind"].isin(list(classify.MIGRATIONS))
        direction = raw["copyKind"].map(classify.DIRECTIONS | classify.MIGRATIONS).fillna("other")
        return _device_columns(raw).assign(
            kind=np.where(migrated, "migration", "copy"),
            name=np.where(migrated, "UVM " + direction, direction),
            direction=direction,
            bytes=raw["bytes"],
            src_memory=raw["srcKind"].map(classify.MEMORY).fillna("other"),
            dst_memory=raw["dstKind"].map(classify.MEMORY).fillna("other"),
        )

    def _memsets(self) -> pd.DataFrame:
        raw = self._select("CUPTI_ACTIVITY_KIND_MEMSET", _MEMSET)
        return _device_columns(raw).assign(kind="memset", name="memset", bytes=raw["bytes"])

    def _graphs(self) -> pd.DataFrame:
        raw = self._select("CUPTI_ACTIVITY_KIND_GRAPH_TRACE", _ON_DEVICE)
        return _device_columns(raw).assign(kind="graph", name="CUDA graph replay")

    def _calls(self) -> pd.DataFrame:
        raw = self._select("CUPTI_ACTIVITY_KIND_RUNTIME", _CALL)
        raw = raw.sort_values(["start", "end"], kind="stable", ignore_index=True)
        names = self._names(raw["nameId"]).astype(object)
        named = pd.Series(names).map({n: classify.call_name(n) for n in set(names)})
        kinds = named.map({n: classify.call_kind(n) for n in set(named)})
        data = {
            "start_ns": raw["start"], "end_ns": raw["end"], "pid": _pid(raw["globalTid"]), "tid": raw["globalTid"] & TID_MASK,
            "name": named, "correlation": raw["correlationId"], "kind": kinds,
        }  # fmt: skip
        return table(CALLS, data).assign(process=raw["globalTid"].to_numpy() // PROCESS)

    def _ranges(self) -> tuple[pd.DataFrame, int]:
        raw = self._select("NVTX_EVENTS", _NVTX)
        domains = raw[raw["eventType"] == DOMAIN]
        names = {
            (g // PROCESS, d): t
            for g, d, t in zip(domains["globalTid"], domains["domainId"], self._texts(domains), strict=True)
        }
        raw = raw[raw["eventType"].isin([PUSH_POP, START_END])]
        still_open = int(raw["end"].isna().sum())
        raw = raw[raw["end"].notna()]
        tid = raw["globalTid"]
        values = (
            raw[["int64Value", "uint64Value", "int32Value", "uint32Value"]].astype("float64").bfill(axis=1).iloc[:, 0]
        )
        data = {
            "start_ns": raw["start"], "end_ns": raw["end"].astype("int64"), "pid": _pid(tid), "tid": tid & TID_MASK,
            "end_tid": raw["endGlobalTid"].fillna(tid).astype("int64") & TID_MASK,
            "domain": [names.get(key, "") or "" for key in zip(tid // PROCESS, raw["domainId"], strict=True)],
            "name": self._texts(raw), "payload": values.fillna(-1).astype("int64"),
            "style": np.where(raw["eventType"] == PUSH_POP, "pushpop", "startend"),
        }  # fmt: skip
        return table(RANGES, {k: list(v) for k, v in data.items()}), still_open

    def _texts(self, raw: pd.DataFrame) -> pd.Series:
        """Both forms occur in one file: the text itself, or the id of a registered string."""
        ids = raw["textId"].astype("float64").fillna(-1).astype("int64")
        return raw["text"].astype(object).where(raw["text"].notna(), ids.map(self.strings)).fillna("")

    def _devices(self) -> tuple[Device, ...]:
        if "TARGET_INFO_GPU" not in self.tables:
            return ()
        there = {row[1] for row in self.db.execute('PRAGMA table_info("TARGET_INFO_GPU")')}
        picked = [c if c in there else "NULL" for c in ("id", "name", "memoryBandwidth", "smCount")]
        return tuple(
            Device(*row) for row in self.db.execute(f"SELECT {', '.join(picked)} FROM TARGET_INFO_GPU ORDER BY 1")
        )

    def _meta(self, *keys: str) -> str | None:
        for name in ("META_DATA_EXPORT", "EXPORT_META_DATA", "META_DATA_CAPTURE"):
            if name in self.tables:
                found = dict(self.db.execute(f"SELECT name, value FROM {name}").fetchall())
                for key in keys:
                    if found.get(key):
                        return str(found[key])
        return None

    def _producer(self) -> str | None:
        version = self._meta("EXPORT_PRODUCT_VERSION", "EXPORTER_VERSION", "EXPORT_TOOL_VERSION", "PRODUCT_VERSION")
        return f"nsys {version}" if version else None

    def _schema(self) -> str | None:
        version = self._meta("EXPORT_SCHEMA_VERSION")
        if version:
            return version
        parts = [self._meta(f"EXPORT_SCHEMA_VERSION_{part}") for part in ("MAJOR", "MINOR", "MICRO")]
        return ".".join(p for p in parts if p) or None

    def _notes(self, ops: pd.DataFrame, open_ranges: int) -> tuple[Note, ...]:
        notes = []
        replays = int((ops["kind"] == "graph").sum())
        if replays:
            notes.append(note("graph-level", replays=replays))
        if open_ranges:
            notes.append(note("open-ranges", count=open_ranges))
        if not len(ops):
            notes.append(note("no-gpu-work"))
        return tuple(notes + [note("diagnostic", text=text) for text in self._diagnostics()])

    def _diagnostics(self) -> list[str]:
        if "DIAGNOSTIC_EVENT" not in self.tables:
            return []
        query = "SELECT DISTINCT text FROM DIAGNOSTIC_EVENT WHERE severity IN (2, 3) ORDER BY text"
        return [" ".join(row[0].split())[:DIAGNOSTIC_LENGTH] for row in self.db.execute(query) if row[0]]


def _pid(global_id: pd.Series) -> pd.Series:
    return (global_id // PROCESS) & TID_MASK


def _device_columns(raw: pd.DataFrame) -> pd.DataFrame:
    renamed = {
        "start": "start_ns", "end": "end_ns", "deviceId": "device", "contextId": "context", "streamId": "stream",
        "correlationId": "correlation", "graphNodeId": "graph_node",
    }  # fmt: skip
    frame = raw[list(renamed)].rename(columns=renamed)
    return frame.assign(pid=_pid(raw["globalPid"]), process=raw["globalPid"] // PROCESS)


def _completed(part: pd.DataFrame) -> pd.DataFrame:
    blanks = {name: "" if dtype == "category" else -1 for name, dtype in OPS.items() if name not in part}
    return part.assign(**blanks)


def _joined(ops: pd.DataFrame, calls: pd.DataFrame) -> pd.DataFrame:
    """``ops`` with ``call``, the row of the launching call: same process, same correlation id, the outermost call."""
    keyed = calls[calls["correlation"] >= 0].reset_index(names="call")[["process", "correlation", "call"]]
    keyed = keyed.drop_duplicates(["process", "correlation"])
    merged = ops.drop(columns="call").merge(keyed, on=["process", "correlation"], how="left")
    return ops.assign(call=merged["call"].fillna(-1).astype("int64").to_numpy())
