"""Parts of the programs with planted faults: products, streams, copies under compute, CUDA graphs. Used by faults.py; not a command."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Step = Callable[[], object]
DEVICE = "cuda"
MIB = 1 << 20


def gemm(size: int) -> Step:
    """A bf16 matrix product that fills the GPU."""
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def cudart() -> Any:
    """The CUDA runtime that torch has loaded."""
    with Path("/proc/self/maps").open(encoding="utf-8") as maps:
        path = next(line.split()[-1] for line in maps if "libcudart" in line)
    return ctypes.CDLL(path)


def blocking_stream() -> torch.cuda.Stream:
    """A stream made by cudaStreamCreate: it waits for the legacy default stream, which torch computes in."""
    handle = ctypes.c_void_p()
    if cudart().cudaStreamCreate(ctypes.byref(handle)):
        raise RuntimeError("cudaStreamCreate failed")
    return torch.cuda.ExternalStream(handle.value or 0)


def pipeline(mib: int, products: int, pinned: bool, side: bool, early: bool, stream: Any = None) -> Step:
    """Each step: matrix products on one buffer while the next buffer arrives from the host.

    ``side``: copies have a stream of their own; ``early``: the copy is issued before the products, not after them.
    """
    host = torch.ones(mib * MIB, dtype=torch.uint8, pin_memory=pinned)
    buffers = [torch.empty(mib * MIB, dtype=torch.uint8, device=DEVICE) for _ in range(2)]
    work, main = gemm(4096), torch.cuda.current_stream()
    copies = (stream or torch.cuda.Stream()) if side else main
    state = {"turn": 0}

    def copy() -> None:
        state["turn"] ^= 1
        with torch.cuda.stream(copies):
            buffers[state["turn"]].copy_(host, non_blocking=True)

    def compute() -> None:
        for _ in range(products):
            work()

    def step() -> None:
        if early:
            copy()
            compute()
        else:
            compute()
            main.synchronize()
            copy()
        main.wait_stream(copies)
        copies.wait_stream(main)

    return step


def captured(body: Step) -> Step:
    """The body as one CUDA graph, run once before so that nothing is set up inside it."""
    with torch.cuda.stream(torch.cuda.Stream()):
        body()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph.replay
