"""One device of a trace, prepared once so that any number of windows can be cut from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd

from moeprof.analysis.host_calls import HostCalls, at
from moeprof.analysis.intervals import EARLY, LATE, Times, Union, both, union
from moeprof.trace import Trace
from moeprof.trace.classify import BLOCKING, COMMUNICATION, PEER_COPY, Classes, communication_class

# Owners of a nanosecond, by precedence. A CUDA graph that was traced as a whole is compute: nothing else can be known.
COMPUTE, COMM, COPY, MIGRATION, MEMSET = ("kernel", "graph"), ("comm",), ("copy",), ("migration",), ("memset",)
KERNELS = ("kernel", "comm")  # of compute and of communication
PRECEDENCE = (COMPUTE, COMM, COPY, MIGRATION, MEMSET)
LEAST_COMPUTE = 0.05  # of a stream's work, or of all kernels: below both its kernels are signals between copies


@dataclass(frozen=True)
class DeviceView:
    """The operations of one device, sorted by start, with the host calls of the whole trace."""

    index: int
    ops: pd.DataFrame
    calls: pd.DataFrame
    streams: Mapping[tuple[int, int, int], str] = field(default_factory=dict)
    classes: Classes = COMMUNICATION
    known: dict[str, Any] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )  # results that need the trace too

    @cached_property
    def owners(self) -> tuple[Union, ...]:
        """The unions of K, N, C, M and S."""
        return tuple(self.union_of(one_of(self.ops["kind"], kinds)) for kinds in PRECEDENCE)

    @cached_property
    def reaches(self) -> tuple[Union, ...]:
        """The unions of K, of K u N, of K u N u C, and so on."""
        return tuple(accumulate(self.owners, both))

    @property
    def busy(self) -> Union:
        """The union of everything."""
        return self.reaches[-1]

    @property
    def working(self) -> Union:
        """K u N: what a copy can hide under."""
        return self.reaches[1]

    @cached_property
    def graphs(self) -> Union:
        """Replays of CUDA graphs that were traced whole."""
        return self.union_of(one_of(self.ops["kind"], ("graph",)))

    @cached_property
    def starts(self) -> Times:
        """Start of each operation."""
        return self.ops["start_ns"].to_numpy()

    @cached_property
    def ends(self) -> Times:
        """End of each operation."""
        return self.ops["end_ns"].to_numpy()

    @cached_property
    def call_starts(self) -> Times:
        """Start of the call that launched each operation; the smallest integer where it is not known."""
        return at(self.host.starts, self.call)

    @cached_property
    def call_ends(self) -> Times:
        """End of that call."""
        return at(self.host.ends, self.call)

    @cached_property
    def host(self) -> HostCalls:
        """The host calls, prepared."""
        return HostCalls(self.calls)

    @cached_property
    def in_graph(self) -> np.ndarray:
        """Which operations a CUDA graph launched: by their node, or (Kineto names no node) by their launch call."""
        call = self.call
        by_node = (self.ops["graph_node"] >= 0).to_numpy()
        if not len(self.calls):
            return by_node
        return by_node | ((self.calls["kind"] == "graph_launch").to_numpy()[call] & (call >= 0))

    @cached_property
    def previous_end(self) -> Times:
        """Latest end of any earlier operation of the same stream; the smallest integer where there is none."""
        reach = self.ops.groupby(["context", "stream"], sort=False)["end_ns"].cummax()
        shifted = reach.groupby([self.ops["context"], self.ops["stream"]], sort=False).shift()
        return shifted.fillna(EARLY).astype("int64").to_numpy() if len(self.ops) else reach.to_numpy()

    @cached_property
    def is_copy(self) -> np.ndarray:
        """Explicit copies."""
        return (self.ops["kind"] == "copy").to_numpy()

    @cached_property
    def is_kernel(self) -> np.ndarray:
        """Compute and communication kernels."""
        return one_of(self.ops["kind"], KERNELS)

    @cached_property
    def communication(self) -> np.ndarray:
        """The class of each operation that moves data between GPUs, as text; "" for the others."""
        names, kinds = self.ops["name"].cat, self.ops["kind"]
        labels = np.array(
            [communication_class(str(n), self.classes) or "" for n in names.categories] + [""], dtype=object
        )
        of_kernels = np.where((kinds == "comm").to_numpy(), labels[names.codes.to_numpy()], "").astype(object)
        return np.where(self.is_copy & (self.direction == "P2P"), PEER_COPY, of_kernels)

    @cached_property
    def communicates(self) -> bool:
        """Whether anything moves data between GPUs."""
        return bool((self.ops["kind"] == "comm").any() or (self.ops["direction"] == "P2P").any())

    @cached_property
    def direction(self) -> np.ndarray:
        """Direction of each copy, as text."""
        return texts(self.ops["direction"])

    @cached_property
    def pageable(self) -> np.ndarray:
        """Whether either side of a copy is pageable host memory."""
        return ((self.ops["src_memory"] == "pageable") | (self.ops["dst_memory"] == "pageable")).to_numpy()

    @cached_property
    def queue(self) -> np.ndarray:
        """One number for each stream (of a process and context) of the operations."""
        return self.ops.groupby(["pid", "context", "stream"], sort=False).ngroup().to_numpy()

    @cached_property
    def stream_kind(self) -> np.ndarray:
        """ "null", "blocking", "nonblocking" for each operation's stream, "" where the trace does not contain it."""
        if not len(self.ops):
            return np.empty(0, dtype=object)
        first = np.unique(self.queue, return_index=True)[1]
        rows = self.ops.iloc[first][["pid", "context", "stream"]].itertuples(index=False, name=None)
        return np.array([self.streams.get(key, "") for key in rows], dtype=object)[self.queue]

    @cached_property
    def legacy_ordered(self) -> np.ndarray:
        """Operations that the legacy default stream orders against the kernels: one side is in it, the other in a
        stream that was made without cudaStreamNonBlocking."""
        kind, kernels = self.stream_kind, set(self.stream_kind[self.is_kernel & ~self.in_graph])
        on_null, on_blocking = kind == "null", kind == "blocking"
        return ((on_null & ("blocking" in kernels)) | (on_blocking & ("null" in kernels))) & ~self.in_graph

    @cached_property
    def signatures(self) -> Times:
        """One small integer for each kind of operation: its name, launch shape, and the power of two of its bytes."""
        ops = self.ops
        size = np.frexp(np.maximum(ops["bytes"].to_numpy(), 0).astype(float))[1]
        keys = [
            ops["kind"].cat.codes,
            ops["name"].cat.codes,
            size,
            ops["grid_x"],
            ops["grid_y"],
            ops["grid_z"],
            ops["block_x"],
        ]
        mixed = np.zeros(len(ops), dtype=np.uint64)
        for key in keys:
            mixed = (mixed ^ np.asarray(key).astype(np.int64).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        return pd.factorize(mixed)[0].astype(np.int64) if len(ops) else np.empty(0, np.int64)

    @cached_property
    def host_waited(self) -> np.ndarray:
        """Operations that their thread waited for in a blocking call before it launched any kernel more."""
        return host_waited(self)

    def union_of(self, mask: np.ndarray) -> Union:
        """The union of the operations that ``mask`` selects."""
        return union(self.starts[mask], self.ends[mask])

    @cached_property
    def call(self) -> Times:
        """Row of each operation's launch call, or -1."""
        return self.ops["call"].to_numpy()

    @cached_property
    def kernel_queues(self) -> Times:
        """The streams that compute: those with kernels outside CUDA graphs. A copy stream that also runs a few tiny signalling
        kernels is none (threshold: LEAST_COMPUTE of the stream's work, or of all kernels)."""
        streams, place = np.unique(self.queue, return_inverse=True)
        outside_graphs = self.is_kernel & ~self.in_graph
        spent = (self.ends - self.starts).astype(float)
        computed = np.bincount(place[outside_graphs], spent[outside_graphs], len(streams))
        least = LEAST_COMPUTE * np.minimum(np.bincount(place, spent, len(streams)), spent[outside_graphs].sum())
        return streams[(np.bincount(place[outside_graphs], minlength=len(streams)) > 0) & (computed >= least)]

    @cached_property
    def copies_by_direction(self) -> dict[str, tuple[Times, Times]]:
        """For each direction the rows of its copies, and the latest end of those before each; very early for the first."""
        rows = np.flatnonzero(self.is_copy)
        unions = {}
        for direction in np.unique(self.direction[rows].astype(str)):
            alike = rows[self.direction[rows] == direction]
            reach = np.concatenate([[EARLY // 2], np.maximum.accumulate(self.ends[alike])[:-1]])
            unions[str(direction)] = (alike, reach)
        return unions

    @cached_property
    def _reach(self) -> Times:
        return np.maximum.accumulate(self.ends) if len(self.ends) else self.ends

    def overlapping(self, start: int, end: int) -> Times:
        """Rows of the operations that run inside [start, end)."""
        low, high = np.searchsorted(self._reach, start, side="right"), np.searchsorted(self.starts, end, side="left")
        rows = np.arange(low, high)
        return rows[self.ends[rows] > start]

    def starting(self, start: int, end: int) -> Times:
        """Rows of the operations that start inside [start, end)."""
        return np.arange(*np.searchsorted(self.starts, [start, end], side="left"))


def one_of(column: pd.Series, wanted: Collection[str]) -> np.ndarray:
    """A mask: where a categorical column has one of the ``wanted`` texts."""
    hits = np.array([*column.cat.categories.isin(list(wanted)), False], dtype=bool)
    return np.asarray(hits[column.cat.codes.to_numpy()])


def texts(column: pd.Series) -> np.ndarray:
    """A categorical column as an array of its texts."""
    return np.asarray(column.cat.categories.to_numpy(dtype=object)[column.cat.codes.to_numpy()])


def views(trace: Trace, device: int | None = None) -> tuple[DeviceView, ...]:
    """One view for each device that has operations (or for ``device`` alone), by index."""
    devices = sorted(set(trace.ops["device"])) if device is None else [device]
    ops = [trace.ops if len(devices) == 1 and device is None else trace.ops[trace.ops["device"] == i] for i in devices]
    return tuple(
        DeviceView(i, rows.reset_index(drop=True), trace.calls, trace.streams, trace.classes)
        for i, rows in zip(devices, ops, strict=True)
    )


def main_device(devices: Sequence[DeviceView]) -> DeviceView | None:
    """The device with most operations, the first of equals; None where there is no device."""
    return max(devices, key=lambda view: len(view.ops), default=None)


def host_waited(view: DeviceView) -> np.ndarray:
    """For each operation whether, after its launch call, its thread blocked until it had ended before the next launch."""
    call = view.call
    waited = np.zeros(len(call), dtype=bool)
    if not len(view.calls):
        return waited
    starts, ends = view.host.starts, view.host.ends
    blocks, launches = view.host.of(*BLOCKING), view.host.of("launch", "graph_launch")
    waited |= (call >= 0) & blocks[call]
    of_call = view.host.thread
    for thread in np.unique(of_call[blocks]):
        of_thread = np.flatnonzero((call >= 0) & (of_call[call] == thread))
        waits, launched = (np.flatnonzero(chosen & (of_call == thread)) for chosen in (blocks, launches))
        place = np.searchsorted(starts[waits], view.call_ends[of_thread])
        wait = np.append(waits, -1)[place]
        launch = np.append(starts[launched], LATE)[np.searchsorted(starts[launched], view.call_ends[of_thread])]
        waited[of_thread] |= (wait >= 0) & (starts[wait] < launch) & (ends[wait] >= view.ends[of_thread])
    return waited
