"""Decode attention: one new token a sequence against its whole KV cache, from a loop over heads to one pass.

  naive     per head: matmul, softmax, matmul
  sdpa      scaled_dot_product_attention, its backend pinned (parameter backend: flash or cudnn)
  math      the same with the math backend, which runs if the fused kernels are missing; it may be slower than naive
  split_kv  one Triton kernel: the heads of a group share a tile, all blocks of all sequences in equal parts, combined inside
  cuda      the one pass in CUDA C++ (cuda/decode_attention.cu): bulk copies by a producer warp, tensor cores
  paged     the Triton pass over pages and a block table (parameter page)

q [B, HQ, D], k and v [B, HKV, S, D], HQ / HKV heads share keys. The work is to read the cache once: B S HKV 2 D values. The tail
past each sequence's length is NaN and the table's entries past it point outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from moeprof.errors import UsageError
from moeprof.workload.bounds import Roofline
from moeprof.workload.model import Params, Step, Variant, Workload, needs_cuda
from moeprof.workloads.common import nvcc
from moeprof.workloads.common.timing import captured
from moeprof.workloads.decode import check, sequences
from moeprof.workloads.decode.attention import Cache, cache, step
from moeprof.workloads.decode.attention_paged import paged
from moeprof.workloads.decode.attention_sdpa import build_sdpa
from moeprof.workloads.decode.faults import ATTENTION_FAULTS


def build_naive(params: Params, device: str) -> Step:
    """A loop over the heads: three or four launches each."""
    import torch

    group, scale = params["q_heads"] // params["kv_heads"], params["head_dim"] ** -0.5

    def make(kv: Cache) -> Callable[[], None]:
        parts = sequences.equal_lengths(kv.lengths.tolist())

        def run() -> None:
            for part, count in parts:
                for head in range(params["q_heads"]):
                    k, v = kv.k[part, head // group, :count], kv.v[part, head // group, :count]
                    scores = torch.bmm(kv.q[part, head : head + 1], k.transpose(1, 2)) * scale
                    kv.out[part, head : head + 1] = torch.bmm(torch.softmax(scores, -1), v)

        return run

    return step(params, device, cache(params, device), make, slack=sequences.ROUNDED)


def _build_triton(name: str, params: Params, device: str, first: Cache, table: Any = None) -> Step:
    """The Triton kernel in its fastest configuration, over a contiguous cache or over pages and their table."""
    from moeprof.workloads.decode import attention_split_kv, split_kv

    scale = params["head_dim"] ** -0.5
    key = [name, *first.q.shape, *first.k.shape, str(first.lengths.tolist()), params["dtype"]]
    config = split_kv.fastest_config(
        key, attention_split_kv.CONFIGS, lambda config: attention_split_kv.decode(config, first, scale, table)[0]
    )

    def make(kv: Cache) -> Callable[[], None]:
        return captured(attention_split_kv.decode(config, kv, scale, table)[0])

    return step(params, device, first, make, facts=lambda: split_kv.config_facts(config))


def build_split_kv(params: Params, device: str) -> Step:
    """One Triton kernel over a contiguous cache."""
    return _build_triton("decode", params, device, cache(params, device))


def build_paged(params: Params, device: str) -> Step:
    """The same kernel over pages."""
    if params["page"] < 1 or params["page"] & (params["page"] - 1) or params["page"] > sequences.GRAIN:
        raise UsageError(f"parameter page={params['page']} is no power of two up to {sequences.GRAIN}", "give 16 or 64")
    kv = cache(params, device)
    k, v, table = paged(kv, params["page"], params["seed"])
    return _build_triton("paged", params, device, replace(kv, k=k, v=v), table)


def build_cuda(params: Params, device: str) -> Step:
    """The same idea in CUDA C++: bulk copies by a producer warp, four warps with 16 keys of a tile each."""
    from moeprof.workloads.decode import attention_cuda, split_kv

    kv, scale = cache(params, device), params["head_dim"] ** -0.5
    key = ["cuda", *kv.q.shape, *kv.k.shape, str(kv.lengths.tolist())]
    config = split_kv.fastest_config(
        key,
        [{"whole": whole} for whole in (False, True)],
        lambda config: attention_cuda.launcher(kv, scale, config["whole"]),
    )
    facts = {"parts": "whole units" if config["whole"] else "equal"}
    return step(
        params,
        device,
        kv,
        lambda kv: captured(attention_cuda.launcher(kv, scale, config["whole"])),
        facts=lambda: facts,
    )


LLAMA8B: dict[str, Any] = {
    "batch": 32, "q_heads": 32, "kv_heads": 8, "length": 4096, "lengths": "", "head_dim": 128, "page": 64, "backend": "cudnn",
    "dtype": "bfloat16", "seed": 0,
}  # fmt: skip

WORKLOAD = Workload(
    name="decode_attention",
    summary="one new token against its KV cache: a loop over heads, SDPA, its math path, one Triton pass, the same over pages",
    variants=(
        Variant("naive", "per head: matmul, softmax, matmul", build_naive),
        Variant("sdpa", "scaled_dot_product_attention, backend pinned", partial(build_sdpa, None)),
        Variant("math", "SDPA's math backend", partial(build_sdpa, "math")),
        Variant("split_kv", "one Triton kernel, equal parts of all blocks", build_split_kv, needs_cuda, ("triton",)),
        Variant("cuda", "the one pass in CUDA C++, tiles by bulk copies", build_cuda, nvcc.needs_tma),
        Variant("paged", "the same over pages and a block table", build_paged, needs_cuda, ("triton",)),
    ),
    baseline="naive",
    optimized="split_kv",
    presets={
        "default": LLAMA8B,
        "llama8b": LLAMA8B,
        "seed": {**LLAMA8B, "q_heads": 12, "kv_heads": 12, "length": 512, "head_dim": 64},
        "llama70b": {**LLAMA8B, "q_heads": 64, "length": 8192},
        "qwen3": {**LLAMA8B, "batch": 64, "kv_heads": 4, "length": 8192},
        "long": {**LLAMA8B, "batch": 1, "length": 131072},
        "one": {**LLAMA8B, "batch": 1, "length": 8192},
        "ragged": {**LLAMA8B, "lengths": "4641,45118,1730,1696"},
        "gb10": {**LLAMA8B, "batch": 8},
        "tiny": {**LLAMA8B, "batch": 4, "q_heads": 8, "kv_heads": 2, "length": 384, "head_dim": 32, "page": 16, "dtype": "float32"},
    },
    prove=check.prove_attention,
    limit=Roofline(flops_ceiling="gemm_tflop_per_s", bytes_ceiling="read_gb_per_s"),
    faults=ATTENTION_FAULTS,
    ceilings=check.ceilings,
    shows="decoding is bound by reading the cache once; a fused pass removes launches and copies of the cache",
    counted=16,
    stalls=True,
)  # fmt: skip

if __name__ == "__main__":
    from moeprof.worker.script import main

    main(WORKLOAD)
