"""The work of mla_decode: queries, the latent cache and its poisoned tail, the step, the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moeprof.workload.model import Params, Step
from moeprof.workloads.decode import sequences


def latents(params: Params, device: str) -> tuple[Any, Any, Any, Any]:
    """q [B, H, V + R], c [B, capacity, V + R] with NaN past each length, lengths [B], out [B, H, V]."""
    import torch

    counts, width = sequences.lengths(params), params["latent_dim"] + params["rope_dim"]
    q = sequences.normal((len(counts), params["heads"], width), params, device, 0)
    c = sequences.normal((len(counts), sequences.capacity(params), width), params, device, 1)
    for sequence, count in enumerate(counts):
        sequences.needles(c[sequence : sequence + 1], q[sequence].float().mean(0, keepdim=True), scale(params), count)
        c[sequence, count:] = float("nan")
    out = q.new_empty(len(counts), params["heads"], params["latent_dim"])
    return q, c, torch.tensor(counts, dtype=torch.int32, device=device), out


def scale(params: Params) -> float:
    """One over the root of the key width before absorption: 128 and the rotary part."""
    return float((params["key_dim"] + params["rope_dim"]) ** -0.5)


def step(
    params: Params, device: str, operands: tuple[Any, ...], make: Callable[[Any], Callable[[], object]], **more: Any
) -> Step:
    q, c, _, out = operands
    tokens, width = sum(sequences.lengths(params)), params["latent_dim"] + params["rope_dim"]
    moved = c.element_size() * (tokens * width + q.numel() + out.numel())
    run = sequences.cold(params, device, c, lambda whole: whole.clone(), c.nbytes, make)
    return sequences.step(run, out, (), 2 * tokens * params["heads"] * (width + params["latent_dim"]), moved, **more)


def reference(params: Params, operands: tuple[Any, ...], factor: float, skip_last: int = 0) -> Any:
    """The attention [B, H, V] in higher precision, sequence by sequence."""
    import torch

    q, c, lengths, _ = operands
    wide = sequences.exact(params)
    outputs = []
    for sequence, count in enumerate(lengths.tolist()):
        rows = c[sequence, : max(1, count - skip_last)].to(wide)
        weights = torch.softmax(q[sequence].to(wide) @ rows.t() * factor, -1)
        outputs.append(weights @ rows[:, : params["latent_dim"]])
    return torch.stack(outputs)
