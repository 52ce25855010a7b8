"""The tables of a Trace and their columns, documented once.

Times are int64 nanoseconds from the capture's own zero. Rows are sorted by (start_ns, end_ns). Integers that are not
known are -1, texts that are not known are "". A table always has all its columns, also when it is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from moeprof.notes import Note
from moeprof.trace.classify import COMMUNICATION, Classes

MOST_INT32 = np.iinfo(np.int32).max

# Work on the device, one row an operation.
#   kind         "kernel" compute kernel, "comm" communication kernel, "copy" explicit copy, "migration" UVM migration,
#                "memset", "graph" a CUDA graph replay that was traced as a whole (its kernels are not known)
#   name         kernel: demangled name as `nsys stats cuda_gpu_kern_sum` groups it; copies: "H2D" and so on
#   pid, context whose work it is; correlation: joins to its launch call, with pid; call: row of `calls`, or -1
#   direction    copies and migrations: H2D D2H D2D P2P H2H or other; src_memory, dst_memory: pageable pinned device
#                managed array other
#   graph_node   node id where a CUDA graph launched it, else -1
#   grid, block  launch shape; registers per thread; shared memory in bytes
OPS: dict[str, str] = {
    "start_ns": "int64", "end_ns": "int64", "device": "int32", "stream": "int32", "kind": "category", "name": "category",
    "pid": "int32", "context": "int32", "correlation": "int64", "call": "int64", "bytes": "int64", "direction": "category",
    "src_memory": "category", "dst_memory": "category", "graph_node": "int64",
    "grid_x": "int32", "grid_y": "int32", "grid_z": "int32", "block_x": "int32", "block_y": "int32", "block_z": "int32",
    "registers": "int32", "static_shared_bytes": "int32", "dynamic_shared_bytes": "int32",
}  # fmt: skip

# Host calls into the CUDA runtime and driver, one row a call.
#   kind  "launch" (a kernel), "graph_launch", "copy", "memset", "sync" (blocks the host), "event", "alloc", "other"
CALLS: dict[str, str] = {
    "start_ns": "int64", "end_ns": "int64", "pid": "int32", "tid": "int32", "name": "category", "correlation": "int64",
    "kind": "category",
}  # fmt: skip

# NVTX (or profiler) ranges, one row an instance that was closed inside the trace.
#   tid, end_tid  the threads that opened and closed it; style "pushpop" or "startend"; payload: its number, or -1
RANGES: dict[str, str] = {
    "start_ns": "int64", "end_ns": "int64", "pid": "int32", "tid": "int32", "end_tid": "int32", "domain": "category",
    "name": "category", "payload": "int64", "style": "category",
}  # fmt: skip

# Time that the profiler itself took on a thread.
OVERHEADS: dict[str, str] = {"start_ns": "int64", "end_ns": "int64", "pid": "int32", "tid": "int32", "name": "category"}

# Hardware counters, long form, one row per kernel and metric (ncu).
#   launch  ordinal of the kernel in its report; value in `unit`, base units
COUNTERS: dict[str, str] = {
    "launch": "int64", "kernel": "category", "device": "int64", "stream": "int64", "grid": "category", "block": "category",
    "metric": "category", "unit": "category", "value": "float64",
}  # fmt: skip

# What the trace says of a collective's message, one row an operation that it says it of (nsys: from NCCL's own ranges; Kineto:
# from the kernel's arguments). (device, stream, start_ns) name the operation.
#   collective  what the program called ("ncclAllReduce", "all_to_allv"); group: the communicator or process group, the same on
#               all its ranks; group_size
#   bytes       of the message, the larger of input and output; per_rank 1 where that is one rank's share of the whole
#   peers       ranks that it sends to or receives from, in a group of sends and receives; sequence: its number
MESSAGES: dict[str, str] = {
    "start_ns": "int64", "end_ns": "int64", "device": "int32", "stream": "int32", "collective": "category", "group": "category",
    "group_size": "int64", "bytes": "int64", "per_rank": "int32", "peers": "int64", "sequence": "int64",
}  # fmt: skip

# Allocations and frees of device memory, one row each, in the order of time.
#   bytes      freed ones are negative; allocated_bytes, reserved_bytes: what is in use and what PyTorch's allocator holds after it,
#              -1 where the profiler does not record it
MEMORY: dict[str, str] = {
    "time_ns": "int64", "device": "int32", "bytes": "int64", "allocated_bytes": "int64", "reserved_bytes": "int64",
}  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """Where a trace comes from, as far as its file contains it.

    Args:
        rank, world_size: of the process.
        rank_source: what the rank is from; empty where it is not known.
        zero_utc_ns: the trace's own zero in ns since 1970, by its host's clock.
    """

    rank: int | None = None
    world_size: int | None = None
    rank_source: str = ""
    zero_utc_ns: int | None = None


@dataclass(frozen=True)
class Device:
    """A device of the trace; ``memory_bytes_per_s`` and ``sm_count`` as the profiler recorded them, where it did."""

    index: int
    name: str | None = None
    memory_bytes_per_s: int | None = None
    sm_count: int | None = None


@dataclass(frozen=True)
class Trace:
    """Tables of one trace. ``kind`` says which reader made it; ``producer`` "nsys 2025.3.1"; ``schema`` "3.20.3".

    ``streams`` maps (pid, context, stream) to "null" (the legacy default stream), "blocking" (made by cudaStreamCreate:
    waits for the null stream) or "nonblocking", where the profiler recorded it.
    """

    path: Path
    kind: Literal["nsys", "kineto"]
    producer: str | None
    schema: str | None
    ops: pd.DataFrame
    calls: pd.DataFrame
    ranges: pd.DataFrame
    devices: tuple[Device, ...] = ()
    notes: tuple[Note, ...] = field(default=())
    streams: Mapping[tuple[int, int, int], str] = field(default_factory=dict)
    overheads: pd.DataFrame = field(default_factory=lambda: table(OVERHEADS, {}))
    classes: Classes = COMMUNICATION
    messages: pd.DataFrame = field(default_factory=lambda: table(MESSAGES, {}))
    origin: Origin = Origin()
    memory: pd.DataFrame = field(default_factory=lambda: table(MEMORY, {}))


def table(columns: dict[str, str], data: dict[str, Any]) -> pd.DataFrame:
    """A table with exactly ``columns``: missing ones are filled with -1 or "", rows are sorted by time.

    Args:
        columns: OPS, CALLS, RANGES or COUNTERS.
        data: column -> values of equal length (lists, arrays or categoricals); at least one column must be given.
    """
    length = len(next(iter(data.values()))) if data else 0
    arrays = {name: _column(data.get(name), dtype, length) for name, dtype in columns.items()}
    if "start_ns" in columns:
        order = time_order(arrays["start_ns"], arrays["end_ns"])
        arrays = arrays if order is None else {name: array[order] for name, array in arrays.items()}
    return pd.DataFrame(arrays, copy=False)


def _column(values: Any, dtype: str, length: int) -> Any:
    if isinstance(values, pd.Categorical):
        return values
    if dtype == "category":
        return one_text("", length) if values is None else pd.Categorical(np.asarray(values, dtype=object))
    if values is None:
        return np.full(length, -1, dtype=dtype)
    array = np.asarray(values)
    return small(array) if dtype == "int32" else array.astype(dtype, copy=False)


def small(numbers: np.ndarray) -> np.ndarray:
    """Whole numbers as int32; one that does not fit (damage) is not known: -1."""
    if numbers.dtype == np.int32 or not len(numbers):
        return numbers.astype(np.int32, copy=False)
    whole = numbers.astype(np.int64, copy=False)
    fits = (whole <= MOST_INT32) & (whole >= -MOST_INT32)
    return (whole if fits.all() else np.where(fits, whole, -1)).astype(np.int32)


def one_text(text: str, length: int) -> pd.Categorical:
    """A column of one text."""
    return pd.Categorical.from_codes(np.zeros(length, dtype=np.int8), categories=pd.Index([text], dtype=object))


def time_order(starts: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
    """The order by (start, end); None where the rows are in it already."""
    later, same = starts[1:] > starts[:-1], starts[1:] == starts[:-1]
    return None if (later | (same & (ends[1:] >= ends[:-1]))).all() else np.lexsort((ends, starts))
