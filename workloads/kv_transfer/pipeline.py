"""How a layer's KV is computed and sent, and how both overlap: by CUDA streams, or on a CPU by threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

MEMCPY_NODE_BYTES = 256 << 20  # larger memcpy nodes of a graph are split: one node stays well under the driver's limits


def stage(x: Any, up: Any, down: Any, inner: Any, out: Any) -> Any:
    """One layer's KV, silu(x @ up) @ down, eagerly into ``out``."""
    import torch

    torch.mm(x, up, out=inner)
    torch.nn.functional.silu(inner, inplace=True)
    return torch.mm(inner, down, out=out)


def send(target: Any, staged: Any) -> None:
    """Copy one layer over the link on the current stream, in pieces of at most MEMCPY_NODE_BYTES."""
    rows = max(1, MEMCPY_NODE_BYTES // (staged.element_size() * staged.shape[1]))
    for far, near in zip(target.split(rows), staged.split(rows), strict=True):
        far.copy_(near, non_blocking=True)


def functional_stage(x: Any, up: Any, down: Any) -> Any:
    import torch

    return torch.mm(torch.nn.functional.silu(torch.mm(x, up)), down)


Stage = Callable[[int, int], Any]  # (layer, slot) -> the layer's KV
Send = Callable[[int, Any, int], None]  # (layer, KV, slot)


class Streams:
    """Compute on the current stream, copies on a second one, with two events a slot: data ready, and slot free.

    One copy stream is enough: its copies follow each other within 1.3 us on an H200. Two alternating streams were slower:
    29 MB copies took 580 us instead of 530, since two engines share the link worse than one uses it.
    """

    def __init__(self, depth: int, link: str) -> None:
        import torch

        self.copy = torch.cuda.Stream()
        self.ready = [torch.cuda.Event() for _ in range(depth)]
        self.free = [torch.cuda.Event() for _ in range(depth)]
        # copy_ to a peer also waits for the current stream of the peer: it must be part of the fork and join
        self.peer = torch.cuda.Stream(device=1) if link == "peer" else None

    def run(self, layers: int, stage: Stage, send: Send, ready: bool = True) -> None:
        """Fork, send each layer when it is ready, join: the current stream orders all work at both ends."""
        import torch

        compute = torch.cuda.current_stream()
        for stream in self._side_streams():
            stream.wait_stream(compute)
        for layer in range(layers):
            slot = layer % len(self.ready)
            if layer >= len(self.ready):
                compute.wait_event(self.free[slot])
            staged = stage(layer, slot)
            if ready:
                self.ready[slot].record(compute)
                self.copy.wait_event(self.ready[slot])
            with torch.cuda.stream(self.peer), torch.cuda.stream(self.copy):
                send(layer, staged, slot)
            self.free[slot].record(self.copy)
        for stream in self._side_streams():
            compute.wait_stream(stream)

    def _side_streams(self) -> list[Any]:
        return [self.copy] if self.peer is None else [self.copy, self.peer]


class Threads:
    """Compute on this thread, copies on a worker thread; a slot is free when its last copy is done."""

    def __init__(self, depth: int) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="copy")
        self.depth = depth

    def run(self, layers: int, stage: Stage, send: Send, ready: bool = True) -> None:
        done: list[Future[None]] = []
        for layer in range(layers):
            slot = layer % self.depth
            if layer >= self.depth:
                done[layer - self.depth].result()
            if not ready:
                done.append(self.pool.submit(send, layer, None, slot))
                done[layer].result()
            staged = stage(layer, slot)
            if ready:
                done.append(self.pool.submit(send, layer, staged, slot))
        for copy in done:
            copy.result()
