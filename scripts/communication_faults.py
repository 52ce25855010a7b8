"""Planted faults of communication, in two ranks on two GPUs. Used by faults.py; not a command."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from fault_parts import DEVICE, Step

CHUNKS, SIZE, INNER = 4, 8192, 2048  # a product of 275 GFLOP, then an all-reduce of 256 MiB
ENVIRONMENT = {
    "NCCL_NVLS_ENABLE": "0",  # no NVLink multicast: not every machine lets a program use it
    "NCCL_MAX_CTAS": "8",  # few SMs are taken from the products
    "TORCH_NCCL_HIGH_PRIORITY": "1",  # NCCL's blocks need not wait for those of the products
}


def join(rank: int, ranks: int, meeting_point: str) -> None:
    """Join the process group of the ranks, each on the GPU of its number."""
    os.environ.update(ENVIRONMENT)
    torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl", init_method=f"file://{meeting_point}", rank=rank, world_size=ranks, device_id=torch.device("cuda", rank)
    )


def leave() -> None:
    """Leave the process group."""
    dist.destroy_process_group()


def exposed_communication(mended: bool) -> Step:
    """Each product waits for the all-reduce of the one before; mended it runs beside it.

    The products are of float32: their many blocks share the SMs with NCCL, as those of a persistent kernel cannot.
    """
    a = torch.randn(SIZE, INNER, device=DEVICE)
    b = torch.randn(INNER, SIZE, device=DEVICE)
    outs = [torch.empty(SIZE, SIZE, device=DEVICE) for _ in range(CHUNKS)]
    pending: list[Any] = [None] * CHUNKS

    def step() -> None:
        for chunk, out in enumerate(outs):
            if pending[chunk] is not None:
                pending[chunk].wait()
            torch.mm(a, b, out=out)
            pending[chunk] = dist.all_reduce(out, async_op=True) if mended else dist.all_reduce(out)

    return step
