#!/usr/bin/env python3
"""Small GPU programs with one planted fault each, the same program mended, and healthy controls.

usage: faults.py NAME faulty|mended [--steps N] [--warm N] [--whole] [--bare]
       faults.py --time [NAME ...] [--steps N]

The first form runs one program to be traced: between cudaProfilerStart and Stop unless --whole, with an NVTX range "step"
around each step unless --bare. The second times both forms without a profiler and prints JSON: name -> form -> ms a step.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Step = Callable[[], object]
DEVICE = "cuda"
MIB = 1 << 20


@dataclass(frozen=True)
class Program:
    """``build(mended)`` sets up and returns one step; ``expected`` is the finding's id, None for a healthy program."""

    expected: str | None
    build: Callable[[bool], Step]
    warm: bool = True


def gemm(size: int) -> Step:
    """A bf16 matrix product that fills the GPU."""
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def narrow() -> Step:
    """A kernel of 16 blocks that runs for long: a softmax over few long rows."""
    x = torch.randn(16, MIB, device=DEVICE)
    out = torch.empty_like(x)
    return lambda: torch.softmax(x, dim=1, out=out)


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


def pageable_copy(mended: bool) -> Step:
    """The host buffer is not pinned."""
    return pipeline(32, 8, pinned=mended, side=True, early=True)


def same_stream_copy(mended: bool) -> Step:
    """The copy runs in the stream of the products."""
    return pipeline(48, 8, pinned=True, side=mended, early=True)


def late_issue(mended: bool) -> Step:
    """The copy is issued only when the products have ended."""
    return pipeline(48, 8, pinned=True, side=True, early=mended)


def link_bound(mended: bool) -> Step:
    """The copy takes far longer than the products it hides under; mended it moves a quarter of the bytes."""
    return pipeline(24 if mended else 96, 3, pinned=True, side=True, early=True)


def legacy_copy(mended: bool) -> Step:
    """The copy's stream waits for the legacy default stream."""
    return pipeline(48, 8, pinned=True, side=True, early=True, stream=None if mended else blocking_stream())


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


def captured(body: Step) -> Step:
    """The body as one CUDA graph, run once before so that nothing is set up inside it."""
    with torch.cuda.stream(torch.cuda.Stream()):
        body()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph.replay


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


def tiny_copies(mended: bool) -> Step:
    """Hundreds of copies of 4 KiB where one would do."""
    host, there = torch.empty(400, 1024, pin_memory=True), torch.empty(400, 1024, device=DEVICE)
    work = gemm(4096)

    def step() -> None:
        if mended:
            there.copy_(host, non_blocking=True)
        else:
            for a, b in zip(there, host, strict=True):
                a.copy_(b, non_blocking=True)
        for _ in range(8):
            work()

    return step


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


def copy_engine_contention(mended: bool) -> Step:
    """A small copy that the products wait for is queued behind a bulk copy of the same direction."""
    bulk, urgent = (
        torch.empty(96 * MIB, dtype=torch.uint8, pin_memory=True),
        torch.empty(8 * MIB, dtype=torch.uint8, pin_memory=True),
    )
    bulk_there, urgent_there = (torch.empty(t.shape, dtype=t.dtype, device=DEVICE) for t in (bulk, urgent))
    streams, work, main = [torch.cuda.Stream(), torch.cuda.Stream()], gemm(4096), torch.cuda.current_stream()
    pairs = [(bulk_there, bulk, streams[0]), (urgent_there, urgent, streams[1])]

    def step() -> None:
        for there, host, stream in reversed(pairs) if mended else pairs:
            stream.wait_stream(streams[1] if mended and stream is streams[0] else main)
            with torch.cuda.stream(stream):
                there.copy_(host, non_blocking=True)
        main.wait_stream(streams[1])
        for _ in range(12):
            work()
        main.wait_stream(streams[0])

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


def far_ahead(_: bool) -> Step:
    """Large products, queued long before they run."""
    work = gemm(4096)

    def step() -> None:
        for _ in range(20):
            work()

    return step


def graph_replays(_: bool) -> Step:
    """One CUDA graph of products, replayed."""
    work = gemm(4096)

    def body() -> None:
        for _ in range(8):
            work()

    return captured(body)


