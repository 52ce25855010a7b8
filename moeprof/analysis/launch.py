"""Launch numbers: API time, queueing, launch latency, graph launches, host calls (definitions of nsys kern_exec)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from moeprof.analysis.device import KERNELS, DeviceView, one_of
from moeprof.analysis.intervals import Times
from moeprof.analysis.model import CallCount, Launch
from moeprof.trace import Trace
from moeprof.trace.classify import BLOCKING

LEAST_COVERAGE = (
    0.25  # of the kernels must join to a launch call, or launch numbers are withheld: too few to be typical
)


def launch(view: DeviceView, inside: Times, calls: pd.DataFrame) -> Launch:
    """Numbers of the kernels among the operations ``inside`` (rows of the view) and of the host's ``calls``.

    Kernels of a CUDA graph are counted apart: their launch call is the graph's, shared by all of them.
    """
    kernels = inside[view.is_kernel[inside]]
    in_graph, joined = view.in_graph[kernels], view.call[kernels] >= 0
    alone = kernels[joined & ~in_graph]
    api, queue = view.call_ends[alone] - view.call_starts[alone], view.starts[alone] - view.call_ends[alone]
    empty = view.previous_end[alone] <= view.call_starts[alone]
    latency = queue[(queue > 0) & empty]
    if joined.sum() < LEAST_COVERAGE * len(kernels):
        api, queue, latency = api[:0], queue[:0], latency[:0]
    return Launch(
        kernels=len(kernels),
        joined=int(joined.sum()),
        api_ns_median=_median(api),
        api_ns_total=int(api.sum()),
        queue_ns_median=_median(queue[queue > 0]),
        queue_count=int((queue > 0).sum()),
        latency_ns_median=_median(latency),
        latency_count=len(latency),
        graph_launches=int(one_of(calls["kind"], ("graph_launch",)).sum()),
        kernels_in_graphs=int(in_graph.sum()),
        sync_calls=int(one_of(calls["kind"], BLOCKING).sum()),
        calls=_counts(calls),
    )


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None


def _counts(calls: pd.DataFrame) -> tuple[CallCount, ...]:
    """Calls by name, the most time first."""
    names, kinds = calls["name"].cat, calls["kind"].cat
    spent = (calls["end_ns"] - calls["start_ns"]).to_numpy()
    size = np.bincount(names.codes, minlength=len(names.categories))
    total = np.zeros(len(names.categories), dtype=np.int64)
    np.add.at(total, names.codes, spent)
    kind = np.zeros(len(names.categories), dtype=np.int64)
    kind[names.codes] = kinds.codes  # a call's kind follows from its name
    rows = [
        CallCount(str(name), str(kinds.categories[kind[i]]), int(size[i]), int(total[i]))
        for i, name in enumerate(names.categories)
        if size[i]
    ]
    return tuple(sorted(rows, key=lambda row: (-row.total_ns, row.name)))


def executions(trace: Trace) -> pd.DataFrame:
    """One row a joined kernel, as ``nsys stats cuda_kern_exec_trace`` has them: api_start_ns, api_ns (A), queue_ns (Q,
    -1 where the kernel started before its call returned), kernel_start_ns, kernel_ns (K), total_ns (T), device, name, pid,
    tid, api (the call's name)."""
    ops = trace.ops[one_of(trace.ops["kind"], KERNELS) & (trace.ops["call"] >= 0)]
    call = trace.calls.iloc[ops["call"]]
    begin, returned = call["start_ns"].to_numpy(), call["end_ns"].to_numpy()
    start, end = ops["start_ns"].to_numpy(), ops["end_ns"].to_numpy()
    return pd.DataFrame(
        {
            "api_start_ns": begin,
            "api_ns": returned - begin,
            "queue_ns": np.where(start > returned, start - returned, -1),
            "kernel_start_ns": start,
            "kernel_ns": end - start,
            "total_ns": np.maximum(returned, end) - begin,
            "device": ops["device"].to_numpy(),
            "name": ops["name"].astype(str).to_numpy(),
            "pid": call["pid"].to_numpy(),
            "tid": call["tid"].to_numpy(),
            "api": call["name"].astype(str).to_numpy(),
        }
    )
