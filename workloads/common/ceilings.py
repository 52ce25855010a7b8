"""Measure the fastest that this machine reaches: large GEMMs, reading and copying memory, its links, launching kernels.

``python -m moeprof.workloads.common.ceilings cuda`` prints all of them as one JSON object in some ten seconds.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from moeprof.workloads.common.timing import seconds

SUSTAINED_S = 0.3  # an H200 reaches its clock under load within 0.15 s
READ_BYTES = 1 << 30  # several times any cache
BLOCK, TIMES = 4096, 4


def gemm_tflop_per_s(dtype: Any, device: str) -> float:
    """TFLOP/s of one square GEMM on random data under sustained load: 8192 a side on a GPU, 1024 on a CPU."""
    import torch

    side = 8192 if device == "cuda" else 1024
    a, b = (torch.empty(side, side, dtype=dtype, device=device).normal_() for _ in range(2))
    out = torch.empty_like(a)
    return 2 * side**3 / sustained(lambda: torch.mm(a, b, out=out), device) / 1e12


def read_gb_per_s(device: str) -> float:
    """GB/s of reading READ_BYTES once (CPU: a sixteenth of them, by torch's sum)."""
    import torch

    size = READ_BYTES if device == "cuda" else READ_BYTES // 16
    data = torch.zeros(size // 4, dtype=torch.float32, device=device)
    if device != "cuda":
        return size / seconds(data.sum, device, 2, graph=False) / 1e9
    from moeprof.workloads.common import stream_kernels

    programs = len(data) // (BLOCK * TIMES)
    sums = torch.empty(programs, device=device)
    read_s = seconds(
        lambda: stream_kernels.read[(programs,)](data, sums, BLOCK=BLOCK, TIMES=TIMES), device, 10, graph=True
    )
    return size / read_s / 1e9


def sustained(action: Any, device: str) -> float:
    """Seconds of one ``action`` after the clocks have settled under load."""
    return seconds(action, device, repeats=4, graph=False, warm_s=SUSTAINED_S)


def copy_gb_per_s(target: Any, source: Any, device: str) -> float:
    """GB/s of copying ``source`` to ``target`` repeatedly, its bytes counted once."""
    graph = device == "cuda" and target.device == source.device
    copy_s = seconds(lambda: target.copy_(source, non_blocking=True), device, 8, graph=graph)
    return float(source.nbytes / copy_s / 1e9)


def fp8_tflop_per_s() -> float:
    """TFLOP/s of one square e4m3 GEMM of 8192 a side with scales of one."""
    import torch

    side, unit_scale = 8192, torch.ones((), device="cuda")
    a, b = (torch.randn(side, side, device="cuda").to(torch.float8_e4m3fn) for _ in range(2))
    return (
        2
        * side**3
        / sustained(lambda: torch._scaled_mm(a, b.t(), unit_scale, unit_scale, out_dtype=torch.bfloat16), "cuda")
        / 1e12
    )


def launch_us(graph: bool) -> float:
    """Microseconds from one tiny kernel to the next: launched one by one by torch, or as nodes of one CUDA graph."""
    import torch

    small = torch.zeros(1, device="cuda")
    return 1e6 * seconds(lambda: small.add_(1), "cuda", 1000, graph=graph)


def all_ceilings(device: str) -> dict[str, float]:
    """All ceilings of this machine by name."""
    import torch

    size = READ_BYTES if device == "cuda" else READ_BYTES // 16
    here, there = (torch.zeros(size // 4, device=device) for _ in range(2))
    ceilings = {"read_gb_per_s": read_gb_per_s(device), "copy_gb_per_s": 2 * copy_gb_per_s(there, here, device)}
    kinds = ("bfloat16", "float16", "float32") if device == "cuda" else ("float32",)
    ceilings |= {f"gemm_{kind}_tflop_per_s": gemm_tflop_per_s(getattr(torch, kind), device) for kind in kinds}
    if device != "cuda":
        return ceilings
    if torch.cuda.get_device_capability() >= (8, 9):
        ceilings["gemm_float8_tflop_per_s"] = fp8_tflop_per_s()
    pinned = torch.zeros(size // 16, pin_memory=True)
    part = here[: len(pinned)]
    ceilings |= {
        "h2d_pinned_gb_per_s": copy_gb_per_s(part, pinned, device),
        "d2h_pinned_gb_per_s": copy_gb_per_s(pinned, part, device),
    }
    if torch.cuda.device_count() > 1 and torch.cuda.can_device_access_peer(0, 1):
        ceilings["peer_gb_per_s"] = copy_gb_per_s(torch.zeros(len(here), device="cuda:1"), here, device)
    return ceilings | {"launch_eager_us": launch_us(graph=False), "launch_graph_node_us": launch_us(graph=True)}


if __name__ == "__main__":
    print(json.dumps(all_ceilings(sys.argv[1])))
