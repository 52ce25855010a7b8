"""The router's grouped step on a GPU: torch sorts and multiplies, Triton does the rest in one kernel each."""

from __future__ import annotations

import torch

from moeprof.workload.model import Params
from moeprof.workloads.common.timing import captured
from moeprof.workloads.router import glue
from moeprof.workloads.router import layer as moe
from moeprof.workloads.router.faults import Fault
from moeprof.workloads.router.fused import Choice


def build(params: Params, fault: Fault) -> moe.MoeStep:
    """Route, stable sort, gather, grouped_mm, SwiGLU, grouped_mm, combine, in one CUDA graph."""
    it = fault.layer(moe.layer(params, "cuda"))
    choice = Choice(fault.params(params), it)
    total, hidden, inner = choice.ids.numel(), params["hidden"], params["inner"]
    shape = {"dtype": it.x.dtype, "device": "cuda"}
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
        glue.gather(it.x, order, params["topk"], rows)
        gate_up = torch.nn.functional.grouped_mm(rows, it.w13.transpose(1, 2), offs=ends)
        glue.swiglu(gate_up, swished)
        results = torch.nn.functional.grouped_mm(swished, it.w2.transpose(1, 2), offs=ends)
        if fault == Fault():
            glue.combine(results, positions, choice.weights, it.out)
        else:
            weights = fault.weights(choice.ids, choice.weights)
            it.out.copy_(fault.combine(results[positions.long()], weights))

    replay = captured(run)
    return moe.step(
        params, it, replay, lambda: choice.ids, (choice.weights, choice.ids, rows, swished, positions), exact_combine=True,
        figures=moe.UNPADDED,
    )  # fmt: skip
