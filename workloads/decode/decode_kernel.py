"""The inner loop of a decode kernel in CUDA C++: from a tile copied by all threads to a pipeline of bulk copies.

  baseline       the block copies a tile to shared memory, waits, computes, waits
  vectorized     no shared memory: eight 128-bit loads in flight a thread
  tma            the tile comes by cp.async.bulk, two stages: the next one loads while this one is computed
  tma_pipelined  six stages, a producer warp, lines evicted first from L2

cache [slices, rows, 128] bf16, query [slices, 128] bf16, out [slices, 128] fp32: out[s] = sum over r of (cache[s, r] . query[s]) cache[s, r] / rows.
Every byte is read once and used twice. The source is cuda/stream_tile.cu; nvcc builds it on first use. A whole attention in CUDA
is the variant `cuda` of decode_attention.
"""

from __future__ import annotations

import ctypes
from functools import partial
from typing import Any

from moeprof.workload.bounds import Roofline
from moeprof.workload.model import Params, Step, Variant, Workload
from moeprof.workloads.common import nvcc
from moeprof.workloads.common.timing import captured
from moeprof.workloads.decode import check, stream
from moeprof.workloads.decode.faults import STREAM_FAULTS


def build(name: str, params: Params, device: str) -> Step:
    """One version of the kernel, captured in a CUDA graph."""
    import torch

    operands, variant = stream.tensors(params, device), stream.NAMES.index(name)
    opened, built = stream.library(torch.cuda.get_device_capability())
    programs = ctypes.c_int()
    nvcc.check_launch(opened.moeprof_stream_programs(variant, ctypes.byref(programs)), f"the occupancy of {name}")
    blocks = programs.value
    if params["per_sm"] > 0:
        blocks = min(blocks, params["per_sm"] * torch.cuda.get_device_properties(0).multi_processor_count)
    parts = torch.zeros(2 * blocks, stream.COLS, device=device)
    counts = torch.zeros(params["slices"], dtype=torch.int32, device=device)
    replay = captured(lambda: stream.operator()(*operands, parts, counts, variant))
    return stream.step(params, operands, replay, (parts,), facts=lambda: {**built.usage(name), "blocks": blocks})


DEFAULT: dict[str, Any] = {"slices": 1024, "rows": 8192, "per_sm": 2, "seed": 0}

WORKLOAD = Workload(
    name="decode_kernel",
    summary="the inner loop of a decode kernel in CUDA: tile by all threads, wide loads, bulk copies, a pipeline of bulk copies",
    variants=(
        Variant("baseline", "tile to shared memory, barrier, compute, barrier", partial(build, "baseline"), nvcc.needs_nvcc),
        Variant("vectorized", "eight 128-bit loads in flight a thread, no shared memory", partial(build, "vectorized"), nvcc.needs_nvcc),
        Variant("tma", "bulk copies on an mbarrier, two stages", partial(build, "tma"), nvcc.needs_tma),
        Variant("tma_pipelined", "six stages, a producer warp, evict first", partial(build, "tma_pipelined"), nvcc.needs_tma),
    ),
    baseline="baseline",
    optimized="tma_pipelined",
    presets={"default": DEFAULT, "full": {**DEFAULT, "per_sm": 0}, "gb10": {**DEFAULT, "slices": 64}, "tiny": {**DEFAULT, "slices": 3, "rows": 256}},
    prove=check.prove_stream,
    limit=Roofline(flops_ceiling="gemm_tflop_per_s", bytes_ceiling="read_gb_per_s"),
    faults=STREAM_FAULTS,
    ceilings=check.stream_ceilings,
    shows="bytes in flight saturate memory: wide loads nearly do, bulk copies do without using threads or registers",
    counted=1,
    stalls=True,
)  # fmt: skip

if __name__ == "__main__":
    from moeprof.worker.script import main

    main(WORKLOAD)
