"""The exchange by copy engines: cudaMemcpyAsync puts rows into the memory of a peer and takes no SM; signals announce them.

Of torch's symmetric memory only empty, rendezvous, get_buffer, put_signal and wait_signal are used. NVLink multicast is not used,
and rendezvous does not set it up.

No rank overwrites what another still reads. A rank puts the rows of the next iteration after it has summed the results of this
one; those results came after the experts had read all rows. Results come after their rows, which leave after the last sum.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

from moeprof.errors import UsageError, WorkloadError
from moeprof.workloads.common.timing import delay_gpu
from moeprof.workloads.expert_parallel.layer import Buffers
from moeprof.workloads.expert_parallel.layout import Layout, Ranks, ranks
from moeprof.workloads.expert_parallel.overlap import COUNTS
from moeprof.workloads.kv_transfer.pipeline import send

SIGNAL_BYTES = 4
Shape = tuple[int, ...]


class SharedBuffer(Protocol):
    """A buffer that every rank has under one name: the local ``tensor``, remote ones by rank, and signals between ranks.

    A signal is put once and waited for once; a put waits until the previous signal was received.
    """

    tensor: Any

    def of(self, rank: int) -> Any: ...
    def put_signal(self, rank: int, channel: int) -> None: ...
    def wait_signal(self, rank: int, channel: int) -> None: ...


class SymmetricBuffer:
    """A shared buffer in torch's symmetric memory; ``shape`` is the same on every rank."""

    def __init__(self, shape: Shape, dtype: Any, group: Ranks, channels: int) -> None:
        import torch
        import torch.distributed as dist
        import torch.distributed._symmetric_memory as symmetric

        os.environ["TORCH_SYMM_MEM_DISABLE_MULTICAST"] = "1"
        where = torch.device("cuda", torch.cuda.current_device())
        self.shape, self.dtype = shape, dtype
        self.tensor = symmetric.empty(*shape, dtype=dtype, device=where)
        try:
            self.handle = symmetric.rendezvous(self.tensor, dist.group.WORLD)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise WorkloadError(f"the ranks cannot share GPU memory: {reason}", "leave peer_copy out") from error
        if channels * group.count * SIGNAL_BYTES > self.handle.signal_pad_size:
            raise UsageError(f"symmetric memory has no {channels} signals for {group.count} ranks", "give fewer chunks")

    def of(self, rank: int) -> Any:
        """The buffer of ``rank``, in its memory."""
        return self.handle.get_buffer(rank, self.shape, self.dtype)

    def put_signal(self, rank: int, channel: int) -> None:
        """Enqueue a signal to ``rank``."""
        self.handle.put_signal(rank, channel)

    def wait_signal(self, rank: int, channel: int) -> None:
        """Enqueue a wait for the signal of ``rank``."""
        self.handle.wait_signal(rank, channel)


class LocalBuffer:
    """The shared buffer of a single rank: plain memory."""

    def __init__(self, shape: Shape, dtype: Any) -> None:
        import torch

        self.tensor = torch.empty(*shape, dtype=dtype, device="cuda")

    def of(self, rank: int) -> Any:
        """There is one rank."""
        return self.tensor

    def put_signal(self, rank: int, channel: int) -> None:
        """There is no other rank."""

    def wait_signal(self, rank: int, channel: int) -> None:
        """There is no other rank."""


def shared_buffer(shape: Shape, dtype: Any, group: Ranks, channels: int) -> SharedBuffer:
    """A buffer shared by the GPUs of this machine; every rank must make it."""
    return LocalBuffer(shape, dtype) if group.count == 1 else SymmetricBuffer(shape, dtype, group, channels)


