"""One variant in this process: what machine it runs on, the variant built, proven, timed and run under ranges."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from moeprof.worker import nvtx
from moeprof.worker.messages import Versions
from moeprof.workload.model import Machine, Proof, Step, Variant, Workload

MIN_ITERATIONS = 3
MAX_ITERATIONS = 400
WARM_UP = 3
WARM_SECONDS = 0.02  # untimed, at the start of a round: another variant ran since this one did


def machine(device: str, ranks: int = 1) -> Machine:
    """The facts of this machine as torch sees them; ``device`` "cpu" hides the GPUs, ``ranks`` is how many are to run."""
    import torch

    cuda = device == "cuda" and torch.cuda.is_available()
    gpus = torch.cuda.device_count() if cuda else 0
    major_minor = ".".join(map(str, torch.cuda.get_device_capability(0))) if cuda else None
    return Machine(
        cuda=cuda,
        gpus=gpus,
        gpu_name=torch.cuda.get_device_name(0) if cuda else None,
        compute_capability=major_minor,
        linked=gpus > 1 and torch.cuda.can_device_access_peer(0, 1),
        cpus=os.cpu_count() or 1,
        torch=torch.__version__,
        ranks=ranks,
    )


def gpu_uuid(device: str, index: int = 0) -> str | None:
    """The UUID of torch's GPU ``index``, whose index in NVML may differ; None on a CPU, or if torch (before 2.4) has none."""
    import torch

    if device != "cuda" or not torch.cuda.is_available():
        return None
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    return None if uuid is None else str(uuid)


def versions() -> Versions:
    """Versions of what the workload runs on."""
    import torch

    return Versions(platform.python_version(), torch.__version__, torch.version.cuda)


class Session:
    """One variant on one device: built once, then proven, timed or run under ranges."""

    def __init__(self, workload: Workload, variant: Variant, device: str, params: dict[str, Any]) -> None:
        self.workload, self.variant, self.device, self.params = workload, variant, device, params
        self.step: Step = variant.build(params, device)

    def prove(self) -> Proof:
        """The workload's own proof of this variant."""
        return self.workload.prove(self.params, self.device, self.step)

    def synchronise(self) -> None:
        """Wait for all work of the device."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def warm_up(self) -> None:
        """Run a few iterations untimed."""
        for _ in range(WARM_UP):
            self.step.run()
        self.synchronise()

    def round(self, seconds: float) -> list[int]:
        """Clean times of single iterations in ns, for about ``seconds``; the iterations before them warm up."""
        return timed(self.times, seconds)

    def times(self, count: int) -> list[int]:
        """``count`` iterations back to back: CUDA events between them on a GPU, a clock on a CPU."""
        if self.device != "cuda":
            return [_clocked(self.step.run) for _ in range(count)]
        import torch

        marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        marks[0].record()
        for mark in marks[1:]:
            self.step.run()
            mark.record()
        torch.cuda.synchronize()
        return [round(a.elapsed_time(b) * 1e6) for a, b in pairwise(marks)]

    def measured(self, iterations: int) -> None:
        """``iterations`` under ranges workload/variant > measure > iteration i; ends with a synchronise."""
        with nvtx.region(f"{self.workload.name}/{self.variant.name}"), nvtx.region(nvtx.MEASURE):
            for number in range(iterations):
                with nvtx.region(nvtx.ITERATION, number):
                    self.step.run()
            self.synchronise()


def timed(times: Callable[[int], list[int]], seconds: float) -> list[int]:
    """Clean times in ns by ``times(count)``, for about ``seconds``; the iterations before them warm up."""
    warm = times(_count(times(1)[0], WARM_SECONDS, 1))
    return times(_count(min(warm), seconds, MIN_ITERATIONS) + 1)[1:]


def _count(iteration_ns: int, seconds: float, least: int) -> int:
    return max(least, min(MAX_ITERATIONS, round(seconds * 1e9 / max(iteration_ns, 1))))


def _clocked(run: Callable[[], None]) -> int:
    start = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - start
