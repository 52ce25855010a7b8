"""Read an nsys SQLite export of any schema from 2020 on: the only place that knows its tables and columns.

Tables are written only when they have rows and columns come and go, so columns are picked by name and what is missing
takes a default. Correlation ids repeat across processes: operations join to calls by process and correlation id.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from moeprof.errors import TraceError
from moeprof.notes import Note, note
from moeprof.trace import classify
from moeprof.trace.classify import Classes
from moeprof.trace.nsys import about, nccl
from moeprof.trace.nsys.about import TID_MASK
from moeprof.trace.nsys.export import Export, Integers
from moeprof.trace.origin import of_export
from moeprof.trace.tables import CALLS, MEMORY, OPS, OVERHEADS, RANGES, Trace, one_text, table, time_order

PUSH_POP, START_END, DOMAIN = 59, 60, 75  # NVTX event types
PROCESS = 1 << 24  # globalTid = hardware:8 | VM:8 | pid:24 | tid:24
NEVER = np.iinfo(np.int64).min  # stands for NULL where -1 may be a value

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
    "start": -1, "end": NEVER, "eventType": 0, "globalTid": 0, "endGlobalTid": -1, "textId": -1, "domainId": 0,
    "int64Value": NEVER, "uint64Value": NEVER, "int32Value": NEVER, "uint32Value": NEVER,
}  # fmt: skip
_ALLOCATION = {"start": -1, "deviceId": 0, "bytes": -1, "memKind": -1, "memoryOperationType": 0}
_OVERHEAD = {"start": -1, "end": -1, "globalTid": 0, "nameId": -1}

_SMALL = {
    "deviceId", "contextId", "streamId", "gridX", "gridY", "gridZ", "blockX", "blockY", "blockZ", "registersPerThread",
    "staticSharedMemory", "dynamicSharedMemory", "demangledName", "shortName", "nameId", "copyKind", "srcKind", "dstKind",
    "eventType", "textId", "domainId",
}  # fmt: skip

Columns = dict[str, Any]  # column of OPS (and "process") -> int64 array or categorical


def read_nsys(path: Path, fast: bool = True, classes: Classes = classify.COMMUNICATION) -> Trace:
    """The tables of the export at ``path``; ``fast`` lets Arrow's driver read it where it is installed.

    Raises:
        TraceError: the file is damaged, or is SQLite but no nsys export.
    """
    try:
        with Export(path, fast) as export:
            return _Reader(export, classes).trace()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        cure = (
            "wait for the program that writes it"
            if "locked" in str(error)
            else "export it again: nsys export --type sqlite"
        )
        raise TraceError(f"{path} cannot be read as SQLite: {' '.join(str(error).split())[:160]}", cure) from error


class _Reader:
    """One open export, as tables."""

    def __init__(self, export: Export, classes: Classes) -> None:
        self.export, self.tables, self.classes = export, export.tables, classes
        if not self.tables & {"StringIds", "CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_RUNTIME", "NVTX_EVENTS"}:
            raise TraceError(
                f"{export.path} is SQLite but no nsys export (its tables: {', '.join(sorted(self.tables)[:5]) or 'none'})",
                "give the file that `nsys export --type sqlite` wrote",
            )
        rows = export.rows("SELECT id, value FROM StringIds") if "StringIds" in self.tables else []
        self.strings = {row[0]: str(row[1]) for row in rows}

    def trace(self) -> Trace:
        """All tables, joined."""
        calls, call_processes = self._calls()
        ops = self._ops(calls, call_processes)
        ranges, open_ranges = self._ranges()
        return Trace(
            path=self.export.path,
            kind="nsys",
            producer=about.producer(self.export),
            schema=about.schema(self.export),
            ops=ops,
            calls=calls,
            ranges=ranges,
            devices=about.devices(self.export),
            notes=self._notes(ops, open_ranges),
            streams=about.streams(self.export),
            overheads=self._overheads(),
            classes=self.classes,
            messages=nccl.messages(self.export, ops, calls),
            origin=of_export(self.export),
            memory=self._memory(),
        )

    def _memory(self) -> pd.DataFrame:
        """Allocations of device memory (nsys profile --cuda-memory-usage=true), in the order of time."""
        raw = self.export.integers("CUDA_GPU_MEMORY_USAGE_EVENTS", _ALLOCATION)
        rows = np.flatnonzero(np.isin(raw["memKind"], classify.ON_DEVICE) & (raw["bytes"] >= 0))
        rows = rows[np.argsort(raw["start"][rows], kind="stable")]
        moved = np.where(raw["memoryOperationType"][rows] == 0, raw["bytes"][rows], -raw["bytes"][rows])
        return table(MEMORY, {"time_ns": raw["start"][rows], "device": raw["deviceId"][rows], "bytes": moved})

    def _overheads(self) -> pd.DataFrame:
        overheads = [
            self.export.integers(name, _OVERHEAD) for name in ("PROFILER_OVERHEAD", "CUPTI_ACTIVITY_KIND_OVERHEAD")
        ]
        raw = {name: np.concatenate([part[name] for part in overheads]) for name in _OVERHEAD}
        thread = {"pid": _pid(raw["globalTid"]), "tid": raw["globalTid"] & TID_MASK}
        return table(
            OVERHEADS, {"start_ns": raw["start"], "end_ns": raw["end"], "name": self._named(raw["nameId"])} | thread
        )

    def _named(self, ids: np.ndarray) -> pd.Categorical:
        """The texts of string ids; an unknown id is ""."""
        codes, unique = pd.factorize(ids)
        return classify.relabel(pd.Categorical.from_codes(codes, unique), lambda id: self.strings.get(int(id), ""))

    def _calls(self) -> tuple[pd.DataFrame, np.ndarray]:
        """The calls, and the process of each (with the bits of machine and VM)."""
        raw = self.export.integers("CUPTI_ACTIVITY_KIND_RUNTIME", _CALL, _SMALL)
        order = time_order(raw["start"], raw["end"])
        raw = raw if order is None else {name: column[order] for name, column in raw.items()}
        names = classify.relabel(self._named(raw["nameId"]), classify.call_name)
        data = {
            "start_ns": raw["start"], "end_ns": raw["end"], "pid": _pid(raw["globalTid"]), "tid": (raw["globalTid"] & TID_MASK).astype(np.int32),
            "name": names, "correlation": raw["correlationId"], "kind": classify.relabel(names, classify.call_kind),
        }  # fmt: skip
        return table(CALLS, data), raw["globalTid"] // PROCESS

    def _ops(self, calls: pd.DataFrame, call_processes: np.ndarray) -> pd.DataFrame:
        parts = [self._kernels(), self._copies(), self._memsets(), self._graphs()]
        lengths = [len(part["start_ns"]) for part in parts]
        columns = {name: _stacked(name, dtype, parts, lengths) for name, dtype in OPS.items() if name != "call"}
        processes = np.concatenate([part["process"] for part in parts])
        keys = _keys(
            np.concatenate([processes, call_processes]), np.concatenate([columns["correlation"], calls["correlation"]])
        )
        return table(OPS, columns | {"call": _joined(keys[: len(processes)], keys[len(processes) :])})

    def _kernels(self) -> Columns:
        raw = self.export.integers("CUPTI_ACTIVITY_KIND_KERNEL", _KERNEL, _SMALL)
        names = self._named(np.where(raw["demangledName"] >= 0, raw["demangledName"], raw["shortName"]))
        shape = {
            "registers": "registersPerThread",
            "static_shared_bytes": "staticSharedMemory",
            "dynamic_shared_bytes": "dynamicSharedMemory",
        }
        shape |= {f"{kind}_{axis}": f"{kind}{axis.upper()}" for kind in ("grid", "block") for axis in "xyz"}
        kinds = {"name": names, "kind": classify.relabel(names, lambda n: classify.kernel_kind(n, self.classes))}
        return _on_device(raw) | {new: raw[old] for new, old in shape.items()} | kinds

    def _copies(self) -> Columns:
        raw = self.export.integers("CUPTI_ACTIVITY_KIND_MEMCPY", _COPY, _SMALL)

        def label(ids: np.ndarray, texts: dict[int, str]) -> pd.Categorical:
            codes, unique = pd.factorize(ids)
            return classify.relabel(pd.Categorical.from_codes(codes, unique), lambda id: texts.get(int(id), "other"))

        directions = classify.DIRECTIONS | classify.MIGRATIONS
        names = directions | {id: f"UVM {text}" for id, text in classify.MIGRATIONS.items()}
        kinds = dict.fromkeys(range(16), "copy") | dict.fromkeys(classify.MIGRATIONS, "migration")
        return _on_device(raw) | {
            "kind": label(raw["copyKind"], kinds),
            "name": label(raw["copyKind"], names),
            "direction": label(raw["copyKind"], directions),
            "bytes": raw["bytes"],
            "src_memory": label(raw["srcKind"], classify.MEMORY),
            "dst_memory": label(raw["dstKind"], classify.MEMORY),
        }

    def _memsets(self) -> Columns:
        raw = self.export.integers("CUPTI_ACTIVITY_KIND_MEMSET", _MEMSET, _SMALL)
        count = len(raw["start"])
        return _on_device(raw) | {
            "kind": one_text("memset", count),
            "name": one_text("memset", count),
            "bytes": raw["bytes"],
        }

    def _graphs(self) -> Columns:
        raw = self.export.integers("CUPTI_ACTIVITY_KIND_GRAPH_TRACE", _ON_DEVICE, _SMALL)
        count = len(raw["start"])
        return _on_device(raw) | {"kind": one_text("graph", count), "name": one_text("CUDA graph replay", count)}

    def _ranges(self) -> tuple[pd.DataFrame, int]:
        raw = self.export.integers("NVTX_EVENTS", _NVTX, _SMALL)
        texts = self._texts(raw["textId"])
        domains = self._domains(raw, texts)
        chosen = np.isin(raw["eventType"], (PUSH_POP, START_END))
        closed = chosen & (raw["end"] != NEVER)
        raw, texts = {name: column[closed] for name, column in raw.items()}, texts[closed]
        tid, values = (
            raw["globalTid"],
            [raw[name] for name in ("int64Value", "uint64Value", "int32Value", "uint32Value")],
        )
        data = {
            "start_ns": raw["start"], "end_ns": raw["end"], "pid": _pid(tid), "tid": tid & TID_MASK,
            "end_tid": np.where(raw["endGlobalTid"] >= 0, raw["endGlobalTid"], tid) & TID_MASK,
            "domain": self._domain_names(tid // PROCESS, raw["domainId"], domains), "name": texts,
            "payload": np.select([v != NEVER for v in values], values, default=-1),
            "style": np.where(raw["eventType"] == PUSH_POP, "pushpop", "startend"),
        }  # fmt: skip
        return table(RANGES, data), int(chosen.sum() - closed.sum())

    def _texts(self, ids: np.ndarray) -> pd.Categorical:
        """Both forms occur in one file: the text itself, or the id of a registered string."""
        named = self._named(ids)
        if "NVTX_EVENTS" not in self.tables or "text" not in self.export.columns("NVTX_EVENTS"):
            return named
        texts = np.array([row[0] for row in self.export.rows("SELECT text FROM NVTX_EVENTS")], dtype=object)
        codes, unique = pd.factorize(texts)
        spelled = pd.Categorical.from_codes(codes, pd.Index(unique, dtype=object))
        both = union_categoricals([named, spelled])
        return pd.Categorical.from_codes(
            np.where(spelled.codes >= 0, both.codes[len(named) :], both.codes[: len(named)]), both.categories
        )

    def _domains(self, raw: Integers, texts: pd.Categorical) -> dict[tuple[int, int], str]:
        rows = np.flatnonzero(raw["eventType"] == DOMAIN)
        return {(int(raw["globalTid"][i]) // PROCESS, int(raw["domainId"][i])): str(texts[i]) for i in rows}

    def _domain_names(
        self, processes: np.ndarray, ids: np.ndarray, names: dict[tuple[int, int], str]
    ) -> pd.Categorical:
        codes, unique = pd.factorize(_keys(processes, ids))
        first = np.unique(codes, return_index=True)[1]
        labels = [names.get((int(processes[i]), int(ids[i])), "") for i in first]
        return classify.relabel(pd.Categorical.from_codes(codes, range(len(unique))), lambda code: labels[int(code)])

    def _notes(self, ops: pd.DataFrame, open_ranges: int) -> tuple[Note, ...]:
        notes = []
        replays = int((ops["kind"] == "graph").sum())
        if replays:
            notes.append(note("graph-level", replays=replays))
        if open_ranges:
            notes.append(note("open-ranges", count=open_ranges))
        if not len(ops):
            notes.append(note("no-gpu-work"))
        return tuple(notes + [note("diagnostic", text=text) for text in about.diagnostics(self.export)])


def _pid(global_id: np.ndarray) -> np.ndarray:
    return ((global_id // PROCESS) & TID_MASK).astype(np.int32)


def _on_device(raw: Integers) -> Columns:
    renamed = {
        "start": "start_ns", "end": "end_ns", "deviceId": "device", "contextId": "context", "streamId": "stream",
        "correlationId": "correlation", "graphNodeId": "graph_node",
    }  # fmt: skip
    columns: Columns = {new: raw[old] for old, new in renamed.items()}
    return columns | {"pid": _pid(raw["globalPid"]), "process": raw["globalPid"] // PROCESS}


def _stacked(name: str, dtype: str, parts: list[Columns], lengths: list[int]) -> Any:
    """One column of all parts; a part that lacks it is blank."""
    if dtype == "category":
        return union_categoricals([part.get(name, one_text("", n)) for part, n in zip(parts, lengths, strict=True)])
    return np.concatenate(
        [part.get(name, np.full(n, -1, dtype=np.int64)) for part, n in zip(parts, lengths, strict=True)]
    )


def _keys(processes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """One integer for each pair of a process and a number below 2^40; -1 where the number is negative."""
    codes = pd.factorize(processes)[0].astype(np.int64)
    return np.where(numbers >= 0, (codes << 40) | numbers, -1)


def _joined(op_keys: np.ndarray, call_keys: np.ndarray) -> np.ndarray:
    """The row of each operation's launch call: same process, same correlation id, the outermost (first) call; or -1."""
    if not len(call_keys):
        return np.full(len(op_keys), -1, dtype=np.int64)
    order = np.argsort(call_keys, kind="stable")
    ordered = call_keys[order]
    place = np.minimum(np.searchsorted(ordered, op_keys), len(ordered) - 1)
    return np.where((ordered[place] == op_keys) & (op_keys >= 0), order[place], -1)
