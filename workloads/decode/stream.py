"""The work of decode_kernel: its tensors, the launcher of cuda/stream_tile.cu, the step, the reference."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from moeprof.errors import UsageError
from moeprof.workload.model import Params, Step
from moeprof.workloads.common import nvcc

SOURCE = "stream_tile.cu"
COLS, TILE_ROWS = 128, 64
NAMES = ("baseline", "vectorized", "tma", "tma_pipelined")
SCHEMA = "(Tensor cache, Tensor query, Tensor(a2!) out, Tensor(a3!) parts, Tensor(a4!) counts, int variant) -> ()"


def tensors(params: Params, device: str) -> tuple[Any, Any, Any]:
    """cache [slices, rows, COLS] and query [slices, COLS] in bf16 from the seed, out [slices, COLS] in fp32."""
    import torch

    if params["rows"] < 1 or params["rows"] % TILE_ROWS or params["slices"] < 1:
        raise UsageError(
            f"rows={params['rows']} are no multiple of {TILE_ROWS}",
            f"give rows a multiple of {TILE_ROWS}, slices above 0",
        )
    source = torch.Generator(device=device).manual_seed(params["seed"])
    cached = torch.empty(params["slices"], params["rows"], COLS, dtype=torch.bfloat16, device=device)
    for part in cached:
        part.copy_(torch.randn(params["rows"], COLS, generator=source, device=device))
    query = torch.randn(params["slices"], COLS, generator=source, device=device).bfloat16()
    return cached, query, torch.empty(params["slices"], COLS, dtype=torch.float32, device=device)


@cache
def library(capability: tuple[int, int]) -> tuple[ctypes.CDLL, nvcc.Built]:
    """The built library with typed launchers."""
    built = nvcc.build(SOURCE, capability)
    opened = built.load()
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    opened.moeprof_stream.argtypes = [integer, *[pointer] * 5, integer, integer, integer, pointer]
    opened.moeprof_stream_programs.argtypes = [integer, ctypes.POINTER(integer)]
    return opened, built


@cache
def operator() -> Any:
    """The launcher as an operator of torch, for torch.compile and CUDA graphs; one for each process."""
    import torch

    @torch.library.custom_op("moeprof::stream", mutates_args=("out", "parts", "counts"), schema=SCHEMA)
    def stream(cache: Any, query: Any, out: Any, parts: Any, counts: Any, variant: int) -> None:
        opened, _ = library(torch.cuda.get_device_capability(cache.device))
        pointers = (t.data_ptr() for t in (cache, query, out, parts, counts))
        with torch.cuda.device(cache.device):
            current = torch.cuda.current_stream().cuda_stream
            status = opened.moeprof_stream(
                variant, *pointers, cache.shape[0], cache.shape[1], parts.shape[0] // 2, current
            )
        nvcc.check_launch(status, f"the launch of {NAMES[variant]}")

    @stream.register_fake
    def _(cache: Any, query: Any, out: Any, parts: Any, counts: Any, variant: int) -> None:
        return None

    return stream


def step(
    params: Params, operands: tuple[Any, Any, Any], run: Callable[[], None], scratch: tuple[Any, ...] = (), **more: Any
) -> Step:
    cached, query, out = operands

    def poison() -> None:
        for buffer in (out, *scratch):
            buffer.fill_(float("nan"))

    moved = cached.nbytes + query.nbytes + out.nbytes
    return Step(run, lambda: out, poison, 4 * cached.numel(), moved, **more)


def reference(operands: tuple[Any, Any, Any]) -> Any:
    """The reduction [slices, COLS] in float64, slice by slice."""
    import torch

    cached, query, _ = operands
    return torch.stack(
        [((part.double() @ q.double()) @ part.double()) / len(part) for part, q in zip(cached, query, strict=True)]
    )
