"""The tensors of kv_transfer: the stage's input and weights, the staging ring, the target at the far end of the link."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from moeprof.workload.model import Params


@dataclass(frozen=True)
class Tensors:
    """x [T, H] in, up [L, H, F] and down [L, F, V] weights, inner [T, F], target [L, T, V] at the far end of the link."""

    x: Any
    up: Any
    down: Any
    inner: Any
    target: Any


def dtype(params: Params) -> Any:
    import torch

    return getattr(torch, params["dtype"])


def reference_dtype(params: Params) -> Any:
    """float32 for the half precisions, float64 for float32."""
    import torch

    return torch.float64 if params["dtype"] == "float32" else torch.float32


def weights(params: Params, device: str) -> tuple[Any, Any, Any]:
    """x, up and down from the seed: the same values in every variant on one kind of device."""
    import torch

    source = torch.Generator(device=device).manual_seed(params["seed"])

    def normal(*shape: int, scale: float) -> Any:
        return (torch.randn(*shape, generator=source, device=device) * scale).to(dtype(params))

    hidden, width, value = params["hidden"], params["width"], params["kv_width"]
    x = normal(params["tokens"], hidden, scale=1.0)
    up = torch.stack([normal(hidden, width, scale=hidden**-0.5) for _ in range(params["layers"])])
    down = torch.stack([normal(width, value, scale=width**-0.5) for _ in range(params["layers"])])
    return x, up, down


def tensors(params: Params, device: str) -> Tensors:
    import torch

    if device == "cpu":  # in every variant one core is left to the copy
        torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    x, up, down = weights(params, device)
    inner = torch.empty(params["tokens"], params["width"], dtype=x.dtype, device=device)
    return Tensors(x, up, down, inner, target(params, device, params["layers"]))


def target(params: Params, device: str, layers: int) -> Any:
    """[layers, T, V] at the far end of the link."""
    import torch

    far = {"host": "cpu", "device": device, "peer": "cuda:1"}[params["link"]]
    pinned = params["link"] == "host" and device == "cuda"
    shape = (layers, params["tokens"], params["kv_width"])
    return torch.empty(shape, dtype=dtype(params), device=far, pin_memory=pinned)


def ring(params: Params, device: str, depth: int) -> list[Any]:
    import torch

    shape = (params["tokens"], params["kv_width"])
    return [torch.empty(shape, dtype=dtype(params), device=device) for _ in range(depth)]
