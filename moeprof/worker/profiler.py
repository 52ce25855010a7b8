"""Attach a profiler to the measured region from inside the worker."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from moeprof.errors import WorkloadError
from moeprof.worker import nvtx
from moeprof.worker.clock_offset import Anchor


def recorder(profiler: str, out: str | None, device: str, leads: bool = True) -> AbstractContextManager[Any]:
    """The context in which the measured region runs: "nsys", "ncu", "torch" (writes ``out``) or "none". Of several ranks under
    one nsys only the one that ``leads`` starts and stops it; the others push their ranges."""
    if profiler == "nsys" and leads:
        return _capture_range()
    if profiler in ("nsys", "ncu"):
        nvtx.enable_nvtx()
        return nullcontext()
    if profiler == "torch":
        if out is None:
            raise WorkloadError(
                "torch.profiler needs the path of the trace to write", "give measurement.out in the spec"
            )
        return _torch_trace(out, device)
    return nullcontext()


def anchors(numbers: Iterable[int]) -> list[Anchor]:
    """Push a range of each number: the host's clock before and after it began."""
    pushed = []
    for number in numbers:
        before = time.time_ns()
        with nvtx.region(nvtx.CLOCK, number):
            pushed.append(Anchor(before, time.time_ns()))
    return pushed


@contextmanager
def _capture_range() -> Iterator[None]:
    """NVTX ranges on, and the profiler started and stopped by its API, so that set-up is not traced."""
    import torch

    nvtx.enable_nvtx()
    torch.cuda.cudart().cudaProfilerStart()
    try:
        yield
    finally:
        torch.cuda.cudart().cudaProfilerStop()
        nvtx.disable()


@contextmanager
def _torch_trace(out: str, device: str) -> Iterator[None]:
    nvtx.enable(range_of)
    try:
        with profiler(device) as recorded:
            yield
    finally:
        nvtx.disable()
    recorded.export_chrome_trace(out)


def range_of(name: str, payload: int | None) -> AbstractContextManager[Any]:
    """A range in the trace of torch.profiler, named moeprof:NAME[:PAYLOAD]."""
    import torch

    label = f"{nvtx.DOMAIN}:{name}" if payload is None else f"{nvtx.DOMAIN}:{name}:{payload}"
    return torch.profiler.record_function(label)


def profiler(device: str) -> Any:
    """torch.profiler for CPU operators of all threads and, on a GPU, kernels and copies."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    every_thread = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    return profile(activities=activities, experimental_config=every_thread)
