"""Launch the decode attention of cuda/decode_attention.cu as an operator of torch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from moeprof.errors import UsageError
from moeprof.workloads.common import nvcc
from moeprof.workloads.decode.attention import Cache
from moeprof.workloads.decode.sequences import LOG2E
from moeprof.workloads.decode.split_kv import program_count

SOURCE = "decode_attention.cu"
ROWS, MAX_BATCH, WIDTHS = 16, 1024, (64, 128)


@cache
def library(capability: tuple[int, int]) -> tuple[ctypes.CDLL, nvcc.Built]:
    """The built library with typed launchers."""
    built = nvcc.build(SOURCE, capability)
    opened = built.load()
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    opened.moeprof_decode.argtypes = [*[pointer] * 8, *[integer] * 5, ctypes.c_float, integer, pointer]
    opened.moeprof_decode_programs.argtypes = [integer, ctypes.POINTER(integer)]
    return opened, built


@cache
def operator() -> Any:
    """The launcher as an operator of torch, for torch.compile and CUDA graphs; one for each process."""
    changed = ("out", "parts", "stats", "counts")

    @torch.library.custom_op("moeprof::decode", mutates_args=changed)
    def decode(  # noqa: PLR0917 - what the launcher takes
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor, out: torch.Tensor, parts: torch.Tensor, stats: torch.Tensor,
        counts: torch.Tensor, scale: float,
    ) -> None:  # fmt: skip
        opened, _ = library(torch.cuda.get_device_capability(q.device))
        batch, heads, capacity, width = k.shape
        pointers = (t.data_ptr() for t in (q, k, v, lengths, out, parts, stats, counts))
        with torch.cuda.device(q.device):
            stream = torch.cuda.current_stream().cuda_stream
            status = opened.moeprof_decode(
                *pointers, batch, heads, q.shape[1] // heads, capacity, width, scale * LOG2E, parts.shape[0] // 2, stream
            )  # fmt: skip
        nvcc.check_launch(status, "the launch of decode attention")

    @decode.register_fake
    def _(*arguments: Any) -> None:
        return None

    return decode


def launcher(kv: Cache, scale: float, whole: bool) -> Callable[[], object]:
    """A function that launches the kernel over a cache. ``whole``: as many blocks as get equally many whole heads of sequences.

    Raises:
        UsageError: the kernel has no version for these sizes or this dtype.
    """
    batch, heads, _, width = kv.k.shape
    group = kv.q.shape[1] // heads
    if kv.q.dtype != torch.bfloat16 or width not in WIDTHS or group > ROWS or batch > MAX_BATCH:
        raise UsageError(
            f"the CUDA kernel has no version for {kv.q.dtype}, head_dim {width}, {group} heads a group, batch {batch}",
            f"give bfloat16, head_dim 64 or 128, groups up to {ROWS}, batch up to {MAX_BATCH}",
        )
    opened, _ = library(torch.cuda.get_device_capability())
    programs = ctypes.c_int()
    nvcc.check_launch(
        opened.moeprof_decode_programs(width, ctypes.byref(programs)), "the occupancy of decode attention"
    )
    blocks = program_count(programs.value, batch * heads, whole)
    parts = torch.zeros(2 * blocks, ROWS, width, device="cuda")
    stats = torch.zeros(2 * blocks, 2, ROWS, device="cuda")
    counts = torch.zeros(batch * heads, dtype=torch.int32, device="cuda")
    return lambda: operator()(kv.q, kv.k, kv.v, kv.lengths, kv.out, parts, stats, counts, scale)