def hidden_copies(_: bool) -> Step:
    """A pipeline whose copies hide under its products."""
    return pipeline(16, 8, pinned=True, side=True, early=True)


def event_wait(_: bool) -> Step:
    """Products that fill the GPU, in two streams ordered by events: nothing could run side by side."""
    work, side, main = gemm(4096), torch.cuda.Stream(), torch.cuda.current_stream()

    def step() -> None:
        for _ in range(4):
            work()
            side.wait_stream(main)
            with torch.cuda.stream(side):
                work()
            main.wait_stream(side)

    return step


def readback(_: bool) -> Step:
    """A long queue of products, and one number read back a step: the wait costs nothing that counts."""
    work, total = gemm(4096), torch.zeros((), device=DEVICE)

    def step() -> float:
        for _ in range(40):
            work()
        return float(total.add_(1).item())

    return step


PROGRAMS = {
    "pageable-copy": Program("pageable-copy", pageable_copy),
    "same-stream-copy": Program("same-stream-copy", same_stream_copy),
    "late-issue": Program("late-issue", late_issue),
    "link-bound": Program("link-bound", link_bound),
    "legacy-copy": Program("legacy-default-stream", legacy_copy),
    "sync-api": Program("sync-api", sync_api),
    "sync-item": Program("sync-api", sync_item),
    "sync-copy": Program("sync-api", sync_copy),
    "sync-between": Program("sync-api", sync_between),
    "launch-bound": Program("launch-bound", launch_bound),
    "graph-opportunity": Program("graph-opportunity", graph_opportunity),
    "tiny-copies": Program("tiny-copies", tiny_copies),
    "allocator-in-loop": Program("allocator-in-loop", allocator_in_loop),
    "empty-cache": Program("allocator-in-loop", empty_cache),
    "first-iteration": Program("first-iteration", first_iteration, warm=False),
    "host-bound": Program("host-bound", host_bound),
    "serialized-streams": Program("serialized-streams", serialized_streams),
    "legacy-default-stream": Program("legacy-default-stream", legacy_default_stream),
    "low-concurrency": Program("low-concurrency", low_concurrency),
    "copy-engine-contention": Program("copy-engine-contention", copy_engine_contention),
    "migration-stall": Program("migration-stall", migration_stall),
    "far-ahead": Program(None, far_ahead),
    "graph-replays": Program(None, graph_replays),
    "hidden-copies": Program(None, hidden_copies),
    "event-wait": Program(None, event_wait),
    "readback": Program(None, readback),
}


def run(program: Program, mended: bool, steps: int, whole: bool, bare: bool) -> None:
    """One traced run."""
    step = program.build(mended)
    for _ in range(3 if program.warm else 0):
        step()
    torch.cuda.synchronize()
    if not whole:
        torch.cuda.profiler.start()
    for _ in range(steps):
        if bare:
            step()
        else:
            with torch.cuda.nvtx.range("step"):
                step()
    torch.cuda.synchronize()
    if not whole:
        torch.cuda.profiler.stop()


def timed(program: Program, steps: int) -> dict[str, float]:
    """Milliseconds a step of both forms, in turn, the median of five rounds; a cold program counts its first step."""
    forms = {"faulty": False, "mended": True}
    if not program.warm:
        return {name: _round(program.build(mended), steps) for name, mended in forms.items()}
    built = {name: program.build(mended) for name, mended in forms.items()}
    for step in built.values():
        _round(step, 3)
    rounds = [{name: _round(step, steps) for name, step in built.items()} for _ in range(5)]
    return {name: statistics.median(r[name] for r in rounds) for name in forms}


def _round(step: Step, steps: int) -> float:
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - begun) / steps * 1e3


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--bare", action="store_true")
    args = parser.parse_args()
    if args.time:
        names = args.names or [n for n, p in PROGRAMS.items() if p.expected]
        for name in names:
            print(json.dumps({name: timed(PROGRAMS[name], args.steps)}), flush=True)
        return 0
    name, form = args.names
    run(PROGRAMS[name], form == "mended", args.steps, args.whole, args.bare)
    return 0


if __name__ == "__main__":
    sys.exit(main())
