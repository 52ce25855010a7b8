"""Read a torch.profiler (Kineto) JSON trace: the only place that knows its categories and argument names.

Times are microseconds with decimals around 1e12, more digits than a float holds: they are parsed as text. Where the
trace has no GPU activity, CPU operators stand in for kernels and copies, a lane a thread.
"""

from __future__ import annotations

import gzip
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moeprof.errors import TraceError
from moeprof.notes import note
from moeprof.trace import classify
from moeprof.trace.classify import Classes
from moeprof.trace.kineto import messages
from moeprof.trace.origin import of_document
from moeprof.trace.tables import CALLS, MEMORY, OPS, RANGES, Device, Trace, table

GZIP_MAGIC = b"\x1f\x8b"
ALLOCATION, CUDA_DEVICE = "[memory]", 1  # the event of an allocation, and the type of a device that is a GPU in it
GPU_CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset")
PIECE, LEAST_UNPACKED = 1 << 24, 1 << 26  # characters
UNPACKED_RATIO = 100  # real traces unpack to 10 to 30 times their size
CALL_CATEGORIES = ("cuda_runtime", "cuda_driver")
FAR = 1 << 61  # ns, some 73 years: a time or number beyond it is damage
COPY_OPERATORS = ("aten::copy_",)
_COPY_NAME = re.compile(r"Memcpy (\w)to(\w)(?: \((\w+) -> (\w+)\))?", re.IGNORECASE)
_OURS = re.compile(r"^moeprof:(?P<name>.*?)(?::(?P<payload>\d+))?$")
_SIDES = {"HH": "H2H", "HD": "H2D", "DH": "D2H", "DD": "D2D", "PP": "P2P", "HA": "H2D", "AH": "D2H"}

Event = dict[str, Any]


def read_kineto(path: Path, classes: Classes = classify.COMMUNICATION) -> Trace:
    """The tables of the Kineto trace at ``path`` (JSON or gzipped JSON).

    Raises:
        TraceError: it is not JSON, or has no list of events.
    """
    document, events, zero = _events(path)
    allocations = [
        _timed(path, i, e)
        for i, e in enumerate(document["traceEvents"])
        if isinstance(e, dict) and e.get("name") == ALLOCATION and "ts" in e
    ]
    calls = _calls([e for e in events if e.get("cat") in CALL_CATEGORIES], zero)
    gpu = [e for e in events if e.get("cat") in GPU_CATEGORIES]
    ops = (
        _joined(_gpu_ops(gpu, zero, classes), calls)
        if gpu
        else _cpu_ops([e for e in events if e.get("cat") == "cpu_op"], zero)
    )
    return Trace(
        path=path,
        kind="kineto",
        producer="Kineto",
        schema=str(document.get("schemaVersion")) if "schemaVersion" in document else None,
        ops=ops,
        calls=calls,
        ranges=_ranges([e for e in events if e.get("cat") == "user_annotation"], zero),
        devices=_devices(document) if gpu else (Device(0, "CPU"),),
        notes=() if gpu else (note("cpu-operators"),),
        classes=classes,
        messages=messages.of_events(gpu, zero),
        origin=of_document(document, zero),
        memory=_memory(allocations, zero),
    )


def operators(path: Path) -> pd.DataFrame:
    """The outermost CPU operators of the trace at ``path``, also where there is GPU activity: start_ns, end_ns, tid, name,
    by thread and start; times as ``read_kineto`` gives them. Raises as it does."""
    _, events, zero = _events(path)
    return _outermost([e for e in events if e.get("cat") == "cpu_op"], zero)


def _events(path: Path) -> tuple[dict[str, Any], list[Event], int]:
    """The document, its events that have a duration, and the time that all others count from."""
    document = _load(path)
    events = [
        _timed(path, i, e)
        for i, e in enumerate(document["traceEvents"])
        if isinstance(e, dict) and e.get("ph") == "X" and "ts" in e
    ]
    return document, events, min((e["start"] for e in events), default=0)


def opened(path: Path) -> Any:
    """The file as text, unpacked where it is gzipped."""
    with path.open("rb") as file:
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    return gzip.open(path, "rt", encoding="utf-8") if packed else path.open(encoding="utf-8")


def _load(path: Path) -> dict[str, Any]:
    try:
        with opened(path) as file:
            document = json.loads(_bounded(path, file), parse_float=str)
    except (ValueError, OSError, EOFError) as error:
        raise TraceError(f"{path} is not a whole JSON file: {error}", "record it again") from error
    if isinstance(document, list):
        document = {"traceEvents": document}
    if not isinstance(document, dict) or not isinstance(document.get("traceEvents"), list):
        raise TraceError(f"{path} is JSON but has no list traceEvents", "give a trace that torch.profiler exported")
    return document


