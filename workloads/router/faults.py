"""Planted faults of the router: each is a plausible mistake that the proof must refuse."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from moeprof.workload.model import Build, Params, Step
from moeprof.workloads.router.layer import Layer


@dataclass(frozen=True)
class Fault:
    """What a variant gets wrong; all False is the true variant."""

    skip: bool = False  # one expert's tokens are left out
    swap: bool = False  # two experts have each other's weights
    unnormalised: bool = False  # gate weights do not sum to 1
    bf16_combine: bool = False  # the K expert outputs are summed in bf16
    zeros: bool = False  # the output is zeroed instead of written
    capacity: bool = False  # the capacity forgets the factor K

    def layer(self, layer: Layer) -> Layer:
        """The layer with the wrong weights."""
        if self.swap:
            order = [1, 0, *range(2, len(layer.w13))]
            return replace(layer, w13=layer.w13[order], w2=layer.w2[order])
        return layer

    def params(self, params: Params) -> Params:
        """The parameters with the wrong routing."""
        return {**params, "renormalise": False} if self.unnormalised else params

    def weights(self, chosen: Any, weights: Any) -> Any:
        """The gate weights [T, K], some of them missing."""
        return weights * (chosen != 0) if self.skip else weights

    def combine(self, results: Any, weights: Any) -> Any:
        """The weighted sum [T, H] of results [T, K, H] in the order of k."""
        import torch

        if self.zeros:
            return results[:, 0] * 0
        kind = torch.bfloat16 if self.bf16_combine else weights.dtype
        total = results[:, 0].to(kind) * weights[:, 0, None].to(kind)
        for k in range(1, results.shape[1]):
            total = total + results[:, k].to(kind) * weights[:, k, None].to(kind)
        return total


def _grouped(fault: Fault, params: Params, device: str) -> Step:
    from moeprof.workloads.router.grouped import build_grouped

    return build_grouped(params, device, fault)


def _topk(fault: Fault, params: Params, device: str) -> Step:
    from moeprof.workloads.router.topk import build_topk

    return build_topk(params, device, fault)


FAULTS: dict[str, Build] = {
    "skipped-expert": partial(_grouped, Fault(skip=True)),
    "swapped-experts": partial(_grouped, Fault(swap=True)),
    "not-renormalised": partial(_grouped, Fault(unnormalised=True)),
    "bf16-combine": partial(_grouped, Fault(bf16_combine=True)),
    "zeros": partial(_grouped, Fault(zeros=True)),
    "capacity-without-k": partial(_topk, Fault(capacity=True)),
}