class PeerCopies:
    """An exchange by copies into the shared buffers ``received``, ``returned`` and ``counts_received`` of the other ranks."""

    def __init__(
        self, layout: Layout, buffers: Buffers, shared: dict[str, SharedBuffer], wait_for_rows: bool = True
    ) -> None:
        self.layout, self.buffers, self.wait_for_rows = layout, buffers, wait_for_rows
        everyone, self.shared = range(layout.ranks.count), shared  # a remote tensor lives as long as its shared buffer
        self.remote_tensors = {name: [buffer.of(rank) for rank in everyone] for name, buffer in shared.items()}
        self.signals = shared["counts_received"]
        self.others = [rank for rank in everyone if rank != layout.ranks.rank]
        self.rows = [[self._begin(c, rank) for rank in everyone] for c in range(layout.chunks)]
        self.homes = [[self._home(c, rank) for rank in everyone] for c in range(layout.chunks)]

    def _begin(self, chunk: int, rank: int) -> int:
        """Where this rank's rows of ``chunk`` begin among those that ``rank`` receives."""
        between, me = self.layout.between, self.layout.ranks.rank
        before = sum(row[rank] for earlier in between[:chunk] for row in earlier)
        return before + sum(row[rank] for row in between[chunk][:me])

    def _home(self, chunk: int, rank: int) -> int:
        """Where this rank's results of ``chunk`` begin among those that return to ``rank``."""
        return self.layout.sent(chunk).start + sum(self.layout.between[chunk][rank][: self.layout.ranks.rank])

    def _put(self, name: str, parts: list[Any], begins: list[int], channel: int) -> None:
        """Copy part r to rank r, the local part last; signal each other rank."""
        me = self.layout.ranks.rank
        for rank in (*self.others[me:], *self.others[:me], me):
            if len(parts[rank]):
                send(self.remote_tensors[name][rank][begins[rank] : begins[rank] + len(parts[rank])], parts[rank])
            if rank != me:
                self.signals.put_signal(rank, channel)

    def counts(self) -> None:
        """Send every rank the number of rows of each chunk for each of its experts."""
        me, count = self.layout.ranks.rank, self.layout.ranks.count
        self._put("counts_received", list(self.buffers.counts_sent.split(1)), [me] * count, COUNTS)

    def dispatch(self, chunk: int) -> None:
        """Send rows to the ranks of their experts."""
        leave, _ = self.layout.splits(chunk)
        if not self.wait_for_rows:  # a slow link: rows that no rank waits for are surely late
            delay_gpu("cuda" if self.buffers.rows.is_cuda else "cpu")
        parts = list(self.buffers.rows[self.layout.sent(chunk)].split(leave))
        self._put("received", parts, self.rows[chunk], 1 + chunk)

    def return_results(self, chunk: int) -> None:
        """Send results to the ranks of their tokens."""
        _, arrive = self.layout.splits(chunk)
        parts = list(self.buffers.results[self.layout.arrived(chunk)].split(arrive))
        self._put("returned", parts, self.homes[chunk], 1 + self.layout.chunks + chunk)

    def arrived(self, channel: int) -> None:
        """The current stream waits for the signal of every other rank; without ``wait_for_rows`` too late for the rows."""
        rows = range(1, 1 + self.layout.chunks)
        if self.wait_for_rows:
            channels = [channel]
        else:
            channels = [] if channel in rows else [channel, *(c for c in rows if c + len(rows) == channel)]
        for awaited in channels:
            for rank in self.others:
                self.signals.wait_signal(rank, awaited)


def linked(group: Ranks) -> bool:
    """Whether all ranks are on this host and their GPUs can access each other's memory."""
    import torch

    here = int(os.environ.get("LOCAL_WORLD_SIZE", group.count))
    if here != group.count or torch.cuda.device_count() < group.count:
        return False
    device = torch.cuda.current_device()
    return all(torch.cuda.can_device_access_peer(device, peer) for peer in range(group.count) if peer != device)


def copy_gb_per_s(size: int) -> float:
    """GB/s each way of copies of ``size`` bytes from every rank to the next one, all at once, by copy engines."""
    import torch

    from moeprof.workloads.common.timing import seconds
    from moeprof.workloads.expert_parallel.layout import barrier

    group = ranks()
    shared = shared_buffer((size,), torch.uint8, group, 1)
    target = shared.of((group.rank + 1) % group.count)
    source = torch.zeros(size, dtype=torch.uint8, device="cuda")
    barrier("cuda")
    copy_s = seconds(lambda: target.copy_(source), "cuda", 8, graph=False)
    barrier("cuda")
    return size / copy_s / 1e9
