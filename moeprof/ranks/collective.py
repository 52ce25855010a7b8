"""What a collective is: its kind by the framework's or the kernel's name, and its bus bandwidth as nccl-tests defines it."""

from __future__ import annotations

import re

from moeprof.trace.classify import COMMUNICATION, Classes, communication_class

# A framework's name (torch's "Collective name", lower case) -> kind; the first that it holds.
FRAMEWORK = (
    ("barrier", "Barrier"), ("reduce_scatter", "ReduceScatter"), ("reducescatter", "ReduceScatter"), ("all_gather", "AllGather"),
    ("allgather", "AllGather"), ("allreduce", "AllReduce"), ("all_reduce", "AllReduce"), ("all_to_all", "AllToAll"),
    ("alltoall", "AllToAll"), ("broadcast", "Broadcast"), ("reduce", "Reduce"), ("gather", "Gather"), ("scatter", "Scatter"),
    ("send", "SendRecv"), ("recv", "SendRecv"),
)  # fmt: skip
_NCCL = re.compile(r"^(?:nccl|rccl)(?:Sym)?(?:Dev)?Kernel_?(?:Func_)?([A-Z][A-Za-z]+)")
SEND_RECV = "SendRecv"
# Kinds in which no rank is done before all have arrived, and all are done nearly together.
TOGETHER = ("AllReduce", "AllGather", "ReduceScatter", "AllToAll", "Barrier")
# Kinds in which every rank states the same size.
ONE_SIZE = ("AllReduce", "AllGather", "ReduceScatter", "Broadcast", "Reduce")


def kind_of_kernel(name: str, classes: Classes = COMMUNICATION) -> str:
    """AllReduce of ncclDevKernel_AllReduce_Sum_f32_RING_LL(...); of other libraries their class and the kernel's last name."""
    match = _NCCL.match(name)
    if match:
        return match[1]
    words = re.findall(r"[A-Za-z_]\w+", re.sub(r"[<(].*", "", name))
    return f"{communication_class(name, classes) or 'communication'}: {words[-1] if words else name[:40]}"


def kind_of_message(collective: str) -> str:
    """AllGather of "_allgather_base"; a name that is not known stays."""
    plain = collective.lower()
    return next((kind for part, kind in FRAMEWORK if part in plain), collective)


def bus_factor(kind: str, ranks: int) -> float | None:
    """What algorithm bandwidth (bytes / time) is multiplied by to get bus bandwidth; None for kinds without a definition.

    nccl-tests, doc/PERFORMANCE.md: AllReduce 2(n-1)/n; ReduceScatter, AllGather and AlltoAll (n-1)/n; Broadcast, Reduce and
    SendRecv 1. Bytes are those of the whole array: the larger of a rank's input and output.
    """
    if ranks < 2:
        return None
    share = (ranks - 1) / ranks
    factors = {"AllReduce": 2 * share, "Broadcast": 1.0, "Reduce": 1.0, SEND_RECV: 1.0}
    return factors.get(kind, share if kind in ("ReduceScatter", "AllGather", "AllToAll") else None)


def bus_gb_per_s(factor: float | None, size_bytes: int, time_ns: int) -> float | None:
    """Bus bandwidth; bytes a nanosecond are GB/s. None where the size, the time or a definition is missing."""
    return None if factor is None or size_bytes <= 0 or time_ns <= 0 else factor * size_bytes / time_ns