def _bounded(path: Path, file: Any) -> str:
    """The whole text, unless it unpacks to far more than any trace does (a gzip bomb)."""
    most = max(LEAST_UNPACKED, UNPACKED_RATIO * path.stat().st_size)
    parts, size = [], 0
    while part := file.read(PIECE):
        parts.append(part)
        size += len(part)
        if size > most:
            raise TraceError(
                f"{path} unpacks to more than {UNPACKED_RATIO} times its size: it is no trace", "record it again"
            )
    return "".join(parts)


def _ns(value: str | int) -> int:
    """Microseconds as written (text with decimals, or a whole number) in whole nanoseconds."""
    if isinstance(value, int):
        return value * 1000
    whole, _, decimals = value.partition(".")
    if not (decimals.isdigit() or decimals == "") or "e" in whole.lower():
        return int(Decimal(value) * 1000)
    sign = -1 if whole.startswith("-") else 1
    return int(whole) * 1000 + sign * int((decimals + "000")[:3])


def _timed(path: Path, index: int, event: Event) -> Event:
    """The event with start and end in whole ns, a text as its name and an object as its arguments.

    Raises:
        TraceError: a time is no number, or lies beyond what 64 bits of nanoseconds hold.
    """
    try:
        start, duration = _ns(event["ts"]), _ns(event.get("dur", 0))
    except (TypeError, ValueError, ArithmeticError, AttributeError):
        start = duration = FAR
    if abs(start) + abs(duration) >= FAR:
        raise TraceError(
            f"{path}: event {index} has ts {str(event['ts'])[:40]!r} and dur {str(event.get('dur'))[:40]!r}",
            "record it again",
        )
    args, cat = event.get("args"), event.get("cat")
    plain = {
        "name": str(event.get("name", "")),
        "cat": cat if isinstance(cat, str) else "",
        "args": args if isinstance(args, dict) else {},
    }
    return event | plain | {"start": start, "end": start + duration}


def _times(events: list[Event], zero: int) -> dict[str, list[int]]:
    return {"start_ns": [e["start"] - zero for e in events], "end_ns": [e["end"] - zero for e in events]}


def _argument(events: list[Event], *names: str, default: int = -1) -> list[int]:
    """The first of ``names`` that an event's arguments hold, as a whole number."""
    return [_whole(next((a[n] for n in names if n in a), default)) for a in (e["args"] for e in events)]


