"""An MoE layer from every expert on every token to a fused sparse layer, one idea a step.

  dense       every expert computes every token, two GEMMs over all experts' weights; gates of zero mask what was not chosen
  topk        K experts a token, at most C = ceil(capacity_factor T K / E) tokens an expert: the overflow is dropped; compiled
  vectorized  the same without compiling, captured in one CUDA graph: the host neither launches nor synchronises
  grouped     nothing is dropped: a stable sort by expert, torch's grouped_mm, fused glue
  fused       the sort, the gather and SwiGLU inside two Triton GEMM kernels; six kernels a layer

The layer: x [T, H], router logits [T, E], SwiGLU experts w13 [E, 2I, H] and w2 [E, H, I]; the useful FLOPs are
6 T K H I + 2 T H E. Every variant does its own routing. topk and vectorized are proven against a reference that drops the same
assignments, the others against one that drops none. The share of dropped assignments is reported beside the time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from moeprof.workload.bounds import Roofline
from moeprof.workload.model import Params, Step, Variant, Workload, needs_cuda
from moeprof.workloads.common.timing import captured
from moeprof.workloads.router import layer as moe
from moeprof.workloads.router.check import ceilings, prove
from moeprof.workloads.router.dense import build_dense
from moeprof.workloads.router.faults import FAULTS
from moeprof.workloads.router.grouped import build_grouped
from moeprof.workloads.router.topk import build_topk, build_vectorized


def build_fused(params: Params, device: str) -> Step:
    """Routing, order, two GEMMs and combine as six Triton kernels in one CUDA graph."""
    from moeprof.workloads.router import fused  # needs Triton

    layer = moe.layer(params, device)
    layer = replace(layer, w13=fused.interleaved(layer.w13))
    choice = fused.Choice(params, layer)
    plan = fused.plan(params, layer, choice)
    replay = captured(plan.run)
    return moe.step(
        params, layer, replay, lambda: choice.ids, (choice.weights, choice.ids, plan.experts.hidden, plan.experts.results),
        exact_combine=True, figures={"rows computed / rows kept": plan.padding},
    )  # fmt: skip


SEED: dict[str, Any] = {
    "tokens": 4096, "experts": 32, "topk": 2, "hidden": 1024, "inner": 2048,
    "routing": "softmax_topk", "renormalise": True, "groups": 1, "kept_groups": 1, "scale": 1.0,
    "load": "multinomial", "capacity_factor": 1.25, "dtype": "bfloat16", "seed": 0,
}  # fmt: skip
QWEN3 = {**SEED, "experts": 128, "topk": 8, "hidden": 2048, "inner": 768}
MIXTRAL = {**SEED, "experts": 8, "topk": 2, "hidden": 4096, "inner": 14336}

WORKLOAD = Workload(
    name="router",
    summary="an MoE layer: every expert on every token, top-k with a capacity, one CUDA graph, grouped GEMMs, fused kernels",
    variants=(
        Variant("dense", "every expert on every token, two large GEMMs, gates mask", build_dense),
        Variant("topk", "top-k with a capacity, overflow dropped, compiled", build_topk, imports=("moeprof.workloads.common.compiler",)),
        Variant("vectorized", "the same eager kernels in one CUDA graph", build_vectorized, needs_cuda),
        Variant("grouped", "dropless: stable sort, grouped_mm, fused glue", build_grouped, imports=("triton",)),
        Variant("fused", "gather and SwiGLU inside two Triton GEMM kernels", build_fused, needs_cuda, ("triton",)),
    ),
    baseline="dense",
    optimized="fused",
    presets={
        "default": SEED,
        "seed": SEED,
        "qwen3": {**QWEN3, "tokens": 4096},
        "qwen3-16k": {**QWEN3, "tokens": 16384},
        "qwen3-decode": {**QWEN3, "tokens": 64},
        "mixtral": MIXTRAL,
        "mixtral-decode": {**MIXTRAL, "tokens": 64},
        # one of eight expert-parallel ranks of DeepSeek-V3: 32 of its 256 experts, one row per token
        "dsv3-ep8": {**SEED, "tokens": 1024, "experts": 32, "topk": 1, "hidden": 7168, "inner": 2048, "routing": "deepseek", "scale": 2.5},
        "gb10": {**SEED, "tokens": 2048},
        "tiny": {**SEED, "tokens": 512, "experts": 8, "hidden": 128, "inner": 256, "dtype": "float32"},
    },
    prove=prove,
    limit=Roofline(flops_ceiling="gemm_tflop_per_s", bytes_ceiling="read_gb_per_s", yardstick="bmm_tflop_per_s"),
    faults=FAULTS,
    ceilings=ceilings,
    shows="a sparse layer reaches its K / E only if the glue around its GEMMs is fused and the host is not involved",
    counted=16,
)  # fmt: skip
