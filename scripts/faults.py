#!/usr/bin/env python3
"""Small GPU programs with one planted fault each, the same program without it (mended), and healthy controls.

usage: faults.py NAME faulty|mended [--steps N] [--whole] [--bare]
       faults.py --time [NAME ...] [--steps N]

The first form runs one program to be traced: between cudaProfilerStart and Stop unless --whole, with an NVTX range "step"
around each step unless --bare. The second times both forms without a profiler and prints JSON: name -> form -> ms per step.
A program of several ranks needs as many GPUs; its ranks are processes of this command.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import communication_faults
import copy_faults
import device_faults
import host_faults
import loading_faults
import torch
from fault_parts import DEVICE, Step, captured, gemm, pipeline

RANKS_LIMIT_S = 120.0  # for the ranks of one program
LISTENING_S = 1.0  # from the first rank's cudaProfilerStart until nsys records the other ranks


@dataclass(frozen=True)
class Program:
    """A program; ``expected``: the id of the finding, None for a healthy program.

    ``build(mended)`` sets up and returns one step; where ``loads``, it returns a load, which is traced and returns the step.
    ``warm``: steps run before the trace begins. ``ranks``: processes, each on a GPU of its own.
    """

    expected: str | None
    build: Callable[[bool], Callable[[], Any]]
    warm: bool = True
    loads: bool = False
    ranks: int = 1


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
    "copy-like-kernels": Program("copy-like-kernels", device_faults.copy_like_kernels),
    "copy-engine-contention": Program("copy-engine-contention", copy_faults.copy_engine_contention),
    "migration-stall": Program("migration-stall", device_faults.migration_stall),
    "slow-loading": Program("slow-loading", loading_faults.slow_loading, warm=False, loads=True),
    "slow-compilation": Program("slow-loading", loading_faults.slow_compilation, warm=False, loads=True),
    "slow-modules": Program("slow-loading", loading_faults.slow_modules, warm=False, loads=True),
    "exposed-communication": Program("exposed-communication", communication_faults.exposed_communication, ranks=2),
    "far-ahead": Program(None, far_ahead),
    "graph-replays": Program(None, graph_replays),
    "hidden-copies": Program(None, hidden_copies),
    "event-wait": Program(None, event_wait),
    "readback": Program(None, readback),
}


def too_few_gpus(name: str) -> str:
    """Why the program of this name cannot run here, in a line; "" where it can."""
    needed, there = PROGRAMS[name].ranks, torch.cuda.device_count()
    return f"{name}: left out, it needs {needed} GPUs and this machine has {there}" if needed > there else ""


def no_wait() -> None:
    """The meeting of a program of one rank."""


def run(
    program: Program, mended: bool, steps: int, whole: bool, bare: bool, meet: Step = no_wait, rank: int = 0
) -> None:
    """One traced run. ``meet`` returns when every rank has called it; the first rank starts and stops the profiler."""
    step = program.build(mended)
    for _ in range(3 if program.warm else 0):
        step()
    torch.cuda.synchronize()
    meet()
    if not whole and rank == 0:
        torch.cuda.profiler.start()
        time.sleep(LISTENING_S if program.ranks > 1 else 0)
    meet()
    if program.loads:
        step = step()
    for _ in range(steps):
        if bare:
            step()
        else:
            with torch.cuda.nvtx.range("step"):
                step()
    torch.cuda.synchronize()
    meet()
    if not whole and rank == 0:
        torch.cuda.profiler.stop()
    meet()


def timed(program: Program, steps: int, meet: Step = no_wait) -> dict[str, float]:
    """Milliseconds a step of both forms, in turn, the median of five rounds; a cold program counts its first step and its load."""
    forms = {"faulty": False, "mended": True}
    if not program.warm:
        return {name: _round(program.build(mended), steps, meet, program.loads) for name, mended in forms.items()}
    built = {name: program.build(mended) for name, mended in forms.items()}
    for step in built.values():
        _round(step, 3, meet)
    rounds = [{name: _round(step, steps, meet) for name, step in built.items()} for _ in range(5)]
    return {name: statistics.median(r[name] for r in rounds) for name in forms}


def _round(step: Callable[[], Any], steps: int, meet: Step, loads: bool = False) -> float:
    torch.cuda.synchronize()
    meet()
    begun = time.perf_counter()
    if loads:
        step = step()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - begun) / steps * 1e3


def on_ranks(name: str, job: Callable[..., Any], *args: Any) -> Any:
    """What ``job`` (``run`` or ``timed``) returns on the first rank of the program of this name."""
    program = PROGRAMS[name]
    if program.ranks == 1:
        return job(program, *args)
    spawned = multiprocessing.get_context("spawn")
    meeting, results = spawned.Barrier(program.ranks), spawned.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        point = str(Path(folder) / "ranks")
        processes = [
            spawned.Process(target=_rank, args=(name, rank, point, meeting, results, job, args), daemon=True)
            for rank in range(program.ranks)
        ]
        for process in processes:
            process.start()
        _join(processes)
    failed = [str(rank) for rank, process in enumerate(processes) if process.exitcode]
    if failed:
        raise SystemExit(f"{name}: rank {', '.join(failed)} failed")
    return results.get()


def _join(processes: list[Any]) -> None:
    """Wait for all processes; where one fails or the time is over, end the others."""
    until = time.monotonic() + RANKS_LIMIT_S
    while any(process.is_alive() for process in processes):
        if any(process.exitcode for process in processes) or time.monotonic() > until:
            for process in processes:
                process.terminate()
        time.sleep(0.05)


def _rank(
    name: str, rank: int, point: str, meeting: Any, results: Any, job: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    program = PROGRAMS[name]
    try:
        communication_faults.join(rank, program.ranks, point)
        further = {"rank": rank} if job is run else {}
        result = job(program, *args, meet=meeting.wait, **further)
    except BaseException:
        meeting.abort()  # or the other ranks would wait for this one
        raise
    if rank == 0:
        results.put(result)
    communication_faults.leave()


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
            if too_few_gpus(name):
                print(too_few_gpus(name), file=sys.stderr)
                continue
            print(json.dumps({name: on_ranks(name, timed, args.steps)}), flush=True)
        return 0
    name, form = args.names
    on_ranks(name, run, form == "mended", args.steps, args.whole, args.bare)
    return 0


if __name__ == "__main__":
    sys.exit(main())
