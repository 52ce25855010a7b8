#!/usr/bin/env python3
"""Time decode attention, MLA and the CUDA streaming kernels, compared with the read ceiling and with other libraries.

usage: benchmark_attention.py WORKLOAD/PRESET[:KEY=VALUE,...] ... [--rounds N] [--only NAME,...] [--json FILE]

WORKLOAD is decode_attention, mla_decode or decode_kernel. Peers run if they are installed: two fused backends of SDPA, flex_attention,
fa3-fwd, flashinfer (paged, tensor cores), FlashMLA. All entries are proven or compared. They run over a cold cache (clones of a
small cache in rotation), interleaved in one process. Quote the fractions: they come from the same rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from interleaved_timing import Run, attempt, measure

from moeprof.errors import MoeprofError
from moeprof.workload.find import load
from moeprof.workload.model import Machine, Params, pairs
from moeprof.workloads.common.ceilings import gemm_tflop_per_s, read_gb_per_s
from moeprof.workloads.common.timing import captured
from moeprof.workloads.decode import attention, attention_paged, mla, sequences

TOLERANCE = 1e-2


def rotated(params: Params, kv: Any, clone: Callable[[Any], Any], nbytes: int, make: Callable[[Any], tuple[Run, Callable[[], Any]]], expected: Any) -> Run:  # fmt: skip
    """A peer over enough clones for a cold cache; its output is compared with the reference first."""
    run, output = make(kv)
    run()
    torch.cuda.synchronize()
    error = float((output().float() - expected.float()).norm() / expected.float().norm())
    if not error < TOLERANCE:
        raise RuntimeError(f"wrong by {error:.1e}")
    return sequences.cold(params, "cuda", kv, clone, nbytes, lambda kv: make(kv)[0])


def sdpa(backend: str, kv: attention.Cache) -> tuple[Run, Callable[[], Any]]:
    """torch's fused attention, in a CUDA graph; sequences of one length."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    count, q, last = int(kv.lengths[0]), kv.q.unsqueeze(2), [None]
    k, v = kv.k[:, :, :count], kv.v[:, :, :count]

    def run() -> None:
        with sdpa_kernel([getattr(SDPBackend, backend)]):
            last[0] = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    return captured(run), lambda: last[0].squeeze(2)  # type: ignore[union-attr]


def flex(kv: attention.Cache) -> tuple[Run, Callable[[], Any]]:
    """torch's flex_attention, compiled, in a CUDA graph."""
    from torch.nn.attention.flex_attention import flex_attention

    count, q, last = int(kv.lengths[0]), kv.q.unsqueeze(2), [None]
    k, v = kv.k[:, :, :count], kv.v[:, :, :count]
    compiled = torch.compile(flex_attention, dynamic=False)

    def run() -> None:
        last[0] = compiled(q, k, v, enable_gqa=True)

    run()
    return captured(run), lambda: last[0].squeeze(2)  # type: ignore[union-attr]


def fa3(kv: attention.Cache) -> tuple[Run, Callable[[], Any]]:
    """FlashAttention 3's decode entry over the whole cache with its lengths."""
    from fa3_fwd_interface import flash_attn_with_kvcache

    clean = [
        torch.nan_to_num(whole).transpose(1, 2) for whole in (kv.k, kv.v)
    ]  # it multiplies the tail by zero weights
    q, k, v, last = kv.q.unsqueeze(1), *clean, [None]

    def run() -> None:
        last[0] = flash_attn_with_kvcache(q, k, v, cache_seqlens=kv.lengths)

    return captured(run), lambda: (last[0][0] if isinstance(last[0], tuple) else last[0]).squeeze(1)  # type: ignore[index]


def flashinfer(page: int, kv: attention.Cache) -> tuple[Run, Callable[[], Any]]:
    """flashinfer's paged decode with tensor cores; its planning on the host is not timed."""
    import flashinfer as library

    k, v, table = attention_paged.paged(kv, page, 0)
    counts = [-(-n // page) for n in kv.lengths.tolist()]
    begins = torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()], dtype=torch.int32, device="cuda")
    indices = torch.cat([table[i, :n] for i, n in enumerate(counts)])
    wrapper = library.BatchDecodeWithPagedKVCacheWrapper(
        torch.zeros(256 << 20, dtype=torch.uint8, device="cuda"), "HND", use_tensor_cores=True
    )
    last_page = (kv.lengths - 1) % page + 1
    wrapper.plan(
        begins,
        indices,
        last_page,
        kv.q.shape[1],
        k.shape[1],
        k.shape[3],
        page,
        q_data_type=kv.q.dtype,
        kv_data_type=k.dtype,
    )
    out = torch.empty_like(kv.q)
    return captured(lambda: wrapper.run(kv.q, (k, v), out=out)), lambda: out


