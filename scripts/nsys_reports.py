"""Ten reports of `nsys stats`: their rows, and the same rows from the tables of moeprof. Used by compare_with_nsys.py; not a command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from moeprof.analysis.launch import executions
from moeprof.analysis.projection import projected
from moeprof.trace import Trace

Rows = Counter[tuple[str | int, ...]]
OPERATIONS = {
    "H2D": "Host-to-Device",
    "D2H": "Device-to-Host",
    "D2D": "Device-to-Device",
    "P2P": "Peer-to-Peer",
    "H2H": "Host-to-Host",
}


def cell(row: dict[str, str], name: str) -> str:
    """A cell by the beginning of its column's name: units follow in brackets. Raises KeyError where there is no such column."""
    for key, value in row.items():
        if key == name or key.startswith(name + " ("):
            return value
    raise KeyError(name)


def whole(text: str) -> int:
    """A whole number; -1 where the cell is empty."""
    return int(float(text.replace(",", ""))) if text.strip() else -1


def kern_sum(rows: list[dict[str, str]]) -> Rows:
    """name, instances, total, twice the median (so that it is whole), min, max."""
    return Counter((cell(r, "Name"), *_times(r, "Instances")) for r in rows)


def our_kern_sum(trace: Trace) -> Rows:
    """The same from our tables."""
    ops = trace.ops[trace.ops["kind"].isin(["kernel", "comm"])]
    return _sums(ops, ops["name"].astype(str))


def mem_time(rows: list[dict[str, str]]) -> Rows:
    """operation, count, total, twice the median, min, max."""
    return Counter((cell(r, "Operation"), *_times(r, "Count")) for r in rows)


def our_mem_time(trace: Trace) -> Rows:
    """The same from our tables."""
    ops = trace.ops[trace.ops["kind"].isin(["copy", "migration", "memset"])]
    return _sums(ops, ops.apply(operation, axis=1))


def operation(op: pd.Series) -> str:
    """How nsys names a memory operation."""
    if op["kind"] == "memset":
        return "[CUDA memset]"
    kind = "Unified memcpy" if op["kind"] == "migration" else "memcpy"
    return f"[CUDA {kind} {OPERATIONS.get(str(op['direction']), str(op['direction']))}]"


def _times(row: dict[str, str], count: str) -> tuple[int, ...]:
    middle = round(2 * float(cell(row, "Med").replace(",", "")))
    return (
        whole(cell(row, count)),
        whole(cell(row, "Total Time")),
        middle,
        whole(cell(row, "Min")),
        whole(cell(row, "Max")),
    )


def _sums(ops: pd.DataFrame, names: pd.Series) -> Rows:
    spent = (ops["end_ns"] - ops["start_ns"]).groupby(names)
    table = spent.agg(["size", "sum", "median", "min", "max"])
    return Counter(
        (str(n), int(a), int(b), round(2 * c), int(d), int(e)) for n, a, b, c, d, e in table.itertuples(name=None)
    )


def mem_size(rows: list[dict[str, str]]) -> Rows:
    """operation, count, total in kB: nsys prints MB with three decimals."""
    return Counter(
        (cell(r, "Operation"), whole(cell(r, "Count")), round(1000 * float(cell(r, "Total").replace(",", ""))))
        for r in rows
    )


def our_mem_size(trace: Trace) -> Rows:
    """The same from our tables."""
    ops = trace.ops[trace.ops["kind"].isin(["copy", "migration", "memset"])]
    sizes = ops["bytes"].groupby(ops.apply(operation, axis=1))
    return Counter((str(n), int(c), round(s / 1e3)) for n, c, s in sizes.agg(["size", "sum"]).itertuples(name=None))


def kern_exec(rows: list[dict[str, str]]) -> Rows:
    """API start, A, Q (-1: none), kernel start, K, T, device."""
    names = ("API Start", "API Dur", "Queue Dur", "Kernel Start", "Kernel Dur", "Total Dur", "DevId")
    return Counter(tuple(whole(cell(r, n)) for n in names) for r in rows)


def our_kern_exec(trace: Trace) -> Rows:
    """The same from our tables."""
    rows = executions(trace)
    columns = ["api_start_ns", "api_ns", "queue_ns", "kernel_start_ns", "kernel_ns", "total_ns", "device"]
    return Counter(tuple(int(v) for v in row) for row in rows[columns].itertuples(index=False, name=None))


def proj_sum(rows: list[dict[str, str]]) -> Rows:
    """domain:range, instances, projected time, host time, GPU operations."""
    names = ("Range Instances", "Total Proj Time", "Total Range Time", "Total GPU Ops")
    return Counter((cell(r, "Range"), *(whole(cell(r, n)) for n in names)) for r in rows)


def our_proj_sum(trace: Trace) -> Rows:
    """The same from our tables."""
    projections = _projected(trace)
    projections = projections.assign(
        proj=projections["last_ns"] - projections["first_ns"], host=projections["end_ns"] - projections["start_ns"]
    )
    sums = projections.groupby("label").agg(
        n=("proj", "size"), proj=("proj", "sum"), host=("host", "sum"), ops=("gpu_ops", "sum")
    )
    return Counter((str(name), *map(int, row)) for name, *row in sums.itertuples(name=None))


