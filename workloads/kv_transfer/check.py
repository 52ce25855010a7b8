"""The proof of kv_transfer against a reference of higher precision, its calibration and the ceiling of its link."""

from __future__ import annotations

from math import isnan
from typing import Any

from moeprof.errors import UsageError
from moeprof.workload.model import Machine, Params, Proof, Step
from moeprof.workloads.common.timing import delay_gpu, seconds, synchronise
from moeprof.workloads.kv_transfer import pipeline
from moeprof.workloads.kv_transfer import tensors as kv

CALIBRATION_STEPS = 3
SUSTAINED_S = 0.3  # an H200 reaches its clock under load within 0.15 s
TOLERANCE = 1e-2  # relative Frobenius norm a layer; bf16 operands and a bf16 intermediate give about 4e-3
ELEMENT_TOLERANCE = 0.1  # largest single error over the layer's rms; an unrelated value is off by about 1.4


def prove(params: Params, device: str, step: Step) -> Proof:
    """Poison the destination and the staging buffers, run, compare every layer whole with a reference of higher precision."""
    x, up, down = kv.weights(params, device)
    exact = kv.reference_dtype(params)
    step.poison()
    delay_gpu(device)
    step.run()
    synchronise(device)
    received, errors, wrong = step.output(), [], []
    for layer in range(params["layers"]):
        expected = pipeline.functional_stage(x.to(exact), up[layer].to(exact), down[layer].to(exact))
        difference = received[layer].to(device).to(exact) - expected
        errors.append(float(difference.norm() / expected.norm()))
        largest = float(difference.abs().max() / expected.square().mean().sqrt())
        if not (errors[-1] <= TOLERANCE and largest <= ELEMENT_TOLERANCE):  # NaN never passes
            wrong.append(layer)
    reason = f"layers {wrong[:8]} of {len(errors)} differ from the reference" if wrong else ""
    worst = None if any(map(isnan, errors)) else max(errors)
    return Proof(not wrong, f"{len(errors)} of {params['layers']} layers, every element", worst, TOLERANCE, reason)


def resolve(params: Params, machine: Machine) -> dict[str, Any]:
    """Choose the link if it is `auto`, and the inner width if it is 0, so that compute : transfer = ratio."""
    resolved = dict(params)
    device = "cuda" if machine.cuda else "cpu"
    if resolved["link"] == "auto":
        resolved["link"] = "peer" if machine.linked else "host"
    if resolved["link"] not in ("host", "device", "peer"):
        raise UsageError(f"parameter link={resolved['link']!r} is not a link", "give host, peer, device or auto")
    if resolved["link"] == "peer" and not machine.linked:
        raise UsageError("parameter link='peer' needs two GPUs that reach each other's memory", "give link=host")
    if resolved["width"] == 0:
        resolved["width"] = _calibrate(resolved, device)
    return resolved


def _calibrate(params: Params, device: str) -> int:
    """The inner width whose stage takes ``ratio`` times as long as one transfer.

    A stage's time grows with the width as a + b w, so that scaling the width by goal / taken converges on the goal.
    Both are taken alone and under sustained load: a GPU that computes without a pause lowers its clocks within some
    100 ms, and an overlapped pipeline computes without a pause.
    """
    grain = 64 if device == "cuda" else 8
    few_layers = {**params, "layers": 4}
    target = kv.target(few_layers, device, 1)[0]
    staged = kv.ring(few_layers, device, 1)[0]
    goal_s = params["ratio"] * _link_seconds(params, device, target, staged)
    width = grain * (32 if device == "cuda" else 8)
    for _ in range(CALIBRATION_STEPS):
        stage_s = _stage_seconds({**few_layers, "width": width}, device)
        width = max(grain, round(width * goal_s / stage_s / grain) * grain)
    return width


def _stage_seconds(params: Params, device: str) -> float:
    tensors, out = kv.tensors({**params, "link": "device"}, device), kv.ring(params, device, 1)[0]
    layers = range(params["layers"])

    def all_layers() -> None:
        for layer in layers:
            pipeline.stage(tensors.x, tensors.up[layer], tensors.down[layer], tensors.inner, out)

    return seconds(all_layers, device, repeats=4, graph=device == "cuda", warm_s=SUSTAINED_S) / len(layers)


def _link_seconds(params: Params, device: str, target: Any, staged: Any) -> float:
    on_one_device = device == "cuda" and params["link"] != "peer"  # a copy to a peer also involves the peer's stream
    return seconds(lambda: pipeline.send(target, staged), device, repeats=8, graph=on_one_device)


def ceilings(params: Params, device: str) -> dict[str, float]:
    """The speed of the link in GB/s: large copies back to back with nothing else running. On a CPU the copies have the size of
    a layer, since the caches decide their speed."""
    rows = params["tokens"] if device == "cpu" else (256 << 20) // (params["kv_width"] * kv.dtype(params).itemsize)
    large = {**params, "tokens": rows}
    target, staged = kv.target(large, device, 1)[0], kv.ring(large, device, 1)[0]
    staged.zero_()
    transfer_s = _link_seconds(params, device, target, staged)
    return {"link_gb_per_s": staged.numel() * staged.element_size() / transfer_s / 1e9}
