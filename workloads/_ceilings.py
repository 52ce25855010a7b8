"""What this machine reaches at best, measured: one large GEMM, and reading memory once."""

from __future__ import annotations

from typing import Any

from moeprof.workloads._timing import seconds

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
    """GB/s of reading READ_BYTES once (CPU: a sixteenth of it, as torch sums)."""
    import torch

    size = READ_BYTES if device == "cuda" else READ_BYTES // 16
    data = torch.zeros(size // 4, dtype=torch.float32, device=device)
    if device != "cuda":
        return size / seconds(data.sum, device, 2, graph=False) / 1e9
    from moeprof.workloads import _stream_kernels

    programs = len(data) // (BLOCK * TIMES)
    sums = torch.empty(programs, device=device)
    taken = seconds(
        lambda: _stream_kernels.read[(programs,)](data, sums, BLOCK=BLOCK, TIMES=TIMES), device, 10, graph=True
    )
    return size / taken / 1e9


def sustained(action: Any, device: str) -> float:
    """Seconds of one ``action`` once the clocks have settled under it."""
    return seconds(action, device, repeats=4, graph=False, warm_s=SUSTAINED_S)
