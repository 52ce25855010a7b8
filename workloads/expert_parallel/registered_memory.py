"""Memory that NCCL reads and writes in place: from its allocator and registered with the group.

From other memory, NCCL kernels copy rows into a buffer of the receiving GPU, where other kernels copy them out of it.
"""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from functools import cache
from typing import Any

from moeprof.workloads.expert_parallel import layout as ep


@cache
def _pool() -> Any:
    """The pool of such memory in this process; None with another backend, an older torch, or one rank."""
    import torch
    import torch.distributed as dist

    backend = dist.group.WORLD._get_backend(ep.rank_device("cuda"))
    if ep.ranks().count == 1 or not (hasattr(backend, "register_mem_pool") and hasattr(backend, "mem_allocator")):
        return None
    ep.barrier("cuda")  # only an initialised communicator registers memory
    pool = torch.cuda.MemPool(backend.mem_allocator)
    backend.register_mem_pool(pool)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(pool))  # never freed: at exit its communicator is gone before it
    return pool


def registered(device: str) -> bool:
    """Whether ``zeros`` returns memory that NCCL uses in place; every rank must call it."""
    return device == "cuda" and _pool() is not None


def facts(device: str) -> dict[str, str]:
    """``registered`` as a fact of a step."""
    return {"buffers": "registered with NCCL" if registered(device) else "plain memory"}


def zeros(shape: tuple[int, ...], dtype: Any, device: str) -> Any:
    """A tensor of zeros to be sent or received; every rank must call it."""
    import torch

    with torch.cuda.use_mem_pool(_pool()) if registered(device) else nullcontext():
        return torch.zeros(*shape, dtype=dtype, device=ep.rank_device(device))
