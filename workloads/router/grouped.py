"""The router's dropless step: a stable sort by expert, two grouped GEMMs, the glue in one kernel each, in one CUDA graph."""

from __future__ import annotations

from typing import Any

from moeprof.workload.model import Params, Step
from moeprof.workloads.common.timing import captured
from moeprof.workloads.router import layer as moe
from moeprof.workloads.router import routing
from moeprof.workloads.router.faults import Fault


def build_grouped(params: Params, device: str, fault: Fault = Fault()) -> Step:
    """Dropless: stable sort by expert, two grouped GEMMs, SwiGLU and combine each one kernel, in one CUDA graph."""
    return _build_on_gpu(params, fault) if device == "cuda" else _build_in_torch(params, device, fault)


def _build_on_gpu(params: Params, fault: Fault) -> Step:
    """Torch sorts and multiplies, Triton does the rest in one kernel each: gather, SwiGLU, combine."""
    import torch

    from moeprof.workloads.router import glue
    from moeprof.workloads.router.fused import Choice

    layer = fault.layer(moe.layer(params, "cuda"))
    choice = Choice(fault.params(params), layer)
    total, hidden, inner = choice.ids.numel(), params["hidden"], params["inner"]
    shape = {"dtype": layer.x.dtype, "device": "cuda"}
    rows, swished = torch.zeros(total, hidden, **shape), torch.zeros(total, inner, **shape)
    kind = torch.uint8 if params["experts"] <= 256 else torch.int32  # one pass of the radix sort instead of four
    experts = torch.arange(params["experts"], device="cuda").to(kind)
    positions = torch.zeros(params["tokens"], params["topk"], dtype=torch.int32, device="cuda")
    numbers = torch.arange(total, dtype=torch.int32, device="cuda")

    def run() -> None:
        choice.run()
        ordered, order = torch.sort(choice.ids.view(-1).to(kind), stable=True)
        ends = torch.searchsorted(ordered, experts, right=True, out_int32=True)
        positions.view(-1).scatter_(0, order, numbers)
        glue.gather(layer.x, order, params["topk"], rows)
        gate_up = torch.nn.functional.grouped_mm(rows, layer.w13.transpose(1, 2), offs=ends)
        glue.swiglu(gate_up, swished)
        results = torch.nn.functional.grouped_mm(swished, layer.w2.transpose(1, 2), offs=ends)
        if fault == Fault():
            glue.combine(results, positions, choice.weights, layer.out)
        else:
            weights = fault.weights(choice.ids, choice.weights)
            layer.out.copy_(fault.combine(results[positions.long()], weights))

    replay = captured(run)
    return moe.step(
        params, layer, replay, lambda: choice.ids, (choice.weights, choice.ids, rows, swished, positions), exact_combine=True,
        figures=moe.UNPADDED,
    )  # fmt: skip


def _build_in_torch(params: Params, device: str, fault: Fault) -> Step:
    layer = fault.layer(moe.layer(params, device))
    last: list[Any] = [None]

    def run() -> None:
        last[0], weights = routing.route(moe.logits(layer), layer.bias, fault.params(params))
        _dropless(layer, last[0], fault.weights(last[0], weights), fault)

    return moe.step(params, layer, run, lambda: last[0], (), exact_combine=True, figures=moe.UNPADDED)


def _dropless(layer: moe.Layer, chosen: Any, weights: Any, fault: Fault) -> None:
    """The grouped layer in plain torch."""
    import torch

    ordered, order = chosen.flatten().sort(stable=True)
    experts = torch.arange(len(layer.w13), device=chosen.device)
    ends = torch.searchsorted(ordered, experts, right=True, out_int32=True)
    hidden = moe.swiglu(_grouped_mm(layer.x[order // chosen.shape[1]], layer.w13.transpose(1, 2), ends))
    results = _grouped_mm(hidden, layer.w2.transpose(1, 2), ends)
    unsorted = torch.empty_like(results).index_copy(0, order, results).view(*chosen.shape, -1)
    layer.out.copy_(fault.combine(unsorted, weights))


def _grouped_mm(rows: Any, weights: Any, ends: Any) -> Any:
    """The rows of each expert e, those before ends[e], times weights[e]; a loop if torch has no grouped_mm for this device."""
    import torch

    try:
        return torch.nn.functional.grouped_mm(rows, weights, offs=ends)
    except (AttributeError, NotImplementedError, RuntimeError):
        parts = torch.tensor_split(rows, ends[:-1].tolist())
        return torch.cat([part @ weight for part, weight in zip(parts, weights, strict=True)])
