"""Copy-engine puts: rows go straight into a peer's memory by cudaMemcpyAsync, which takes no SM; signals say that they are there.

Only four calls of torch's symmetric memory are used: empty, rendezvous, get_buffer and put_signal with wait_signal. Nothing here
uses NVLink multicast, and rendezvous is told not to set it up.

No rank writes what another still reads: a rank puts rows of the next iteration after it has summed the results of this one, and
those came after the experts had read all rows; results come after the rows for them, which leave after the last sum.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

from moeprof.errors import UsageError, WorkloadError
from moeprof.workloads.common.timing import delay_gpu
from moeprof.workloads.expert_parallel.exchange import COUNTS
from moeprof.workloads.expert_parallel.layer import Buffers
from moeprof.workloads.expert_parallel.layout import Layout, Ranks, ranks
from moeprof.workloads.kv_transfer.pipeline import send

SIGNAL_BYTES = 4
Shape = tuple[int, ...]


class Room(Protocol):
    """A buffer that every rank has under one name: ``mine``, those of others by their rank, and signals between them.

    A signal is put once and waited for once; a put waits until the signal before it was taken.
    """

    mine: Any

    def of(self, rank: int) -> Any: ...
    def put_signal(self, rank: int, channel: int) -> None: ...
    def wait_signal(self, rank: int, channel: int) -> None: ...


class Symmetric:
    """A room in torch's symmetric memory: ``shape`` is the same on every rank."""

    def __init__(self, shape: Shape, dtype: Any, group: Ranks, channels: int) -> None:
        import torch
        import torch.distributed as dist
        import torch.distributed._symmetric_memory as symmetric

        os.environ["TORCH_SYMM_MEM_DISABLE_MULTICAST"] = "1"
        where = torch.device("cuda", torch.cuda.current_device())
        self.shape, self.dtype = shape, dtype
        self.mine = symmetric.empty(*shape, dtype=dtype, device=where)
        try:
            self.handle = symmetric.rendezvous(self.mine, dist.group.WORLD)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise WorkloadError(f"the ranks cannot share GPU memory: {reason}", "leave peer_copy out") from error
        if channels * group.count * SIGNAL_BYTES > self.handle.signal_pad_size:
            raise UsageError(f"symmetric memory has no {channels} signals for {group.count} ranks", "give fewer chunks")

    def of(self, rank: int) -> Any:
        """The buffer of ``rank``, in its memory."""
        return self.handle.get_buffer(rank, self.shape, self.dtype)

    def put_signal(self, rank: int, channel: int) -> None:
        """Enqueue: tell ``rank``."""
        self.handle.put_signal(rank, channel)

    def wait_signal(self, rank: int, channel: int) -> None:
        """Enqueue: wait until ``rank`` told."""
        self.handle.wait_signal(rank, channel)


class Alone:
    """The room of a single rank: plain memory."""

    def __init__(self, shape: Shape, dtype: Any) -> None:
        import torch

        self.mine = torch.empty(*shape, dtype=dtype, device="cuda")

    def of(self, rank: int) -> Any:
        """There is one rank."""
        return self.mine

    def put_signal(self, rank: int, channel: int) -> None:
        """Nobody to tell."""

    def wait_signal(self, rank: int, channel: int) -> None:
        """Nobody to wait for."""


def room(shape: Shape, dtype: Any, group: Ranks, channels: int) -> Room:
    """A room of this machine's GPUs; every rank must make it."""
    return Alone(shape, dtype) if group.count == 1 else Symmetric(shape, dtype, group, channels)


class Puts:
    """An exchange by copies into the rooms ``received``, ``returned`` and ``heard`` of the other ranks."""

    def __init__(self, layout: Layout, room: Buffers, shared: dict[str, Room], listen: bool = True) -> None:
        self.layout, self.room, self.listen = layout, room, listen
        everyone, self.shared = range(layout.ranks.count), shared  # a far buffer lives as long as its room
        self.far = {name: [one.of(rank) for rank in everyone] for name, one in shared.items()}
        self.bell = shared["heard"]
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
        """Part r to rank r, the own one last; a signal to each other rank."""
        me = self.layout.ranks.rank
        for rank in (*self.others[me:], *self.others[:me], me):
            if len(parts[rank]):
                send(self.far[name][rank][begins[rank] : begins[rank] + len(parts[rank])], parts[rank])
            if rank != me:
                self.bell.put_signal(rank, channel)

    def counts(self) -> None:
        """Tell every rank how many rows of each chunk are for each of its experts."""
        me, count = self.layout.ranks.rank, self.layout.ranks.count
        self._put("heard", list(self.room.told.split(1)), [me] * count, COUNTS)

    def dispatch(self, chunk: int) -> None:
        """Rows to the ranks of their experts."""
        leave, _ = self.layout.splits(chunk)
        if not self.listen:  # a slow link: rows that nobody waits for are surely late
            delay_gpu("cuda" if self.room.rows.is_cuda else "cpu")
        parts = list(self.room.rows[self.layout.sent(chunk)].split(leave))
        self._put("received", parts, self.rows[chunk], 1 + chunk)

    def give_back(self, chunk: int) -> None:
        """Results to the ranks of their tokens."""
        _, arrive = self.layout.splits(chunk)
        parts = list(self.room.answers[self.layout.arrived(chunk)].split(arrive))
        self._put("returned", parts, self.homes[chunk], 1 + self.layout.chunks + chunk)

    def arrived(self, channel: int) -> None:
        """The current stream waits for every other rank's signal; one that does not listen for rows takes theirs too late."""
        rows = range(1, 1 + self.layout.chunks)
        if self.listen:
            channels = [channel]
        else:
            channels = [] if channel in rows else [channel, *(c for c in rows if c + len(rows) == channel)]
        for one in channels:
            for rank in self.others:
                self.bell.wait_signal(rank, one)


def linked(group: Ranks) -> bool:
    """Whether all ranks are on this host and their GPUs reach each other's memory."""
    import torch

    here = int(os.environ.get("LOCAL_WORLD_SIZE", group.count))
    if here != group.count or torch.cuda.device_count() < group.count:
        return False
    me = torch.cuda.current_device()
    return all(torch.cuda.can_device_access_peer(me, other) for other in range(group.count) if other != me)


def copy_gb_per_s(size: int) -> float:
    """GB/s each way of copies of ``size`` bytes from every rank to the next one, all at once, by copy engines."""
    import torch

    from moeprof.workloads.common.timing import seconds
    from moeprof.workloads.expert_parallel.layout import meet

    group = ranks()
    shared = room((size,), torch.uint8, group, 1)
    target = shared.of((group.rank + 1) % group.count)
    source = torch.zeros(size, dtype=torch.uint8, device="cuda")
    meet("cuda")
    taken = seconds(lambda: target.copy_(source), "cuda", 8, graph=False)
    meet("cuda")
    return size / taken / 1e9
