"""The router's baseline: every expert computes every token, and gates of zero mask what was not chosen."""

from __future__ import annotations

from typing import Any

from moeprof.workload.model import Params, Step
from moeprof.workloads.router import layer as moe
from moeprof.workloads.router import routing


def build_dense(params: Params, device: str) -> Step:
    """Every expert on every token; the gates of a token are zero except for its K experts."""
    import torch

    layer = moe.layer(params, device)
    tokens, experts, inner = params["tokens"], params["experts"], params["inner"]
    down = layer.w2.permute(0, 2, 1).contiguous()  # [E, I, H]: all experts' rows under each other
    masked = _masked if device == "cpu" else _masked_on_gpu
    last: list[Any] = [None]

    def run() -> None:
        last[0], weights = routing.route(moe.logits(layer), layer.bias, params)
        gates = torch.zeros(tokens, experts, dtype=weights.dtype, device=device).scatter(1, last[0], weights)
        hidden = masked((layer.x @ layer.w13.flatten(0, 1).t()).view(tokens, experts, 2 * inner), gates)
        torch.mm(hidden.flatten(1), down.flatten(0, 1), out=layer.out)

    return moe.step(
        params, layer, run, lambda: last[0], (), weights=(layer.w13, down),
        figures={"rows computed / rows kept": lambda: experts / params["topk"]},
    )  # fmt: skip


def _masked(gate_up: Any, gates: Any) -> Any:
    return moe.swiglu(gate_up) * gates.unsqueeze(-1).to(gate_up.dtype)


def _masked_on_gpu(gate_up: Any, gates: Any) -> Any:
    """The same in one kernel: only the large GEMMs around it are naive."""
    from moeprof.workloads.router import glue

    hidden = gate_up.new_empty(*gate_up.shape[:2], gate_up.shape[2] // 2)
    glue.swiglu(gate_up.flatten(0, 1), hidden.flatten(0, 1), gates.flatten())
    return hidden
