"""An MoE layer whose experts live on several ranks: rows travel to the ranks of their experts and back.

Each of N ranks has T tokens and E / N experts. An iteration routes the rank's tokens, dispatches a row for each chosen expert by
an all-to-all, computes the rows that arrived, and combines: an all-to-all back, a weighted sum in fp32 in the order of k.

Versions, one idea each:
  baseline   dispatch, experts, combine, one after the other, in one stream
  overlap    the tokens in C chunks: a communication stream moves one while the GEMMs compute another, events both ways
  graph      the same, captured in one CUDA graph
  peer_copy  copy engines in place of NCCL's kernels: rows are put straight into the peer's memory and no SM is taken

For compute c and communication x of a rank no overlap is better than max(c + x / C, x): the first dispatch and the last
combine have nothing to hide behind. x takes a share of c's SMs where NCCL moves the rows, none where copy engines do.

On a CPU `baseline` and `overlap` run for real, over gloo. See docs/explanation/expert_parallel.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from moeprof.workload.bounds import Exchange
from moeprof.workload.model import Machine, Params, Step, Variant, Workload, needs_cuda
from moeprof.workloads.common.timing import captured
from moeprof.workloads.expert_parallel import check, exchange, memory
from moeprof.workloads.expert_parallel import layer as local
from moeprof.workloads.expert_parallel import layout as ep
from moeprof.workloads.expert_parallel.faults import FAULTS, Fault
from moeprof.workloads.router import layer as moe


def _parts(params: Params, device: str, chunks: int, fault: Fault, shared: local.Make | None = None) -> local.Layer:
    """The rank's own layer; all buffers in memory that NCCL uses in place, or those that others write as ``shared`` makes them."""
    import torch

    group = ep.ranks()
    it, chosen = ep.given(params, device, group)
    it = replace(it, w13=ep.stacked(it.w13, group), w2=ep.stacked(it.w2, group))
    layout = ep.layout(params, chosen, group, chunks)

    def plain(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        return torch.zeros(*shape, dtype=dtype, device=it.x.device)

    def sent(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        return memory.zeros(shape, dtype, device)

    room = local.buffers(params, layout, plain, shared) if shared else local.buffers(params, layout, sent, sent)
    return local.Layer(params, it, layout, room, fault)


def _step(layer: local.Layer, run: Callable[[], None], figures: dict[str, Any] | None = None) -> moe.MoeStep:
    params, it = layer.params, layer.it

    def poison() -> None:
        for buffer in (it.out, *layer.scratch()):
            buffer.fill_(float("nan") if buffer.is_floating_point() else 0)

    return moe.MoeStep(
        run=run, output=lambda: it.out, poison=poison, flops=moe.flops(params), bytes_moved=check.link_bytes(params, layer.layout),
        facts=lambda: check.facts(params, layer.layout, layer.room.heard) | (figures or {}), weights=(it.w13, it.w2),
        exact_combine=True,
    )  # fmt: skip


def build_baseline(params: Params, device: str) -> Step:
    """Dispatch, experts, combine: one stream, all tokens at once; the all-to-all is also timed alone, at set-up."""
    layer = _parts(params, device, 1, Fault())
    sending = exchange.Collectives(layer.layout, layer.room, handles=False)
    taken = check.collective_seconds(lambda: sending.dispatch(0), device)
    count = layer.layout.ranks.count
    leave = layer.layout.crossing(layer.layout.ranks.rank)[0] if count > 1 else len(layer.room.rows)
    speed = leave * params["hidden"] * layer.it.x.element_size() / taken / 1e9
    figures = {"dispatch alone (us)": taken * 1e6, "dispatch alone (GB/s, bus)": speed} | memory.words(device)
    return _step(layer, lambda: exchange.iterate(layer, sending, exchange.InTurn()), figures)


def build_overlap(params: Params, device: str, fault: Fault = Fault()) -> Step:
    """Chunks: a communication stream (CPU: gloo's threads) beside the GEMMs."""
    layer, run = _overlapped(params, device, fault)
    return _step(layer, run, memory.words(device))


def _overlapped(params: Params, device: str, fault: Fault) -> tuple[local.Layer, Callable[[], None]]:
    layer = _parts(params, device, params["chunks"], fault)
    sending = exchange.Collectives(layer.layout, layer.room, handles=device == "cpu")
    lane = exchange.Handles() if device == "cpu" else exchange.Beside(1 + 2 * params["chunks"])
    return layer, lambda: exchange.iterate(layer, sending, lane, not fault.missing_event)


def build_graph(params: Params, device: str) -> Step:
    """The overlapped iteration, its collectives included, in one CUDA graph; what capturing raises is raised."""
    layer, run = _overlapped(params, device, Fault())
    return _step(layer, captured(run, mode="thread_local"), memory.words(device))


def build_peer_copy(params: Params, device: str, fault: Fault = Fault(), graph: bool = False) -> Step:
    """The overlapped iteration with copies into the peers' memory; ``graph`` captures it (no variant does)."""
    from moeprof.workloads.expert_parallel import peer

    group, rooms = ep.ranks(), {}
    channels = 1 + 2 * params["chunks"]

    def shared(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        rooms[name] = peer.room(shape, dtype, group, channels)
        return rooms[name].mine

    layer = _parts(params, device, params["chunks"], fault, shared)
    sending = peer.Puts(layer.layout, layer.room, rooms, listen=not fault.missing_signal)
    lane = exchange.Beside(channels)
    ep.meet(device)

    def run() -> None:
        exchange.iterate(layer, sending, lane)

    return _step(layer, captured(run, mode="thread_local") if graph else run)


def needs_peers(machine: Machine) -> str | None:
    """CUDA, and GPUs of one host that reach each other's memory; one rank needs no other."""
    if not machine.cuda:
        return "needs a CUDA GPU"
    if machine.ranks > 1 and not machine.linked:
        return "needs GPUs that reach each other's memory"
    return "needs all ranks on one host" if machine.ranks > machine.gpus else None


def resolve(params: Params, machine: Machine) -> dict[str, Any]:
    """The parameters as they are, once they fit the number of ranks."""
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
    shows="communication hides behind expert GEMMs in chunks, and copy engines hide it without taking their SMs",
    ranks=True,
)  # fmt: skip
