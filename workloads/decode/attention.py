"""The work of decode_attention: queries, the KV cache and its poisoned tail, the step, the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from moeprof.errors import UsageError
from moeprof.workload.model import Params, Step
from moeprof.workloads.decode import sequences


@dataclass(frozen=True)
class Cache:
    """q [B, HQ, D] for one new token a sequence; k, v [B, HKV, capacity, D], NaN past each length; lengths [B] (int32)."""

    q: Any
    k: Any
    v: Any
    lengths: Any
    out: Any


def cache(params: Params, device: str) -> Cache:
    """The queries and the cache from the seed; every sequence's tail is NaN."""
    import torch

    if params["q_heads"] % params["kv_heads"]:
        raise UsageError(
            f"{params['q_heads']} query heads cannot share {params['kv_heads']} kv heads", "give a multiple"
        )
    if params["backend"] not in ("flash", "cudnn"):
        raise UsageError(f"parameter backend={params['backend']!r} is not a backend", "give flash or cudnn")
    counts, width = sequences.lengths(params), params["head_dim"]
    shape = (len(counts), params["kv_heads"], sequences.capacity(params), width)
    q = sequences.normal((len(counts), params["q_heads"], width), params, device, 0)
    k, v = sequences.normal(shape, params, device, 1), sequences.normal(shape, params, device, 2)
    shared = q.unflatten(1, (params["kv_heads"], -1)).float().mean(2)
    for sequence, count in enumerate(counts):
        sequences.needles(k[sequence], shared[sequence], width**-0.5, count)
        k[sequence, :, count:] = v[sequence, :, count:] = float("nan")
    return Cache(q, k, v, torch.tensor(counts, dtype=torch.int32, device=device), torch.empty_like(q))


def _clone(kv: Cache) -> Cache:
    return replace(kv, k=kv.k.clone(), v=kv.v.clone())


def step(params: Params, device: str, kv: Cache, make: Callable[[Cache], Callable[[], object]], **more: Any) -> Step:
    tokens, width = sum(sequences.lengths(params)), params["head_dim"]
    moved = kv.k.element_size() * (2 * tokens * params["kv_heads"] * width + kv.q.numel() + kv.out.numel())
    run = sequences.cold(params, device, kv, _clone, 2 * kv.k.nbytes, make)
    return sequences.step(run, kv.out, (), 4 * tokens * params["q_heads"] * width, moved, **more)


def reference(params: Params, kv: Cache, skip: tuple[int, int] = (0, 0), scale: float | None = None) -> Any:
    """The attention [B, HQ, D] in higher precision, sequence by sequence; ``skip``: leave out these positions, if any."""
    import torch

    wide, group = sequences.exact(params), params["q_heads"] // params["kv_heads"]
    out = torch.zeros(kv.q.shape, dtype=wide, device=kv.q.device)
    for sequence, count in enumerate(kv.lengths.tolist()):
        keep = [i for i in (slice(0, min(skip[0], count)), slice(min(skip[1], count), count)) if i.stop > i.start]
        k, v = (torch.cat([whole[sequence, :, i] for i in keep], 1).to(wide) for whole in (kv.k, kv.v))
        q = kv.q[sequence].to(wide).unflatten(0, (-1, group))  # [HKV, group, D]
        weights = torch.softmax(q @ k.transpose(1, 2) * (params["head_dim"] ** -0.5 if scale is None else scale), -1)
        out[sequence] = (weights @ v).flatten(0, 1)
    return out
