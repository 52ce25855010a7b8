"""KV-cache transfer: sequential, overlapped with a copy stream, and overlapped inside one CUDA graph.

Each of L layers computes its KV block, silu(x @ up) @ down, and sends it over a link: `host` (pinned memory over PCIe),
`peer` (a second GPU over NVLink) or `device` (the same GPU: a simulated link, since it shares the memory). All variants
take the same inputs, weights and dtype and write the same destination.

Versions, one idea each:
  baseline  compute, copy, next layer, all in one stream
  overlap   a copy stream beside the compute stream, a ring of two staging buffers, events both ways
  graph     a deeper ring, the stage compiled, fork and join captured in one CUDA graph

The limit for compute c and transfer x a layer is max(L c + x, c + L x). Streams pay only while the host keeps up: at
stages of some 20 us launching events and copies costs more than it hides; a graph removes the host.

On a CPU `baseline` and `overlap` run for real, the copy on a worker thread beside the GEMM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from moeprof.workload.bounds import Pipeline
from moeprof.workload.model import Params, Step, Variant, Workload, needs_cuda
from moeprof.workloads.kv_transfer import pipeline
from moeprof.workloads.kv_transfer import tensors as kv
from moeprof.workloads.kv_transfer.check import ceilings, prove, resolve
from moeprof.workloads.kv_transfer.faults import FAULTS, Fault

OVERLAP_DEPTH = 2


def _step(params: Params, tensors: kv.Tensors, ring: Sequence[Any], run: Callable[[], None]) -> Step:
    def poison() -> None:
        for buffer in (tensors.target, tensors.inner, *ring):
            buffer.fill_(float("nan"))

    tokens, width = params["tokens"], params["width"]
    flops = 2 * params["layers"] * tokens * width * (params["hidden"] + params["kv_width"])
    sent = params["layers"] * tokens * params["kv_width"] * tensors.target.element_size()
    return Step(run=run, output=lambda: tensors.target, poison=poison, flops=flops, bytes_moved=sent)


def build_baseline(params: Params, device: str) -> Step:
    """Compute, then copy, then the next layer: one stream, one staging buffer."""
    tensors, ring = kv.tensors(params, device), kv.ring(params, device, 1)

    def run() -> None:
        for layer in range(params["layers"]):
            pipeline.stage(tensors.x, tensors.up[layer], tensors.down[layer], tensors.inner, ring[0])
            pipeline.send(tensors.target[layer], ring[0])

    return _step(params, tensors, ring, run)


def build_overlap(params: Params, device: str, fault: Fault = Fault()) -> Step:
    """A copy stream (CPU: a thread) beside the compute, a ring of two, events both ways."""
    tensors, ring = kv.tensors(params, device), kv.ring(params, device, OVERLAP_DEPTH)

    def stage(layer: int, slot: int) -> Any:
        return pipeline.stage(tensors.x, tensors.up[layer], tensors.down[layer], tensors.inner, ring[slot])

    def send(layer: int, staged: Any, slot: int) -> None:
        if fault.zeros:
            tensors.target[layer].zero_()
        else:
            pipeline.send(tensors.target[layer], ring[(slot + fault.stale) % len(ring)])

    lanes = pipeline.Threads(OVERLAP_DEPTH) if device == "cpu" else pipeline.Streams(OVERLAP_DEPTH, params["link"])
    return _step(params, tensors, ring, lambda: lanes.run(params["layers"], stage, send, not fault.drop_ready))


def build_graph(params: Params, device: str) -> Step:
    """A deeper ring, the stage compiled, fork and join captured in one CUDA graph that is replayed."""
    import torch

    from moeprof.workloads.common import compiler

    tensors, depth = kv.tensors(params, device), params["depth"]
    compiled = compiler.compiled(pipeline.functional_stage)
    ring: list[Any] = [None] * depth  # holds a layer's KV until its copy is done: the graph's pool reuses it after that

    def stage(layer: int, slot: int) -> Any:
        ring[slot] = compiled(tensors.x, tensors.up[layer], tensors.down[layer])
        return ring[slot]

    def send(layer: int, staged: Any, slot: int) -> None:
        pipeline.send(tensors.target[layer], staged)

    lanes = pipeline.Streams(depth, params["link"])
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compile and warm up before the capture
        lanes.run(min(2, params["layers"]), stage, send)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        lanes.run(params["layers"], stage, send)
    ring.clear()
    return _step(params, tensors, (), graph.replay)


DEFAULT: dict[str, Any] = {
    "layers": 32,
    "tokens": 7168,  # 29 MB per layer: about half a millisecond over PCIe 5 x16
    "hidden": 4096,
    "kv_width": 2048,  # K and V of 8 heads x 128
    "width": 0,  # inner width of the stage; 0: calibrated so that compute : transfer = ratio, each alone and sustained
    "ratio": 1.0,
    "link": "auto",
    "dtype": "bfloat16",
    "depth": 4,  # ring depth of `graph`
    "seed": 0,
}

WORKLOAD = Workload(
    name="kv_transfer",
    summary="send each layer's KV cache over a link: sequential, overlapped, overlapped in one CUDA graph",
    variants=(
        Variant("baseline", "compute, copy, next layer: one stream", build_baseline),
        Variant("overlap", "copy stream, ring of two buffers, events both ways", build_overlap),
        Variant("graph", "deeper ring, compiled stage, one CUDA graph", build_graph, needs_cuda, ("moeprof.workloads.common.compiler",)),
    ),
    baseline="baseline",
    gpu_technique=True,
    optimized="graph",
    presets={
        "default": DEFAULT,
        # stages of about 20 us: the host cannot keep up; a slot a layer (32 MB), so that no compute waits for a free slot
        "short": {**DEFAULT, "tokens": 256, "depth": 32},
        "gb10": {**DEFAULT, "tokens": 2048, "hidden": 2048, "layers": 16},
        "tiny": {
            **DEFAULT, "layers": 12, "tokens": 4096, "hidden": 64, "kv_width": 512, "ratio": 4.0, "dtype": "float32",
        },
    },
    prove=prove,
    limit=Pipeline(stages="layers", ceiling="link_gb_per_s"),
    faults=FAULTS,
    resolve=resolve,
    ceilings=ceilings,
    shows="a copy stream pays only while the host keeps up; a CUDA graph removes the host",
)  # fmt: skip