def _projected(trace: Trace) -> pd.DataFrame:
    """Our projections as far as nsys makes them: of instances with work, without replays of graphs that were traced whole,
    and without start/end ranges that end on another thread."""
    ours = projected(replace(trace, ops=trace.ops[trace.ops["kind"] != "graph"].reset_index(drop=True)))
    ours = ours[(ours["gpu_ops"] > 0) & (ours["end_tid"] == ours["tid"])]
    return ours.assign(label=ours["domain"].astype(str) + ":" + ours["name"].astype(str))


def api_sum(rows: list[dict[str, str]]) -> Rows:
    """call, count, total, twice the median, min, max."""
    return Counter((cell(r, "Name"), *_times(r, "Num Calls")) for r in rows)


def our_api_sum(trace: Trace) -> Rows:
    """The same from our tables."""
    return _sums(trace.calls, trace.calls["name"].astype(str))


def exec_sum(rows: list[dict[str, str]]) -> Rows:
    """process, thread, device, count, queued count, then twice the median, min and max of T, A, Q and K."""
    keys = ("PID", "TID", "DevId", "Count", "QCount")
    parts = [(f"{part}Med", f"{part}Min", f"{part}Max") for part in "TAQK"]
    return Counter(
        tuple(whole(cell(r, k)) for k in keys)
        + tuple(
            v for part in parts for v in (_twice(cell(r, part[0])), whole(cell(r, part[1])), whole(cell(r, part[2])))
        )
        for r in rows
    )


def _twice(text: str) -> int:
    return round(2 * float(text.replace(",", ""))) if text.strip() else -1


def our_exec_sum(trace: Trace) -> Rows:
    """The same from our tables."""
    launches = executions(trace)
    launches["queued"] = launches["queue_ns"].where(launches["queue_ns"] >= 0)
    rows = []
    for (pid, tid, device, _, _), part in launches.groupby(["pid", "tid", "device", "api", "name"]):
        numbers = [part[c].dropna() for c in ("total_ns", "api_ns", "queued", "kernel_ns")]
        shown = [(round(2 * n.median()), int(n.min()), int(n.max())) if len(n) else (-1, -1, -1) for n in numbers]
        rows.append((int(pid), int(tid), int(device), len(part), len(numbers[2]), *(v for n in shown for v in n)))
    return Counter(rows)


def proj_trace(rows: list[dict[str, str]]) -> Rows:
    """range, projected start and duration, host start and duration, process, thread, GPU operations."""
    names = ("Projected Start", "Projected Duration", "Orig Start", "Orig Duration", "PID", "TID", "NumGPUOps")
    return Counter((cell(r, "Name"), *(whole(cell(r, n)) for n in names)) for r in rows)


def our_proj_trace(trace: Trace) -> Rows:
    """The same from our tables."""
    projections = _projected(trace)
    parts = (
        projections["first_ns"],
        projections["last_ns"] - projections["first_ns"],
        projections["start_ns"],
        projections["end_ns"] - projections["start_ns"],
    )
    return Counter(
        zip(
            projections["label"],
            *(p.tolist() for p in parts),
            projections["pid"].tolist(),
            projections["tid"].tolist(),
            projections["gpu_ops"].tolist(),
            strict=True,
        )
    )


def range_sum(rows: list[dict[str, str]]) -> Rows:
    """range, instances, total, twice the median, min, max."""
    return Counter((cell(r, "Range"), *_times(r, "Instances")) for r in rows)


def our_range_sum(style: str) -> Callable[[Trace], Rows]:
    """The same from our tables, for push/pop or start/end ranges."""

    def ours(trace: Trace) -> Rows:
        ranges = trace.ranges[trace.ranges["style"] == style]
        return _sums(ranges, ranges["domain"].astype(str) + ":" + ranges["name"].astype(str))

    return ours


REPORTS: dict[str, tuple[Callable[[list[dict[str, str]]], Rows], Callable[[Trace], Rows]]] = {
    "cuda_gpu_kern_sum": (kern_sum, our_kern_sum),
    "cuda_gpu_mem_time_sum": (mem_time, our_mem_time),
    "cuda_gpu_mem_size_sum": (mem_size, our_mem_size),
    "cuda_api_sum": (api_sum, our_api_sum),
    "cuda_kern_exec_sum": (exec_sum, our_exec_sum),
    "cuda_kern_exec_trace": (kern_exec, our_kern_exec),
    "nvtx_gpu_proj_sum": (proj_sum, our_proj_sum),
    "nvtx_gpu_proj_trace": (proj_trace, our_proj_trace),
    "nvtx_pushpop_sum": (range_sum, our_range_sum("pushpop")),
    "nvtx_startend_sum": (range_sum, our_range_sum("startend")),
}