def _whole(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return -1
    return number if abs(number) < FAR else -1


def _gpu_ops(events: list[Event], zero: int, classes: Classes) -> pd.DataFrame:
    copies = [_copy(e) if e["cat"] == "gpu_memcpy" else ("", "", "") for e in events]
    names = [
        direction or ("memset" if e["cat"] == "gpu_memset" else e["name"])
        for e, (direction, _, _) in zip(events, copies, strict=True)
    ]
    shapes = {
        f"{kind}_{axis}": [_axis(e, kind, i) for e in events]
        for kind in ("grid", "block")
        for i, axis in enumerate("xyz")
    }
    columns = {
        **_times(events, zero), **shapes, "kind": [_kind(e, classes) for e in events], "name": names,
        "device": _argument(events, "device", default=0), "stream": _argument(events, "stream"),
        "context": _argument(events, "context"), "correlation": _argument(events, "correlation"),
        "bytes": _argument(events, "bytes"), "graph_node": [n if n > 0 else -1 for n in _argument(events, "graph node id")],
        "registers": _argument(events, "registers per thread"), "dynamic_shared_bytes": _argument(events, "shared memory"),
        "direction": [c[0] for c in copies], "src_memory": [c[1] for c in copies], "dst_memory": [c[2] for c in copies],
    }  # fmt: skip
    return table(OPS, columns)


def _memory(events: list[Event], zero: int) -> pd.DataFrame:
    """What PyTorch's allocator of each GPU did (``profile_memory=True``), in the order of time."""
    events = sorted(
        (e for e, kind in zip(events, _argument(events, "Device Type"), strict=True) if kind == CUDA_DEVICE),
        key=lambda e: int(e["start"]),
    )
    columns = {
        "time_ns": [e["start"] - zero for e in events], "device": _argument(events, "Device Id", default=0),
        "bytes": _argument(events, "Bytes", default=0), "allocated_bytes": _argument(events, "Total Allocated"),
        "reserved_bytes": _argument(events, "Total Reserved"),
    }  # fmt: skip
    return table(MEMORY, columns)


def _kind(event: Event, classes: Classes) -> str:
    if event["cat"] == "gpu_memcpy":
        return "copy"
    if event["cat"] == "gpu_memset":
        return "memset"
    return classify.kernel_kind(event["name"], classes)


def _copy(event: Event) -> tuple[str, str, str]:
    match = _COPY_NAME.search(event["name"])
    if match is None:
        return "other", "other", "other"
    source, target, src_memory, dst_memory = match.groups()
    return (
        _SIDES.get((source + target).upper(), "other"),
        (src_memory or "other").lower(),
        (dst_memory or "other").lower(),
    )


def _axis(event: Event, kind: str, index: int) -> int:
    shape = event["args"].get(kind)
    return _whole(shape[index]) if isinstance(shape, list) and len(shape) > index else -1


def _calls(events: list[Event], zero: int) -> pd.DataFrame:
    names = [classify.call_name(e["name"]) for e in events]
    columns = {
        **_times(events, zero), "pid": [_whole(e.get("pid")) for e in events], "tid": [_whole(e.get("tid")) for e in events],
        "name": names, "correlation": _argument(events, "correlation"), "kind": [classify.call_kind(n) for n in names],
    }  # fmt: skip
    return table(CALLS, columns)


def _ranges(events: list[Event], zero: int) -> pd.DataFrame:
    ours = [_OURS.match(e["name"]) for e in events]
    columns = {
        **_times(events, zero), "pid": [_whole(e.get("pid")) for e in events], "tid": [_whole(e.get("tid")) for e in events],
        "end_tid": [_whole(e.get("tid")) for e in events], "domain": ["moeprof" if m else "" for m in ours],
        "name": [m["name"] if m else e["name"] for m, e in zip(ours, events, strict=True)],
        "payload": [int(m["payload"]) if m and m["payload"] else -1 for m in ours], "style": ["pushpop"] * len(events),
    }  # fmt: skip
    return table(RANGES, columns)


def _joined(ops: pd.DataFrame, calls: pd.DataFrame) -> pd.DataFrame:
    """Correlation ids are unique in one Kineto trace; the process of an operation is that of its call."""
    first = calls[calls["correlation"] >= 0].drop_duplicates("correlation")
    rows = pd.Series(first.index, index=first["correlation"])
    call = ops["correlation"].map(rows).fillna(-1).astype("int64")
    pids = calls["pid"].to_numpy()
    pid = np.where(call >= 0, pids[call], -1) if len(pids) else np.full(len(ops), -1)
    return ops.assign(call=call, pid=pid.astype("int64"))


def _cpu_ops(events: list[Event], zero: int) -> pd.DataFrame:
    """Operators that no other operator of their thread encloses; copies by their name, a stream a thread."""
    top = _outermost(events, zero)
    copy = top["name"].isin(COPY_OPERATORS)
    columns = {
        "start_ns": top["start_ns"], "end_ns": top["end_ns"], "name": top["name"].where(~copy, "H2H"),
        "kind": np.where(copy, "copy", "kernel"), "device": [0] * len(top), "stream": pd.factorize(top["tid"], sort=True)[0],
        "direction": np.where(copy, "H2H", ""), "src_memory": np.where(copy, "host", ""), "dst_memory": np.where(copy, "host", ""),
    }  # fmt: skip
    return table(OPS, {name: list(values) for name, values in columns.items()})


def _outermost(events: list[Event], zero: int) -> pd.DataFrame:
    """The operators that no other one of their thread encloses."""
    frame = pd.DataFrame(
        {**_times(events, zero), "name": [e["name"] for e in events], "tid": [_whole(e.get("tid")) for e in events]}
    )
    frame = frame.astype({"start_ns": "int64", "end_ns": "int64", "tid": "int64"})
    frame = frame.sort_values(["tid", "start_ns", "end_ns"], ascending=[True, True, False], kind="stable")
    ended_before = frame.groupby("tid")["end_ns"].cummax().groupby(frame["tid"]).shift(fill_value=-1)
    return frame[frame["start_ns"] >= ended_before]


def _devices(document: dict[str, Any]) -> tuple[Device, ...]:
    devices = document.get("deviceProperties") or []
    return tuple(
        Device(_whole(d.get("id")), d.get("name"), None, _whole(d.get("numSms")) if "numSms" in d else None)
        for d in devices
    )
