"""An MoE layer from every expert on every token to a fused sparse layer, one idea a step.

  dense       every expert computes every token, two GEMMs over all experts' weights; gates of zero mask what was not chosen
  topk        K experts a token, at most C = ceil(capacity_factor T K / E) tokens an expert: the overflow is dropped; compiled
  vectorized  the same without compiling, captured in one CUDA graph: no launch and no synchronisation is left to the host
  grouped     nothing is dropped: a stable sort by expert, torch's grouped_mm, fused glue
  fused       the sort, the gather and SwiGLU inside two Triton GEMM kernels; six kernels a layer

The layer: x [T, H], router logits [T, E], SwiGLU experts w13 [E, 2I, H] and w2 [E, H, I]; FLOPs that count are
6 T K H I + 2 T H E. Every variant routes for itself. topk and vectorized are proven against a reference that drops the same
assignments, the others against one that drops none; how many are dropped stands beside their time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from moeprof.workload.bounds import Roofline
from moeprof.workload.model import Params, Step, Variant, Workload, needs_cuda
from moeprof.workloads.common.timing import captured
from moeprof.workloads.router import layer as moe
from moeprof.workloads.router import routing
from moeprof.workloads.router.check import ceilings, prove
from moeprof.workloads.router.faults import FAULTS, Fault


def build_dense(params: Params, device: str) -> Step:
    """Every expert on every token; a token's gates are zero but for its K experts."""
    import torch

    it = moe.layer(params, device)
    tokens, experts, inner = params["tokens"], params["experts"], params["inner"]
    down = it.w2.permute(0, 2, 1).contiguous()  # [E, I, H]: all experts' rows under each other
    masked = _masked if device == "cpu" else _masked_on_gpu
    last: list[Any] = [None]

    def run() -> None:
        last[0], weights = routing.route(moe.logits(it), it.bias, params)
        gates = torch.zeros(tokens, experts, dtype=weights.dtype, device=device).scatter(1, last[0], weights)
        hidden = masked((it.x @ it.w13.flatten(0, 1).t()).view(tokens, experts, 2 * inner), gates)
        torch.mm(hidden.flatten(1), down.flatten(0, 1), out=it.out)

    return moe.step(
        params, it, run, lambda: last[0], (), weights=(it.w13, down),
        figures={"rows computed / rows kept": lambda: experts / params["topk"]},
    )  # fmt: skip


def _masked(gate_up: Any, gates: Any) -> Any:
    return moe.swiglu(gate_up) * gates.unsqueeze(-1).to(gate_up.dtype)


