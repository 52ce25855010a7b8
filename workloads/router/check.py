"""The proof of the router against a reference of higher precision, and the ceilings that bound it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isnan
from typing import Any

from moeprof.workload.model import Params, Proof, Step
from moeprof.workloads.common.ceilings import gemm_tflop_per_s, read_gb_per_s, sustained
from moeprof.workloads.common.timing import synchronise
from moeprof.workloads.router import layer as moe
from moeprof.workloads.router import routing

# relative Frobenius norms; bf16 operands with a bf16 intermediate give 2.9e-3, one skipped expert of 128 gives 0.03 or more
TOLERANCES = {"bfloat16": 1e-2, "float16": 2e-3, "float32": 1e-5, "float64": 1e-12}
TOKEN_FACTOR = 20  # a single token may be off by so many tolerances; an unrelated one is off by about 1.4
# the probe's error over the size of what cancels; see ``combine_error``
PROBE_TOLERANCES = {"bfloat16": 3e-4, "float16": 4e-5, "float32": 1e-6, "float64": 1e-14}
CANCELLED = 0.1  # the probe looks at tokens whose signed weights sum to less than this share of their size


def exact(params: Params) -> Any:
    """The dtype of the reference: float32 for the half precisions, else float64."""
    import torch

    return torch.float32 if params["dtype"] in ("bfloat16", "float16") else torch.float64


def prove(params: Params, device: str, step: Step) -> Proof:
    """Poison, run, compare every token with the reference; run again, bit for bit; probe the precision of the combine."""
    assert isinstance(step, moe.MoeStep)
    layer = moe.layer(params, device)
    expected = reference(layer, *routed(params, layer, step.capacity), exact(params))
    first = _fresh(step, device)

    def probe() -> float:
        with identical_experts(step.weights, 0, [weight[0].clone() for weight in step.weights]):
            output = _fresh(step, device)
        return combine_error(params, layer, step.capacity, output)

    probed = step.exact_combine and params["topk"] > 1
    return judged(params, expected, first, lambda: _fresh(step, device), probe if probed else None)


def judged(
    params: Params, expected: Any, first: Any, again: Callable[[], Any], probe: Callable[[], float] | None
) -> Proof:
    """The verdict on an output [T, H]: every token against ``expected``, a second output bit for bit, and with a ``probe`` the
    precision of the combine."""
    import torch

    tolerance = TOLERANCES[params["dtype"]]
    size = expected.square().mean().sqrt()
    tokens = (first.to(expected.dtype) - expected).square().mean(1).sqrt() / size
    error = float(tokens.square().mean().sqrt())
    if not (error <= tolerance and float(tokens.max()) <= TOKEN_FACTOR * tolerance):  # NaN never passes
        wrong = (~(tokens <= TOKEN_FACTOR * tolerance)).nonzero().flatten()[:8].tolist()
        reason = f"the output differs from the reference, by {error:.1e} of its size; tokens off by more than {TOKEN_FACTOR * tolerance:.0e}: {wrong}"
        return Proof(False, "", None if isnan(error) else error, tolerance, reason)
    if not torch.equal(first, again()):
        return Proof(False, "", error, tolerance, "two runs of the same input differ")
    checked = f"{len(first)} of {len(first)} tokens, every element, twice the same"
    if probe is not None:
        allowed, off = PROBE_TOLERANCES[params["dtype"]], probe()
        if not off <= allowed:
            reason = f"the combine rounds more than once: off by {off:.1e}, {allowed:.0e} allowed"
            return Proof(False, checked, error, tolerance, reason)
        checked += f"; combine exact to {off:.0e}"
    return Proof(True, checked, error, tolerance)


def _fresh(step: Step, device: str) -> Any:
    """The output of a run after everything was poisoned."""
    step.poison()
    step.run()
    synchronise(device)
    return step.output().clone()


def routed(params: Params, layer: moe.Layer, limit: int | None) -> tuple[Any, Any]:
    """Experts and weights [T, K] in the precision of the reference; dropped assignments have weight zero."""
    import torch

    wide = exact(params)
    chosen, weights = routing.route(layer.x.to(wide) @ layer.router.to(wide).t(), layer.bias.to(wide), params)
    if limit is None:
        return chosen, weights
    queue, order = chosen.t().flatten().sort(stable=True)  # first choices of all tokens, then second ones
    starts = torch.searchsorted(queue, torch.arange(params["experts"], device=queue.device))
    places_in_queue = torch.empty_like(order)
    places_in_queue[order] = torch.arange(len(queue), device=queue.device) - starts[queue]
    return chosen, weights * (places_in_queue.view(params["topk"], -1).t() < limit)


def reference(layer: moe.Layer, chosen: Any, weights: Any, wide: Any) -> Any:
    """The layer's output [T, H] in ``wide`` precision, expert by expert."""
    import torch

    out = torch.zeros(layer.x.shape, dtype=wide, device=layer.x.device)
    for expert in range(len(layer.w13)):
        token, k = (chosen == expert).nonzero(as_tuple=True)
        result = _expert(layer.x[token], layer.w13[expert], layer.w2[expert], wide)
        out.index_add_(0, token, result * weights[token, k].unsqueeze(1).to(wide))
    return out


