"""Planted faults of decode_attention, mla_decode and decode_kernel: each is a plausible mistake that the proof must refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from moeprof.workload.model import Build, Params, Step
from moeprof.workloads.decode import attention, mla, stream


def _attention_fault(wrong: Callable[[Params, attention.Cache], Any], params: Params, device: str) -> Step:
    return attention.step(
        params, device, attention.cache(params, device), lambda kv: lambda: kv.out.copy_(wrong(params, kv))
    )


def _mean(params: Params, kv: attention.Cache) -> Any:
    return attention.reference(params, kv, scale=0.0)


def _without_scale(params: Params, kv: attention.Cache) -> Any:
    return attention.reference(params, kv, scale=1.0)


def _first_key(params: Params, kv: attention.Cache) -> Any:
    return kv.v[:, :, 0].repeat_interleave(params["q_heads"] // params["kv_heads"], 1)


def _dropped_split(params: Params, kv: attention.Cache) -> Any:
    longest = int(kv.lengths.max())
    return attention.reference(params, kv, skip=(longest // 4, longest // 2))


def _last_page(params: Params, kv: attention.Cache) -> Any:
    counts = ((kv.lengths - 1) // params["page"] * params["page"]).clamp(min=1)
    return attention.reference(params, replace(kv, lengths=counts))


ATTENTION_FAULTS: dict[str, Build] = {
    "mean-of-v": partial(_attention_fault, _mean),
    "dropped-split": partial(_attention_fault, _dropped_split),
    "no-scale": partial(_attention_fault, _without_scale),
    "last-page-skipped": partial(_attention_fault, _last_page),
    "first-key-only": partial(_attention_fault, _first_key),
    "zeros": partial(_attention_fault, lambda params, kv: kv.q * 0),
}


def _mla_fault(wrong: Callable[[Params, tuple[Any, ...]], Any], params: Params, device: str) -> Step:
    operands = mla.latents(params, device)
    return mla.step(
        params, device, operands, lambda c: lambda: operands[3].copy_(wrong(params, (operands[0], c, *operands[2:])))
    )


MLA_FAULTS: dict[str, Build] = {
    "mean-of-v": partial(_mla_fault, lambda params, operands: mla.reference(params, operands, 0.0)),
    "no-scale": partial(_mla_fault, lambda params, operands: mla.reference(params, operands, 1.0)),
    "last-key-skipped": partial(
        _mla_fault, lambda params, operands: mla.reference(params, operands, mla.scale(params), skip_last=1)
    ),
    "zeros": partial(_mla_fault, lambda params, operands: operands[0][..., : params["latent_dim"]] * 0),
}


def _stream_fault(wrong: Callable[[tuple[Any, Any, Any]], Any], params: Params, device: str) -> Step:
    operands = stream.tensors(params, device)
    return stream.step(params, operands, lambda: operands[2].copy_(wrong(operands)))


STREAM_FAULTS: dict[str, Build] = {
    "tile-dropped": partial(_stream_fault, lambda g: stream.reference((g[0][:, stream.TILE_ROWS:], g[1], g[2])) * (1 - stream.TILE_ROWS / g[0].shape[1])),
    "tile-twice": partial(_stream_fault, lambda g: stream.reference((g[0][:, [*range(g[0].shape[1]), *range(stream.TILE_ROWS)]], g[1], g[2])) * (1 + stream.TILE_ROWS / g[0].shape[1])),
    "next-query": partial(_stream_fault, lambda g: stream.reference((g[0], g[1].roll(1, 0), g[2]))),
    "mean": partial(_stream_fault, lambda g: g[0].double().mean(1)),
    "zeros": partial(_stream_fault, lambda g: g[1] * 0),
}  # fmt: skip