def flash_mla(params: Params, q: Any, lengths: Any, c: Any) -> tuple[Run, Callable[[], Any]]:
    """FlashMLA's dense decode over pages of 64 that lie in order."""
    from flash_mla import flash_mla_with_kvcache, get_mla_metadata

    table = torch.arange(c.shape[0] * c.shape[1] // 64, dtype=torch.int32, device="cuda").view(c.shape[0], -1)
    pages, meta, last = torch.nan_to_num(c).view(-1, 64, 1, c.shape[2]), get_mla_metadata()[0], [None]

    def run() -> None:
        last[0] = flash_mla_with_kvcache(
            q.unsqueeze(1),
            pages,
            table,
            lengths,
            params["latent_dim"],
            meta,
            softmax_scale=mla.scale(params),
            use_legacy=True,
        )[0]

    run()
    return captured(run), lambda: last[0].squeeze(1)  # type: ignore[union-attr]


def peers(name: str, params: Params) -> dict[str, Callable[[], Run]]:
    """The peers of a workload, by name."""
    if name == "mla_decode":
        q, c, lengths, _ = operands = mla.latents(params, "cuda")
        expected = mla.reference(params, operands, mla.scale(params))
        return {
            "FlashMLA": lambda: rotated(
                params, c, torch.clone, c.nbytes, lambda kv: flash_mla(params, q, lengths, kv), expected
            )
        }
    if name != "decode_attention":
        return {}
    kv = attention.cache(params, "cuda")
    expected = attention.reference(params, kv)
    makers: dict[str, Callable[[attention.Cache], Any]] = {
        "fa3-fwd": fa3,
        "flashinfer": lambda kv: flashinfer(params["page"], kv),
    }
    if len(set(kv.lengths.tolist())) == 1:
        makers |= {
            "cuDNN": lambda kv: sdpa("CUDNN_ATTENTION", kv),
            "FLASH": lambda kv: sdpa("FLASH_ATTENTION", kv),
            "flex": flex,
        }
    return {
        peer: lambda make=make: rotated(params, kv, lambda kv: replace(kv, k=kv.k.clone(), v=kv.v.clone()), 2 * kv.k.nbytes, make, expected)
        for peer, make in makers.items()
    }  # fmt: skip


def entries(name: str, params: Params, only: set[str] | None, steps: list[Any]) -> dict[str, Run]:
    """The proven variants of the workload, and its peers."""
    workload = load(name)
    machine = Machine(True, 1, compute_capability=".".join(map(str, torch.cuda.get_device_capability())))

    def proven(variant: Any) -> Run:
        reason = variant.needs(machine)
        if reason:
            raise RuntimeError(f"SKIPPED: {reason}")
        step = variant.build(params, "cuda")
        proof = workload.prove(params, "cuda", step)
        if not proof.ok:
            raise RuntimeError(f"wrong: {proof.reason}")
        steps.append(step)
        print(f"  {variant.name}: {step.facts()}", flush=True)
        return step.run

    makers: dict[str, Callable[[], Run]] = {}
    for variant in workload.variants:
        makers[variant.name] = lambda variant=variant: proven(variant)
    runs: dict[str, Run] = {}
    for entry, make in (makers | peers(name, params)).items():
        if only is None or entry in only:
            attempt(runs, entry, make)
    return runs


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="+", metavar="WORKLOAD/PRESET[:KEY=VALUE,...]")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", help="names, comma-separated")
    parser.add_argument("--json", help="write the rows here too")
    args = parser.parse_args()
    only, results = set(args.only.split(",")) if args.only else None, {}
    read, gemm = read_gb_per_s("cuda"), gemm_tflop_per_s(torch.bfloat16, "cuda")
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}; read {read:.0f} GB/s, gemm {gemm:.0f} TFLOP/s",
        flush=True,
    )
    for case in args.cases:
        where, _, words = case.partition(":")
        name, _, preset = where.partition("/")
        steps: list[Any] = []
        try:
            params = load(name).params(preset or "default", pairs(words.split(",") if words else []))
            print(f"\n{case}", flush=True)
            times = measure(entries(name, params, only, steps), args.rounds)
        except MoeprofError as error:
            print(f"error: {error.message} ({error.hint})", file=sys.stderr)
            return int(error.exit_code)
        rows = []
        if not steps:
            print("  no variant of the workload ran: there is nothing to compare with", file=sys.stderr)
            continue
        for entry, samples in times.items():
            ms = median(samples)
            gb, tflop = steps[0].bytes_moved / ms / 1e6, steps[0].flops / ms / 1e9
            rows.append({"entry": entry, "ms": ms, "gb_per_s": gb, "of_read": gb / read, "tflop_per_s": tflop})
            print(
                f"  {entry:14s} {1e3 * ms:9.2f} us {gb:7.0f} GB/s {gb / read:6.3f} of read {tflop:7.1f} TFLOP/s",
                flush=True,
            )
        results[case] = rows
        steps.clear()
        torch.cuda.empty_cache()
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