def _expert(rows: Any, w13: Any, w2: Any, wide: Any) -> Any:
    return moe.swiglu(rows.to(wide) @ w13.to(wide).t()) @ w2.to(wide).t()


@contextmanager
def identical_experts(weights: tuple[Any, ...], first: int, first_expert: list[Any]) -> Iterator[None]:
    """Give every expert of ``weights`` [E, ...], numbered from ``first``, the weights ``first_expert``, with w2 negated for odd
    numbers, as ``combine_error`` needs them; restore the weights afterwards."""
    saved_weights = [weight.clone() for weight in weights]
    try:
        for weight, same in zip(weights, first_expert, strict=True):
            weight.copy_(same.expand_as(weight))
        weights[1][1 - first % 2 :: 2].neg_()
        yield
    finally:
        for weight, saved in zip(weights, saved_weights, strict=True):
            weight.copy_(saved)


def combine_error(params: Params, layer: moe.Layer, capacity: int | None, output: Any) -> float:
    """The error of the combine relative to a sum that is rounded once, measured where the sum nearly cancels.

    ``output`` is that of ``identical_experts``. The K results of a token are then equal except for their signs, so that their
    rounding to the dtype of the layer cancels too, and only the rounding of the combine remains. Relative to the size of what
    cancels, an exact combine is off by some 1e-4 in bf16; one that rounds the products or the partial sums by 1e-3.
    """
    import torch

    wide = exact(params)
    chosen, weights = routed(params, layer, capacity)
    signed = (weights * (1 - 2 * (chosen % 2))).sum(1)
    few = (signed.abs() < CANCELLED * weights.sum(1)).nonzero().flatten()[:4096]
    if not len(few):
        return 0.0
    alone = _expert(layer.x[few], layer.w13[0], layer.w2[0], wide)
    expected = alone * signed[few].unsqueeze(1).to(wide)
    off = (output[few].to(wide) - expected) / weights[few].sum(1, keepdim=True).to(wide)
    return float(torch.linalg.norm(off) / torch.linalg.norm(alone))


def ceilings(params: Params, device: str) -> dict[str, float]:
    """TFLOP/s of one large GEMM and of torch.bmm on the GEMMs of the experts alone, GB/s of reading; sustained, random data."""
    return {
        "gemm_tflop_per_s": gemm_tflop_per_s(moe.dtype(params), device),
        "bmm_tflop_per_s": bmm(params, device, -(-params["tokens"] * params["topk"] // params["experts"])),
        "read_gb_per_s": read_gb_per_s(device),
    }


def bmm(params: Params, device: str, rows: int) -> float:
    """TFLOP/s of torch.bmm for both GEMMs at ``rows`` rows per expert, nothing else."""
    import torch

    experts, hidden, inner = params["experts"], params["hidden"], params["inner"]

    def random(*shape: int) -> Any:
        return torch.empty(*shape, dtype=moe.dtype(params), device=device).normal_()

    x, w13, mid = random(experts, rows, hidden), random(experts, 2 * inner, hidden), random(experts, rows, inner)
    w2, wide, out = random(experts, hidden, inner), random(experts, rows, 2 * inner), random(experts, rows, hidden)

    def both() -> None:
        torch.bmm(x, w13.transpose(1, 2), out=wide)
        torch.bmm(mid, w2.transpose(1, 2), out=out)

    return 6 * experts * rows * hidden * inner / sustained(both, device) / 1e12
