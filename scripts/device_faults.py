"""Planted faults of GPU utilisation: stream order, narrow kernels, copies by kernels, page migrations. Used by faults.py; not a command."""

from __future__ import annotations

import ctypes

import torch
from fault_parts import DEVICE, MIB, Step, blocking_stream, cudart, gemm, pipeline


def narrow() -> Step:
    """A kernel of 16 blocks that runs for long: a softmax over few long rows."""
    x = torch.randn(16, MIB, device=DEVICE)
    out = torch.empty_like(x)
    return lambda: torch.softmax(x, dim=1, out=out)


def serialized_streams(mended: bool) -> Step:
    """Independent narrow kernels in two streams, each waiting for the other stream's event."""
    works, streams = [narrow(), narrow()], [torch.cuda.Stream(), torch.cuda.Stream()]

    def step() -> None:
        for turn in range(8):
            stream, other = streams[turn % 2], streams[1 - turn % 2]
            if not mended:
                stream.wait_stream(other)
            with torch.cuda.stream(stream):
                works[turn % 2]()

    return step


def legacy_default_stream(mended: bool) -> Step:
    """Narrow kernels in two blocking streams with small work on the default stream between them."""
    works = [narrow(), narrow()]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()] if mended else [blocking_stream(), blocking_stream()]
    x = torch.zeros(1024, device=DEVICE)

    def step() -> None:
        for turn in range(8):
            with torch.cuda.stream(streams[turn % 2]):
                works[turn % 2]()
            x.add_(1)

    return step


def low_concurrency(mended: bool) -> Step:
    """Independent narrow kernels in one stream; mended in eight."""
    works, streams = [narrow() for _ in range(8)], [torch.cuda.Stream() for _ in range(8)]

    def step() -> None:
        for work, stream in zip(works, streams, strict=True):
            with torch.cuda.stream(stream if mended else torch.cuda.current_stream()):
                work()

    return step


def copy_like_kernels(mended: bool) -> Step:
    """The weights of the chosen experts are gathered before each product; mended the products read them in place."""
    experts, width, rows = 8, 4096, 64
    weights = torch.randn(experts, width, width, device=DEVICE, dtype=torch.bfloat16) / width**0.5
    chosen = torch.arange(experts, device=DEVICE)
    x = torch.randn(experts, rows, width, device=DEVICE, dtype=torch.bfloat16)

    def step() -> None:
        y = x
        for _ in range(8):
            y = torch.bmm(y, weights if mended else weights[chosen])

    return step


class Managed:
    """Managed memory of float32, seen by torch through the CUDA array interface and by the host through ctypes."""

    def __init__(self, count: int) -> None:
        pointer = ctypes.c_void_p()
        if cudart().cudaMallocManaged(ctypes.byref(pointer), ctypes.c_size_t(4 * count), 1):
            raise RuntimeError("cudaMallocManaged failed")
        self.address, self.bytes = pointer.value or 0, 4 * count
        self.__cuda_array_interface__ = {
            "shape": (count,),
            "typestr": "<f4",
            "data": (self.address, False),
            "version": 3,
        }


def migration_stall(mended: bool) -> Step:
    """The host writes managed memory that a kernel then reads; mended it sends pinned memory while the GPU computes."""
    if mended:
        return pipeline(32, 6, pinned=True, side=True, early=True)
    managed, work = Managed(8 * MIB), gemm(4096)
    seen, out = torch.as_tensor(managed, device=DEVICE), torch.empty(8 * MIB, device=DEVICE)

    def step() -> None:
        ctypes.memset(managed.address, 0, managed.bytes)
        torch.add(seen, 1, out=out)
        for _ in range(6):
            work()
        torch.cuda.synchronize()

    return step
