"""An MoE layer whose experts live on several ranks: rows travel to the ranks of their experts and back.

Each of N ranks has T tokens and E / N experts. An iteration routes the rank's tokens, dispatches a row for each chosen expert by
an all-to-all, computes the rows that arrived, and combines: an all-to-all back, a weighted sum in fp32 in the order of k.

Versions, one idea each:
  baseline   dispatch, experts, combine, one after the other, in one stream
  overlap    the tokens in C chunks: a communication stream moves one while the GEMMs compute another, events both ways
  graph      the same, captured in one CUDA graph
  peer_copy  copy engines instead of NCCL kernels: rows go directly into the memory of the peer, without SMs

For compute c and communication x of a rank no overlap is better than max(c + x / C, x): the first dispatch and the last
combine cannot be hidden. NCCL kernels take a share of the SMs of c; copy engines take none.

On a CPU `baseline` and `overlap` run for real, over gloo. See docs/explanation/expert_parallel.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from moeprof.workload.bounds import Exchange
from moeprof.workload.model import Machine, Params, Step, Variant, Workload, needs_cuda
from moeprof.workloads.common.timing import captured
from moeprof.workloads.expert_parallel import check, overlap, registered_memory
from moeprof.workloads.expert_parallel import layout as ep
from moeprof.workloads.expert_parallel.all_to_all import AllToAll
from moeprof.workloads.expert_parallel.faults import FAULTS, Fault
from moeprof.workloads.expert_parallel.layer import Make, RankLayer, buffers
from moeprof.workloads.router import layer as moe


def _parts(params: Params, device: str, chunks: int, fault: Fault, shared: Make | None = None) -> RankLayer:
    """The layer of this rank. Its buffers are in memory that NCCL uses in place; ``shared``: it makes those that others write."""
    import torch

    group = ep.ranks()
    layer, chosen = ep.inputs(params, device, group)
    layer = replace(layer, w13=ep.local_weights(layer.w13, group), w2=ep.local_weights(layer.w2, group))
    layout = ep.layout(params, chosen, group, chunks)

    def plain(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        return torch.zeros(*shape, dtype=dtype, device=layer.x.device)

    def registered(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        return registered_memory.zeros(shape, dtype, device)

    rank_buffers = buffers(params, layout, plain, shared) if shared else buffers(params, layout, registered, registered)
    return RankLayer(params, layer, layout, rank_buffers, fault)


def _step(rank_layer: RankLayer, run: Callable[[], None], figures: dict[str, Any] | None = None) -> moe.MoeStep:
    params, layer = rank_layer.params, rank_layer.layer

    def poison() -> None:
        for buffer in (layer.out, *rank_layer.scratch()):
            buffer.fill_(float("nan") if buffer.is_floating_point() else 0)

    return moe.MoeStep(
        run=run, output=lambda: layer.out, poison=poison, flops=moe.flops(params), bytes_moved=check.link_bytes(params, rank_layer.layout),
        facts=lambda: check.facts(params, rank_layer.layout, rank_layer.buffers.counts_received) | (figures or {}), weights=(layer.w13, layer.w2),
        exact_combine=True,
    )  # fmt: skip


def build_baseline(params: Params, device: str) -> Step:
    """Dispatch, experts, combine: one stream, all tokens at once. The set-up also times the all-to-all alone."""
    rank_layer = _parts(params, device, 1, Fault())
    exchange = AllToAll(rank_layer.layout, rank_layer.buffers, handles=False)
    dispatch_s = check.collective_seconds(lambda: exchange.dispatch(0), device)
    count = rank_layer.layout.ranks.count
    leave = rank_layer.layout.crossing(rank_layer.layout.ranks.rank)[0] if count > 1 else len(rank_layer.buffers.rows)
    speed = leave * params["hidden"] * rank_layer.layer.x.element_size() / dispatch_s / 1e9
    figures = {"dispatch alone (us)": dispatch_s * 1e6, "dispatch alone (GB/s, bus)": speed} | registered_memory.facts(
        device
    )
    return _step(rank_layer, lambda: overlap.iterate(rank_layer, exchange, overlap.Sequential()), figures)


def build_overlap(params: Params, device: str, fault: Fault = Fault()) -> Step:
    """Chunks: a communication stream (CPU: gloo's threads) beside the GEMMs."""
    rank_layer, run = _overlapped(params, device, fault)
    return _step(rank_layer, run, registered_memory.facts(device))


def _overlapped(params: Params, device: str, fault: Fault) -> tuple[RankLayer, Callable[[], None]]:
    rank_layer = _parts(params, device, params["chunks"], fault)
    exchange = AllToAll(rank_layer.layout, rank_layer.buffers, handles=device == "cpu")
    lane = overlap.AsyncHandles() if device == "cpu" else overlap.CommunicationStream(1 + 2 * params["chunks"])
    return rank_layer, lambda: overlap.iterate(rank_layer, exchange, lane, not fault.missing_event)


def build_graph(params: Params, device: str) -> Step:
    """The overlapped iteration with its collectives in one CUDA graph; a failed capture raises."""
    rank_layer, run = _overlapped(params, device, Fault())
    return _step(rank_layer, captured(run, mode="thread_local"), registered_memory.facts(device))


def build_peer_copy(params: Params, device: str, fault: Fault = Fault(), graph: bool = False) -> Step:
    """The overlapped iteration with copies into the peers' memory; ``graph`` captures it (no variant does)."""
    from moeprof.workloads.expert_parallel import peer_copy

    group, shared_buffers = ep.ranks(), {}
    channels = 1 + 2 * params["chunks"]

    def shared(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        shared_buffers[name] = peer_copy.shared_buffer(shape, dtype, group, channels)
        return shared_buffers[name].tensor

    rank_layer = _parts(params, device, params["chunks"], fault, shared)
    exchange = peer_copy.PeerCopies(
        rank_layer.layout, rank_layer.buffers, shared_buffers, wait_for_rows=not fault.missing_signal
    )
    lane = overlap.CommunicationStream(channels)
    ep.barrier(device)

    def run() -> None:
        overlap.iterate(rank_layer, exchange, lane)

    return _step(rank_layer, captured(run, mode="thread_local") if graph else run)


def needs_peers(machine: Machine) -> str | None:
    """CUDA, and for several ranks GPUs of one host that reach each other's memory."""
    if not machine.cuda:
        return "needs a CUDA GPU"
    if machine.ranks > 1 and not machine.linked:
        return "needs GPUs that reach each other's memory"
    return "needs all ranks on one host" if machine.ranks > machine.gpus else None


def resolve(params: Params, machine: Machine) -> dict[str, Any]:
    """The parameters unchanged; raises UsageError if they do not fit the number of ranks."""
    ep.check(params, machine.ranks)
    return dict(params)


QWEN3: dict[str, Any] = {
    "tokens": 16384,  # of each rank
    "experts": 128, "topk": 8, "hidden": 2048, "inner": 768,
    "chunks": 2,  # of overlap, graph and peer_copy
    "routing": "softmax_topk", "renormalise": True, "groups": 1, "kept_groups": 1, "scale": 1.0,
    "load": "multinomial", "dtype": "bfloat16", "seed": 0,
}  # fmt: skip
MIXTRAL = {**QWEN3, "experts": 8, "topk": 2, "hidden": 4096, "inner": 14336}

WORKLOAD = Workload(
    name="expert_parallel",
    summary="an MoE layer over ranks: all-to-all in sequence, overlapped in chunks, in one CUDA graph, by copy engines",
    variants=(
        Variant("baseline", "dispatch, experts, combine: one stream", build_baseline),
        Variant("overlap", "chunks, a communication stream beside the GEMMs", build_overlap),
        Variant("graph", "the same in one CUDA graph", build_graph, needs_cuda),
        Variant("peer_copy", "copy engines put rows into the peers' memory", build_peer_copy, needs_peers),
    ),
    baseline="baseline",
    gpu_technique=True,
    optimized="peer_copy",
    presets={
        "default": {**QWEN3, "tokens": 65536, "chunks": 8, "load": "balanced"},  # chunks of the size at which the GEMMs are still fast
        "mixtral": MIXTRAL,
        "qwen3": QWEN3,
        "decode": {**QWEN3, "tokens": 128},
        "gb10": {**QWEN3, "tokens": 2048, "experts": 32, "topk": 2, "hidden": 1024, "inner": 2048},
        "tiny": {**QWEN3, "tokens": 256, "experts": 8, "topk": 2, "hidden": 128, "inner": 256, "dtype": "float32"},
    },
    prove=check.prove,
    limit=Exchange(flops_ceiling="gemm_tflop_per_s", bytes_ceiling="peer_gb_per_s", pieces="chunks"),
    faults=FAULTS,
    resolve=resolve,
    ceilings=check.ceilings,
    shows="in chunks, communication hides behind the expert GEMMs; copy engines hide it without taking SMs",
    ranks=True,
)  # fmt: skip
