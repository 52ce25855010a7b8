#!/usr/bin/env python3
"""Small GPU programs with one planted fault each, the same program without it (mended), and healthy controls.

usage: faults.py NAME faulty|mended [--steps N] [--whole] [--bare]
       faults.py --time [NAME ...] [--steps N]

The first form runs one program to be traced: between cudaProfilerStart and Stop unless --whole, with an NVTX range "step"
around each step unless --bare. The second times both forms without a profiler and prints JSON: name -> form -> ms per step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import copy_faults
import device_faults
import host_faults
import torch
from fault_parts import DEVICE, Step, captured, gemm, pipeline


@dataclass(frozen=True)
class Program:
    """``build(mended)`` sets up and returns one step; ``expected``: the id of the finding, None for a healthy program."""

    expected: str | None
    build: Callable[[bool], Step]
    warm: bool = True


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
    "pageable-copy": Program("pageable-copy", copy_faults.pageable_copy),
    "same-stream-copy": Program("same-stream-copy", copy_faults.same_stream_copy),
    "late-issue": Program("late-issue", copy_faults.late_issue),
    "link-bound": Program("link-bound", copy_faults.link_bound),
    "legacy-copy": Program("legacy-default-stream", copy_faults.legacy_copy),
    "sync-api": Program("sync-api", host_faults.sync_api),
    "sync-item": Program("sync-api", host_faults.sync_item),
    "sync-copy": Program("sync-api", host_faults.sync_copy),
    "sync-between": Program("sync-api", host_faults.sync_between),
    "launch-bound": Program("launch-bound", host_faults.launch_bound),
    "graph-opportunity": Program("graph-opportunity", host_faults.graph_opportunity),
    "tiny-copies": Program("tiny-copies", copy_faults.tiny_copies),
    "allocator-in-loop": Program("allocator-in-loop", host_faults.allocator_in_loop),
    "empty-cache": Program("allocator-in-loop", host_faults.empty_cache),
    "first-iteration": Program("first-iteration", host_faults.first_iteration, warm=False),
    "host-bound": Program("host-bound", host_faults.host_bound),
    "serialized-streams": Program("serialized-streams", device_faults.serialized_streams),
    "legacy-default-stream": Program("legacy-default-stream", device_faults.legacy_default_stream),
    "low-concurrency": Program("low-concurrency", device_faults.low_concurrency),
    "copy-engine-contention": Program("copy-engine-contention", copy_faults.copy_engine_contention),
    "migration-stall": Program("migration-stall", device_faults.migration_stall),
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
    """Run the command."""
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
