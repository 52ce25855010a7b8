"""The MoE layer that all variants of the router compute: its tensors, the step with its figures, parts in plain torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from moeprof.workload.model import Params, Step
from moeprof.workloads.router import routing


@dataclass(frozen=True)
class Layer:
    """One MoE layer and its input.

    x [T, H]; router [E, H], rows orthonormal; bias [E] (fp32, only for the choice, only for deepseek); w13 [E, 2I, H], gate rows
    first; w2 [E, H, I]; out [T, H], written by every variant; touched: how many experts get a token.
    """

    x: Any
    router: Any
    bias: Any
    w13: Any
    w2: Any
    out: Any
    touched: int


@dataclass(frozen=True)
class MoeStep(Step):
    """A built variant of the router, with what its proof needs.

    Attributes:
        capacity: the most rows of an expert; None if no token is dropped.
        weights: w13 and w2 [E, ...] in the layout of the variant.
        exact_combine: whether it sums the K expert outputs in fp32 and rounds once.
    """

    capacity: int | None = None
    weights: tuple[Any, ...] = ()
    exact_combine: bool = False


def dtype(params: Params) -> Any:
    import torch

    return getattr(torch, params["dtype"])


def layer(params: Params, device: str) -> Layer:
    """The layer from the seed: the same values in every variant and process on one kind of device."""
    import torch

    routing.check(params)
    source = torch.Generator(device=device).manual_seed(params["seed"])
    tokens, experts, hidden, inner = (params[key] for key in ("tokens", "experts", "hidden", "inner"))

    def normal(*shape: int) -> Any:
        return torch.randn(*shape, generator=source, device=device)

    def weights(rows: int, columns: int) -> Any:
        stacked = torch.empty(experts, rows, columns, dtype=dtype(params), device=device)
        for expert in range(experts):
            stacked[expert] = normal(rows, columns) * columns**-0.5
        return stacked

    router = torch.linalg.qr(normal(hidden, experts)).Q.t().contiguous()
    target_logits, bias, chosen = (t.to(device) for t in routed(params))
    noise = normal(tokens, hidden)
    x = noise - (noise @ router.t()) @ router + target_logits @ router
    kind = dtype(params)
    return Layer(
        x.to(kind), router.to(kind), bias, weights(2 * inner, hidden), weights(hidden, inner),
        torch.empty(tokens, hidden, dtype=kind, device=device), len(chosen.unique()),
    )  # fmt: skip


def routed(params: Params) -> tuple[Any, Any, Any]:
    """Logits [T, E] for the requested load, the selection bias [E], the experts [T, K]; on the CPU, so the same on any device."""
    import torch

    source = torch.Generator().manual_seed(params["seed"])
    bias = torch.zeros(params["experts"])
    if params["routing"] == "deepseek":
        bias = 0.2 * torch.rand(params["experts"], generator=source) - 0.1
    chosen = routing.load(params, source)
    return routing.wanted_logits(chosen, bias, params, source), bias, chosen


def logits(layer: Layer) -> Any:
    """x @ router.T in fp32 (fp64 for fp64), whatever the dtype of x."""
    import torch

    if layer.x.device.type == "cuda" and layer.x.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(layer.x, layer.router.t(), out_dtype=torch.float32)
    wide = torch.promote_types(layer.x.dtype, torch.float32)
    return layer.x.to(wide) @ layer.router.to(wide).t()


def swiglu(gate_up: Any) -> Any:
    """silu(gate) * up of [..., 2I] -> [..., I], eager: two kernels."""
    import torch

    gate, up = gate_up.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up


UNROLLED = 17  # a reduction over fewer rows than these is unrolled by the compiler
UNPADDED: Mapping[str, Callable[[], float]] = {"rows computed / rows kept": lambda: 1.0}


def compiled(action: Callable[..., Any], device: str) -> Callable[..., Any]:
    """``action`` compiled without a graph break; unchanged on a CPU, which may have no compiler."""
    if device != "cuda":
        return action
    from moeprof.workloads.common import compiler

    # a sum over K rows is one program a few outputs unless it is unrolled (0.97 ms against a floor of 0.15 at T = 16384)
    return compiler.compiled(action, options={"unroll_reductions_threshold": UNROLLED})


def step(
    params: Params,
    layer: Layer,
    run: Callable[[], None],
    routed: Callable[[], Any],
    scratch: tuple[Any, ...],
    **more: Any,
) -> MoeStep:
    """The step of a variant. ``routed`` returns the experts [T, K] that it chose, ``scratch`` is poisoned with the output,
    ``figures`` are figures of this variant alone."""
    limit, figures = more.get("capacity"), more.pop("figures", {})

    def poison() -> None:
        for buffer in (layer.out, *scratch):
            buffer.fill_(float("nan") if buffer.is_floating_point() else 0)

    return MoeStep(
        run=run, output=lambda: layer.out, poison=poison, flops=flops(params), bytes_moved=bytes_moved(params, layer),
        facts=lambda: facts(params, routed(), limit, figures), weights=more.pop("weights", (layer.w13, layer.w2)), **more,
    )  # fmt: skip


def flops(params: Params) -> int:
    """Useful FLOPs: the three GEMMs of K experts a token, and the router's."""
    tokens, experts, topk, hidden, inner = (params[k] for k in ("tokens", "experts", "topk", "hidden", "inner"))
    return int(6 * tokens * topk * hidden * inner + 2 * tokens * hidden * experts)


def bytes_moved(params: Params, layer: Layer) -> int:
    """Bytes that must move: the weights of every expert that gets a token, x in and the output out."""
    weights = 3 * params["hidden"] * params["inner"] * layer.touched
    return int(layer.x.element_size() * (weights + 2 * params["tokens"] * params["hidden"]))


def facts(
    params: Params, chosen: Any, capacity: int | None, figures: Mapping[str, Callable[[], float]]
) -> dict[str, Any]:
    """Figures beside the time, from the experts [T, K] that the variant chose."""
    import torch

    load = torch.bincount(chosen.flatten().long(), minlength=params["experts"]).tolist()
    total, dropped = sum(load), 0
    figures_of_load: dict[str, Any] = {
        "tokens of each expert": load,
        "expert load, max / mean": max(load) * len(load) / total,
    }
    if capacity is not None:
        dropped = sum(max(0, count - capacity) for count in load)
        figures_of_load["rows computed / rows kept"] = params["experts"] * capacity / (total - dropped)
    figures_of_load["dropped assignments (%)"] = 100 * dropped / total
    return figures_of_load | {name: value() for name, value in figures.items()}
