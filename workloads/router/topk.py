"""Top-k with a capacity: static shapes and no synchronisation with the host, compiled (topk) or in a CUDA graph (vectorized)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moeprof.workload.model import Params, Step
from moeprof.workloads.common.timing import captured
from moeprof.workloads.router import layer as moe
from moeprof.workloads.router import routing
from moeprof.workloads.router.faults import Fault


def capacity_layer(params: Params, layer: moe.Layer, limit: int) -> tuple[Any, Any]:
    """The output [T, H] and the experts [T, K]; static shapes, no value is read back from the device."""
    import torch

    tokens, experts, topk, hidden = params["tokens"], params["experts"], params["topk"], params["hidden"]
    chosen, weights = routing.route(moe.logits(layer), layer.bias, params)
    place = routing.places(chosen, experts)
    within_capacity = place < limit
    slot = torch.where(
        within_capacity, chosen * limit + place, experts * limit
    )  # one more row receives everything that is dropped
    owner = torch.zeros(experts * limit + 1, dtype=torch.int64, device=layer.x.device)
    token = torch.arange(tokens, device=layer.x.device).repeat_interleave(topk)
    owner = owner.scatter(0, slot.flatten(), token)[:-1]
    rows = layer.x[owner].view(experts, limit, hidden)
    results = torch.bmm(moe.swiglu(torch.bmm(rows, layer.w13.transpose(1, 2))), layer.w2.transpose(1, 2)).flatten(0, 1)
    picked = results[slot.clamp(max=experts * limit - 1)]  # [T, K, H]
    out = (picked.to(weights.dtype) * (weights * within_capacity).unsqueeze(-1)).sum(1)
    return out.to(layer.x.dtype), chosen


def _build_capacity(params: Params, device: str, transform: Callable[[Any], Any], graph: bool, fault: Fault = Fault()) -> Step:  # fmt: skip
    layer = moe.layer(params, device)
    limit = routing.capacity(params)
    limit_used = routing.capacity({**params, "topk": 1}) if fault.capacity else limit
    run_layer = transform(capacity_layer)
    last: list[Any] = [None]

    def run() -> None:
        out, last[0] = run_layer(params, layer, limit_used)
        layer.out.copy_(out)

    run()  # compile now
    return moe.step(
        params, layer, captured(run) if graph else run, lambda: last[0], (), capacity=limit, exact_combine=True
    )  # fmt: skip


def build_topk(params: Params, device: str, fault: Fault = Fault()) -> Step:
    """Top-k with a capacity, the whole layer compiled without a graph break (CPU: eager)."""
    return _build_capacity(params, device, lambda layer: moe.compiled(layer, device), graph=False, fault=fault)


def build_eager(params: Params, device: str) -> Step:
    """topk without a compiler: the comparison for ``vectorized``."""
    return _build_capacity(params, device, lambda layer: layer, graph=False)


def build_vectorized(params: Params, device: str) -> Step:
    """The static shapes of topk in one CUDA graph."""
    return _build_capacity(params, device, lambda layer: layer, graph=True)
