"""Launch the latent attention of cuda/latent_attention.cu as an operator of torch."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch

from moeprof.workload.model import Machine
from moeprof.workloads.common import nvcc

SOURCE = "latent_attention.cu"
HEADS, MAX_BATCH = 64, 1024
CAPABILITY = (9, 0)  # the only one with wgmma


def fits(batch: int, heads: int) -> bool:
    """Whether the kernel takes these sizes on this GPU and can be built for it."""
    if heads % HEADS or batch > MAX_BATCH or torch.cuda.get_device_capability() != CAPABILITY:
        return False
    return nvcc.needs_tma(Machine(cuda=True, gpus=1, compute_capability="9.0")) is None


@cache
def library() -> ctypes.CDLL:
    """The built library with a typed launcher."""
    opened = nvcc.build(SOURCE, CAPABILITY).load()
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    opened.moeprof_latent.argtypes = [*[pointer] * 6, *[integer] * 3, ctypes.c_float, integer, pointer]
    return opened


@cache
def operator() -> Any:
    """The launcher as an operator of torch, for torch.compile and CUDA graphs; one for each process."""

    @torch.library.custom_op("moeprof::latent", mutates_args=("out", "parts", "stats"))
    def latent(
        q: torch.Tensor, c: torch.Tensor, lengths: torch.Tensor, out: torch.Tensor, parts: torch.Tensor, stats: torch.Tensor, scale: float,
    ) -> None:  # fmt: skip
        batch, heads, _ = q.shape
        pointers = (t.data_ptr() for t in (q, c, lengths, out, parts, stats))
        with torch.cuda.device(q.device):
            stream = torch.cuda.current_stream().cuda_stream
            status = library().moeprof_latent(*pointers, batch, heads, c.shape[1], scale, parts.shape[0] // 2, stream)
        nvcc.check_launch(status, "the launch of latent attention")

    @latent.register_fake
    def _(*arguments: Any) -> None:
        return None

    return latent