def _masked_on_gpu(gate_up: Any, gates: Any) -> Any:
    """The same in one kernel: the large GEMMs around it are the naive part."""
    from moeprof.workloads.router import glue

    hidden = gate_up.new_empty(*gate_up.shape[:2], gate_up.shape[2] // 2)
    glue.swiglu(gate_up.flatten(0, 1), hidden.flatten(0, 1), gates.flatten())
    return hidden


def _capacity_layer(params: Params, it: moe.Layer, limit: int) -> tuple[Any, Any]:
    """The output [T, H] and the experts [T, K]; static shapes, nothing that asks the device for a number."""
    import torch

    tokens, experts, topk, hidden = params["tokens"], params["experts"], params["topk"], params["hidden"]
    chosen, weights = routing.route(moe.logits(it), it.bias, params)
    place = routing.places(chosen, experts)
    kept = place < limit
    slot = torch.where(kept, chosen * limit + place, experts * limit)  # one more row takes all that is dropped
    owner = torch.zeros(experts * limit + 1, dtype=torch.int64, device=it.x.device)
    token = torch.arange(tokens, device=it.x.device).repeat_interleave(topk)
    owner = owner.scatter(0, slot.flatten(), token)[:-1]
    rows = it.x[owner].view(experts, limit, hidden)
    results = torch.bmm(moe.swiglu(torch.bmm(rows, it.w13.transpose(1, 2))), it.w2.transpose(1, 2)).flatten(0, 1)
    picked = results[slot.clamp(max=experts * limit - 1)]  # [T, K, H]
    out = (picked.to(weights.dtype) * (weights * kept).unsqueeze(-1)).sum(1)
    return out.to(it.x.dtype), chosen


def _build_capacity(params: Params, device: str, how: Callable[[Any], Any], graph: bool, fault: Fault = Fault()) -> Step:  # fmt: skip
    it = moe.layer(params, device)
    limit = routing.capacity(params)
    wrong = routing.capacity({**params, "topk": 1}) if fault.capacity else limit
    layer = how(_capacity_layer)
    last: list[Any] = [None]

    def run() -> None:
        out, last[0] = layer(params, it, wrong)
        it.out.copy_(out)

    run()  # what compiles, compiles now
    return moe.step(
        params, it, captured(run) if graph else run, lambda: last[0], (), capacity=limit, exact_combine=True
    )  # fmt: skip


def build_topk(params: Params, device: str, fault: Fault = Fault()) -> Step:
    """Top-k with a capacity, the whole layer compiled without a graph break (CPU: eager)."""
    return _build_capacity(params, device, lambda layer: moe.compiled(layer, device), graph=False, fault=fault)


def build_eager(params: Params, device: str) -> Step:
    """topk as it runs without a compiler: what ``vectorized`` is measured against."""
    return _build_capacity(params, device, lambda layer: layer, graph=False)


def build_vectorized(params: Params, device: str) -> Step:
    """topk's static shapes in one CUDA graph."""
    return _build_capacity(params, device, lambda layer: layer, graph=True)


def build_grouped(params: Params, device: str, fault: Fault = Fault()) -> Step:
    """Dropless: stable sort by expert, two grouped GEMMs, SwiGLU and combine each one kernel, in one CUDA graph."""
    if device == "cuda":
        from moeprof.workloads.router.grouped import build

        return build(params, fault)
    it = fault.layer(moe.layer(params, device))
    last: list[Any] = [None]

    def run() -> None:
        last[0], weights = routing.route(moe.logits(it), it.bias, fault.params(params))
        _dropless(it, last[0], fault.weights(last[0], weights), fault)

    return moe.step(params, it, run, lambda: last[0], (), exact_combine=True, figures=moe.UNPADDED)


def _dropless(it: moe.Layer, chosen: Any, weights: Any, fault: Fault) -> None:
    """The grouped layer in plain torch."""
    import torch

    ordered, order = chosen.flatten().sort(stable=True)
    experts = torch.arange(len(it.w13), device=chosen.device)
    ends = torch.searchsorted(ordered, experts, right=True, out_int32=True)
    hidden = moe.swiglu(_grouped_mm(it.x[order // chosen.shape[1]], it.w13.transpose(1, 2), ends))
    results = _grouped_mm(hidden, it.w2.transpose(1, 2), ends)
    mine = torch.empty_like(results).index_copy(0, order, results).view(*chosen.shape, -1)
    it.out.copy_(fault.combine(mine, weights))


def _grouped_mm(rows: Any, weights: Any, ends: Any) -> Any:
    """rows of expert e, those before ends[e], times weights[e]; a loop where torch has no grouped_mm for this device."""
    import torch

    try:
        return torch.nn.functional.grouped_mm(rows, weights, offs=ends)
    except (AttributeError, NotImplementedError, RuntimeError):
        parts = torch.tensor_split(rows, ends[:-1].tolist())
        return torch.cat([part @ weight for part, weight in zip(parts, weights, strict=True)])


def build_fused(params: Params, device: str) -> Step:
    """Routing, order, two GEMMs and combine as six Triton kernels in one CUDA graph."""
    from moeprof.workloads.router import fused

    it = moe.layer(params, device)
    w13 = fused.interleaved(it.w13)
    it = replace(it, w13=w13)
    choice = fused.Choice(params, it)
    plan = fused.plan(params, it, choice)
    replay = captured(plan.run)
    return moe.step(
        params, it, replay, lambda: choice.ids, (choice.weights, choice.ids, plan.experts.hidden, plan.experts.results),
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
        # one of eight expert-parallel ranks of DeepSeek-V3: 32 of its 256 experts, one row a token
        "dsv3-ep8": {**SEED, "tokens": 1024, "experts": 32, "topk": 1, "hidden": 7168, "inner": 2048, "routing": "deepseek", "scale": 2.5},
        "gb10": {**SEED, "tokens": 2048},
        "tiny": {**SEED, "tokens": 512, "experts": 8, "hidden": 128, "inner": 256, "dtype": "float32"},
    },
    prove=prove,
    limit=Roofline(flops_ceiling="gemm_tflop_per_s", bytes_ceiling="read_gb_per_s", yardstick="bmm_tflop_per_s"),
    faults=FAULTS,
    ceilings=ceilings,
    shows="a sparse layer earns its K / E only when what surrounds its GEMMs is fused and the host is out of the way",
    counted=16,
)  # fmt: skip
