"""What NCCL's own NVTX ranges in an nsys export say of each collective: what was called, the communicator, the bytes.

NCCL pushes one range a call, with a payload (its source, ``nvtx_payload_schemas.h``); nsys stores a payload as a blob whose
fields the tables NVTX_PAYLOAD_SCHEMA_ENTRIES describe. A kernel is found through its launch call: inside the range of its
own call, or inside the ``ncclGroupEnd`` that launches all calls since ``ncclGroupStart``.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moeprof.trace.nsys.about import TID_MASK
from moeprof.trace.nsys.export import Export
from moeprof.trace.tables import MESSAGES, table

TABLES = {"NVTX_EVENTS", "NVTX_PAYLOAD_SCHEMA_ENTRIES", "StringIds"}
HEADER = struct.Struct("<IIIIQQ")  # domain, -, schema, -, bytes of the payload, bytes in all
# NVTX's types of a field (nvToolsExtPayload.h: INT, UINT64, SIZE) -> how it is packed
FIELDS = {5: struct.Struct("<i"), 18: struct.Struct("<Q"), 22: struct.Struct("<Q")}
COMMUNICATOR, SIZE, PEER, RANKS = "NCCL communicator ID", "Message size [bytes]", "Peer rank", "No. of ranks"
DEEPEST = 8  # ranges of NCCL inside one another
START, END = "ncclGroupStart", "ncclGroupEnd"
POINT_TO_POINT = ("ncclSend", "ncclRecv")
# Calls whose size is one rank's share of the whole array (nccl.h: sendcount, recvcount, count to each rank)
SHARES = ("ncclAllGather", "ncclReduceScatter", "ncclAlltoAll", "ncclGather", "ncclScatter")

Schemas = dict[int, list[tuple[str, struct.Struct, int]]]  # schema -> name, form and offset of its fields


@dataclass(frozen=True)
class Call:
    """One NCCL range; what its payload does not tell is -1 (``fields`` by name)."""

    start: int
    end: int
    name: str
    fields: dict[str, int]

    def get(self, field: str) -> int:
        """The value of a field, or -1."""
        return self.fields.get(field, -1)


def messages(export: Export, ops: pd.DataFrame, calls: pd.DataFrame) -> pd.DataFrame:
    """The table MESSAGES of the communication kernels whose NCCL call is known; empty where nsys kept no payloads."""
    rows = ops[(ops["kind"] == "comm") & (ops["call"] >= 0)]
    threads = _threads(export) if len(rows) and export.tables >= TABLES else {}
    if not threads:
        return table(MESSAGES, {})
    sizes = _group_sizes(threads)
    launch = calls.iloc[rows["call"].to_numpy()]
    rows_of: dict[tuple[int, int, int], list[int]] = {}
    places = []
    for number, (pid, tid, at) in enumerate(zip(launch["pid"], launch["tid"], launch["start_ns"], strict=True)):
        place = _place(threads.get((int(pid), int(tid)), []), int(at))
        places.append((int(pid), int(tid), place))
        if place >= 0:
            rows_of.setdefault(places[-1], []).append(number)
    described: dict[int, dict[str, Any]] = {}
    for (pid, tid, place), kernels in rows_of.items():
        described |= dict(
            zip(kernels, _described(_members(threads[pid, tid], place), len(kernels), sizes), strict=True)
        )
    return _table(rows, described)


def _table(rows: pd.DataFrame, described: dict[int, dict[str, Any]]) -> pd.DataFrame:
    chosen = sorted(n for n, message in described.items() if message)
    if not chosen:
        return table(MESSAGES, {})
    operations = rows.iloc[chosen]
    columns = {name: operations[name].to_numpy() for name in ("start_ns", "end_ns", "device", "stream")}
    return table(MESSAGES, columns | {name: [described[n][name] for n in chosen] for name in described[chosen[0]]})


def _threads(export: Export) -> dict[tuple[int, int], list[Call]]:
    """The NCCL calls of each thread by start; empty where not one range has a payload."""
    there = export.columns("NVTX_EVENTS")
    if not there >= {"start", "end", "globalTid", "textId", "domainId", "binaryData"}:
        return {}
    domains = export.rows("SELECT DISTINCT domainId FROM NVTX_EVENTS WHERE binaryData IS NOT NULL")
    listed = ", ".join(str(int(row[0])) for row in domains if row[0] is not None)
    name = "COALESCE(n.text, s.value)" if "text" in there else "s.value"
    query = f"""SELECT n.globalTid, n.start, n.end, {name} AS name, n.binaryData FROM NVTX_EVENTS n
        LEFT JOIN StringIds s ON s.id = n.textId
        WHERE n.domainId IN ({listed}) AND n.end IS NOT NULL AND name LIKE 'nccl%' ORDER BY n.start, n.end DESC"""
    schemas = _schemas(export)
    threads: dict[tuple[int, int], list[Call]] = {}
    for thread, start, end, text, blob in export.rows(query):
        key = ((thread >> 24) & TID_MASK, thread & TID_MASK)
        threads.setdefault(key, []).append(Call(start, end, str(text), decoded(blob, schemas)))
    return threads


def _schemas(export: Export) -> Schemas:
    schemas: Schemas = {}
    query = "SELECT DISTINCT schemaId, name, type, COALESCE(offset, 0) FROM NVTX_PAYLOAD_SCHEMA_ENTRIES"
    for schema, name, kind, offset in export.rows(query):
        if kind in FIELDS:
            schemas.setdefault(schema, []).append((str(name), FIELDS[kind], offset))
    return schemas


def decoded(blob: Any, schemas: Schemas) -> dict[str, int]:
    """The fields of a payload by name; empty where there is none, its schema is not known, or it is cut short."""
    if not isinstance(blob, bytes) or len(blob) < HEADER.size:
        return {}
    _, _, schema, _, length, _ = HEADER.unpack_from(blob)
    payload = blob[HEADER.size : HEADER.size + length]
    fields = schemas.get(schema, [])
    return {name: form.unpack_from(payload, at)[0] for name, form, at in fields if at + form.size <= len(payload)}


def _group_sizes(threads: dict[tuple[int, int], list[Call]]) -> dict[int, int]:
    """Communicator -> its ranks, where its initialisation was recorded."""
    calls = [call for of_thread in threads.values() for call in of_thread if call.get(RANKS) > 0]
    return {call.get(COMMUNICATOR): call.get(RANKS) for call in calls}


def _place(calls: list[Call], at: int) -> int:
    """The innermost range of the thread in which ``at`` lies, by its place; -1 where there is none."""
    last = bisect_right(calls, at, key=lambda call: call.start) - 1
    return next((place for place in range(last, max(last - DEEPEST, -1), -1) if calls[place].end >= at), -1)


def _members(calls: list[Call], place: int) -> list[Call]:
    """The calls that a range launches: itself, or those of its group."""
    if calls[place].name != END:
        return [calls[place]]
    depth, members = 1, []
    for call in reversed(calls[:place]):
        depth += (call.name == END) - (call.name == START)
        if not depth:
            break
        if call.get(SIZE) >= 0:
            members.append(call)
    return members[::-1]


def _described(members: list[Call], kernels: int, sizes: dict[int, int]) -> list[dict[str, Any]]:
    """What each of a group's kernels moves: one moves all; as many as there are calls, each one; else it is not known."""
    parts = [members] if kernels == 1 else [[m] for m in members]
    if len(parts) != kernels or not members:
        return [{}] * kernels
    return [_message(part, sizes) for part in parts]


def _message(calls: list[Call], sizes: dict[int, int]) -> dict[str, Any]:
    """The row of one kernel; {} where its calls belong to different communicators."""
    names, communicators = {c.name for c in calls}, {c.get(COMMUNICATOR) for c in calls}
    if len(communicators) > 1:
        return {}
    communicator = communicators.pop()
    exchange = names <= set(POINT_TO_POINT)
    size = _exchanged(calls) if exchange else sum(c.get(SIZE) for c in calls) if len(names) == 1 else -1
    name = "ncclSendRecv" if exchange else sorted(names)[0] if len(names) == 1 else ""
    return {
        "collective": name, "group": f"{communicator:016x}" if communicator > 0 else "", "group_size": sizes.get(communicator, -1),
        "bytes": size if size > 0 else -1, "per_rank": int(name in SHARES),
        "peers": len({c.get(PEER) for c in calls if c.get(PEER) >= 0}) if exchange else -1,
    }  # fmt: skip


def _exchanged(calls: list[Call]) -> int:
    """The larger of what the sends and what the receives of a group move."""
    return max(sum(c.get(SIZE) for c in calls if c.name == name and c.get(SIZE) > 0) for name in POINT_TO_POINT)
