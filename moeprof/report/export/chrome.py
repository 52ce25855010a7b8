"""Trace -> events of the Chrome trace format, for https://ui.perfetto.dev, in the categories of torch.profiler.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU. Times are microseconds with three decimals, so
that no nanosecond is lost; ``moeprof analyze`` reads the file back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from moeprof.trace import Trace

SIDES = {"H2D": "HtoD", "D2H": "DtoH", "D2D": "DtoD", "P2P": "PtoP", "H2H": "HtoH"}
CATEGORIES = {"kernel": "kernel", "comm": "kernel", "copy": "gpu_memcpy", "memset": "gpu_memset"}
Event = dict[str, Any]


def lines(trace: Trace) -> Iterator[str]:
    """The file, line by line: one event a line."""
    devices = [
        {"id": d.index, "name": d.name or ""} | ({"numSms": d.sm_count} if d.sm_count else {}) for d in trace.devices
    ]
    head = json.dumps({"schemaVersion": 1, "displayTimeUnit": "ns", "deviceProperties": devices}, ensure_ascii=False)
    yield head[:-1] + ', "traceEvents": [\n'
    separator = ""
    for event in events(trace):
        yield separator + json.dumps(event, ensure_ascii=False, allow_nan=False)
        separator = ",\n"
    yield "\n]}\n"


def events(trace: Trace) -> Iterator[Event]:
    """Names of processes and streams, then operations, host calls with an arrow to what they launched, and ranges."""
    yield from _names(trace)
    yield from _ops(trace)
    launching = set(trace.ops["call"])
    for row, (start, end, pid, tid, name) in enumerate(_rows(trace.calls, "start_ns", "end_ns", "pid", "tid", "name")):
        yield _event(name, "cuda_runtime", start, end, pid, tid, {"correlation": row + 1})
        if row in launching:
            yield {
                "ph": "s",
                "id": row + 1,
                "name": "launch",
                "cat": "ac2g",
                "ts": start / 1000,
                "pid": pid,
                "tid": tid,
            }
    yield from _ranges(trace)


def _names(trace: Trace) -> Iterator[Event]:
    known = {d.index: d.name for d in trace.devices}
    for device in sorted(set(trace.ops["device"])):
        name = f"GPU {device} {known.get(device) or ''}".strip()
        yield {"ph": "M", "name": "process_name", "pid": int(device), "tid": 0, "args": {"name": name}}
    for device, stream in sorted(set(zip(trace.ops["device"], trace.ops["stream"], strict=True))):
        label = {"name": f"stream {stream}"}
        yield {"ph": "M", "name": "thread_name", "pid": int(device), "tid": int(stream), "args": label}
    for pid in sorted(set(trace.calls["pid"]) | set(trace.ranges["pid"])):
        yield {"ph": "M", "name": "process_name", "pid": int(pid), "tid": 0, "args": {"name": f"host process {pid}"}}


def _ops(trace: Trace) -> Iterator[Event]:
    columns = list(trace.ops.columns)
    for row in _rows(trace.ops, *columns):
        op = dict(zip(columns, row, strict=True))
        kind, arrow = op["kind"], op["call"] + 1
        args = {
            "device": op["device"], "context": op["context"], "stream": op["stream"], "correlation": arrow or -1, "bytes": op["bytes"],
            "graph node id": op["graph_node"], "registers per thread": op["registers"], "shared memory": op["dynamic_shared_bytes"],
            "grid": [op[f"grid_{axis}"] for axis in "xyz"], "block": [op[f"block_{axis}"] for axis in "xyz"],
        }  # fmt: skip
        name = _copy_name(op) if kind == "copy" else op["name"]
        args = {key: value for key, value in args.items() if value not in (-1, [-1, -1, -1])}
        yield _event(
            name, CATEGORIES.get(kind, f"gpu_{kind}"), op["start_ns"], op["end_ns"], op["device"], op["stream"], args
        )
        if arrow:
            yield {
                "ph": "f", "bp": "e", "id": arrow, "name": "launch", "cat": "ac2g", "ts": op["start_ns"] / 1000, "pid": op["device"], "tid": op["stream"],
            }  # fmt: skip


def _copy_name(op: Event) -> str:
    sides = SIDES.get(op["direction"])
    memory = f" ({op['src_memory'].capitalize()} -> {op['dst_memory'].capitalize()})" if op["src_memory"] else ""
    return f"Memcpy {sides}{memory}" if sides else f"Memcpy {op['direction']}"


def _ranges(trace: Trace) -> Iterator[Event]:
    """Nested ranges are slices of their thread; a start/end range may cross others and is an asynchronous one."""
    columns = ("start_ns", "end_ns", "pid", "tid", "domain", "name", "payload", "style")
    for number, (start, end, pid, tid, domain, name, payload, style) in enumerate(_rows(trace.ranges, *columns)):
        ours = f"moeprof:{name}" + (f":{payload}" if payload >= 0 else "") if domain == "moeprof" else name
        if style == "pushpop":
            yield _event(ours, "user_annotation", start, end, pid, tid, {"domain": domain} if domain else {})
        else:
            same = {"name": ours, "cat": "range", "id": number, "pid": pid, "tid": tid}
            yield same | {"ph": "b", "ts": start / 1000}
            yield same | {"ph": "e", "ts": end / 1000}


def _event(name: str, category: str, start: int, end: int, pid: int, tid: int, args: Event) -> Event:
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "ts": start / 1000,
        "dur": (end - start) / 1000,
        "pid": pid,
        "tid": tid,
        "args": args,
    }


def _rows(table: Any, *columns: str) -> Iterator[tuple[Any, ...]]:
    """Rows as plain Python values."""
    return zip(*(table[name].tolist() for name in columns), strict=True)
