"""Planted faults of the host: waits, launches, allocations, a slow first step, work outside CUDA. Used by faults.py; not a command."""

from __future__ import annotations

import ctypes
import time

import torch
from fault_parts import DEVICE, MIB, Step, captured, cudart, gemm


def sync_api(mended: bool) -> Step:
    """A synchronise after every small product."""
    work = gemm(3072)

    def step() -> None:
        for _ in range(40):
            work()
            if not mended:
                torch.cuda.synchronize()

    return step


def sync_item(mended: bool) -> Step:
    """The host reads a number back after every product and so waits for it."""
    work, total = gemm(3072), torch.zeros((), device=DEVICE)

    def step() -> None:
        for _ in range(20):
            work()
            total.add_(1)
            if not mended:
                total.item()

    return step


def sync_copy(mended: bool) -> Step:
    """A blocking copy of pinned memory each step."""
    host, there = torch.empty(MIB // 128, pin_memory=True), torch.empty(MIB // 128, device=DEVICE)
    work = gemm(3072)

    def step() -> None:
        for _ in range(8):
            work()
            work()
            there.copy_(host, non_blocking=mended)
            work()
            work()

    return step


def sync_between(mended: bool) -> Step:
    """The host waits for the copy on its side stream before it launches the products that could run beside it."""
    host, main = torch.ones(48 * MIB, dtype=torch.uint8, pin_memory=True), torch.cuda.current_stream()
    buffers, work, copies = (
        [torch.empty(host.shape, dtype=host.dtype, device=DEVICE) for _ in range(2)],
        gemm(4096),
        torch.cuda.Stream(),
    )
    state = {"turn": 0}

    def step() -> None:
        state["turn"] ^= 1
        copies.wait_stream(main)
        with torch.cuda.stream(copies):
            buffers[state["turn"]].copy_(host, non_blocking=True)
        if not mended:
            copies.synchronize()
        for _ in range(8):
            work()
        main.wait_stream(copies)

    return step


def launch_bound(mended: bool) -> Step:
    """Hundreds of kernels shorter than their launches."""
    x = torch.zeros(1024, device=DEVICE)

    def body() -> None:
        for _ in range(300):
            x.add_(1)

    return captured(body) if mended else body


def graph_opportunity(mended: bool) -> Step:
    """A fixed chain of unlike small kernels, like a decode step, launched one by one."""
    x = torch.randn(16, 1024, device=DEVICE, dtype=torch.bfloat16)
    w = torch.randn(1024, 1024, device=DEVICE, dtype=torch.bfloat16) / 32
    norm = torch.ones(1024, device=DEVICE, dtype=torch.bfloat16)

    def body() -> None:
        y = x
        for _ in range(12):
            h = torch.nn.functional.rms_norm(y, (1024,), norm)
            h = torch.nn.functional.silu(h @ w) * h
            y = y + torch.softmax(h, dim=-1)

    return captured(body) if mended else body


def allocator_in_loop(mended: bool) -> Step:
    """Memory is taken and given back around every product."""
    work, runtime = gemm(2048), cudart()

    def step() -> None:
        for _ in range(8):
            pointer = ctypes.c_void_p()
            if not mended:
                runtime.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(64 * MIB))
            work()
            if not mended:
                runtime.cudaFree(pointer)

    return step


def empty_cache(mended: bool) -> Step:
    """The caching allocator is emptied each step."""
    a = torch.randn(4096, 4096, device=DEVICE, dtype=torch.bfloat16)

    def step() -> None:
        for _ in range(4):
            y = a @ a
            del y
            if not mended:
                torch.cuda.empty_cache()

    return step


def first_iteration(mended: bool) -> Step:
    """The first step compiles a kernel; mended it was compiled before."""
    name = f"fused{time.time_ns()}"  # a name of its own, so that no cache on disk has it
    fused = torch.cuda.jiterator._create_jit_fn(f"template <typename T> T {name}(T x, T y) {{ return x * y + x - y; }}")
    a, b = (torch.randn(64 * MIB, device=DEVICE) for _ in range(2))
    if mended:
        fused(a, b)
        torch.cuda.synchronize()

    def step() -> None:
        for _ in range(4):
            fused(a, b)

    return step


def host_bound(mended: bool) -> Step:
    """Python works for longer than the GPU between launches."""
    work = gemm(4096)

    def step() -> None:
        for _ in range(4):
            work()
            until = time.perf_counter() + (0 if mended else 5e-4)
            while time.perf_counter() < until:
                pass

    return step
