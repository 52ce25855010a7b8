"""One device of a trace, prepared once so that any number of windows can be cut from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import pandas as pd

from moeprof.metrics.intervals import EARLY, Times, Union, both, union
from moeprof.trace import Trace

# Owners of a nanosecond, by precedence. A CUDA graph that was traced as a whole is compute: nothing else can be known.
COMPUTE, COMM, COPY, MIGRATION, MEMSET = ("kernel", "graph"), ("comm",), ("copy",), ("migration",), ("memset",)
PRECEDENCE = (COMPUTE, COMM, COPY, MIGRATION, MEMSET)


@dataclass(frozen=True)
class DeviceView:
    """The operations of one device, sorted by start, with the host calls of the whole trace."""

    index: int
    ops: pd.DataFrame
    calls: pd.DataFrame

    @cached_property
    def owners(self) -> tuple[Union, ...]:
        """The unions of K, N, C, M and S."""
        return tuple(self.union_of(self.ops["kind"].isin(kinds).to_numpy()) for kinds in PRECEDENCE)

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
        return self._of_call("start_ns")

    @cached_property
    def call_ends(self) -> Times:
        """End of that call."""
        return self._of_call("end_ns")

    def _of_call(self, column: str) -> Times:
        call = self.ops["call"].to_numpy()
        known = self.calls[column].to_numpy()
        return np.where(call >= 0, known[call], EARLY) if len(known) else np.full(len(call), EARLY)

    @cached_property
    def in_graph(self) -> np.ndarray:
        """Which operations a CUDA graph launched: by their node, or (Kineto names no node) by their launch call."""
        call = self.ops["call"].to_numpy()
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

    def union_of(self, mask: np.ndarray) -> Union:
        """The union of the operations that ``mask`` selects."""
        return union(self.starts[mask], self.ends[mask])

    def overlapping(self, start: int, end: int) -> np.ndarray:
        """Which operations run inside [start, end)."""
        return (self.starts < end) & (self.ends > start)

    def starting(self, start: int, end: int) -> np.ndarray:
        """Which operations start inside [start, end)."""
        return (self.starts >= start) & (self.starts < end)


def views(trace: Trace, device: int | None = None) -> tuple[DeviceView, ...]:
    """One view for each device that has operations (or for ``device`` alone), by index."""
    found = sorted(set(trace.ops["device"])) if device is None else [device]
    return tuple(DeviceView(i, trace.ops[trace.ops["device"] == i].reset_index(drop=True), trace.calls) for i in found)
