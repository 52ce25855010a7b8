#!/usr/bin/env python3
"""Time every step of the router, compared with its yardsticks and with other libraries, interleaved in one process.

usage: benchmark_router.py PRESET[:KEY=VALUE,...] ... [--rounds N] [--only NAME,...] [--json FILE]

Yardsticks: torch.bmm for both GEMMs and nothing else at the rows that each step computes (bound: T K / E rows per expert; dense:
T; topk: the capacity), and reading memory once. Peers run if they are installed: transformers' experts (grouped_mm), Liger's fused
MoE, triton_kernels' ragged matmul, and the products alone by torch's grouped_mm and DeepGEMM. Each entry is checked against the
reference before it is timed. Quote the fractions: they come from the same rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from interleaved_timing import Run, attempt, measure

from moeprof.errors import MoeprofError
from moeprof.workload.find import load
from moeprof.workload.model import pairs
from moeprof.workloads.common.ceilings import gemm_tflop_per_s, read_gb_per_s
from moeprof.workloads.router import check, routing, topk
from moeprof.workloads.router import layer as moe
from moeprof.workloads.router import workload as router


def bmm(params: dict[str, Any], rows: int) -> Run:
    """Both GEMMs of all experts at ``rows`` rows each."""
    experts, hidden, inner = params["experts"], params["hidden"], params["inner"]

    def made(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, dtype=moe.dtype(params), device="cuda").normal_()

    x, mid, wide, out = (made(experts, rows, size) for size in (hidden, inner, 2 * inner, hidden))
    w13, w2 = made(experts, 2 * inner, hidden).mul_(hidden**-0.5), made(experts, hidden, inner).mul_(inner**-0.5)

    def run() -> None:
        torch.bmm(x, w13.transpose(1, 2), out=wide)
        torch.bmm(mid, w2.transpose(1, 2), out=out)

    return run


def transformers_experts(params: dict[str, Any], layer: moe.Layer) -> tuple[Run, Callable[[], Any]]:
    """Qwen3's MoE block of transformers with its grouped_mm experts."""
    from transformers.models.qwen3_moe.configuration_qwen3_moe import Qwen3MoeConfig
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

    config = Qwen3MoeConfig(
        hidden_size=params["hidden"], moe_intermediate_size=params["inner"], num_experts=params["experts"],
        num_experts_per_tok=params["topk"], norm_topk_prob=params["renormalise"],
    )  # fmt: skip
    config._experts_implementation = "grouped_mm"
    with torch.device("meta"):
        block = Qwen3MoeSparseMoeBlock(config)
    block.experts.gate_up_proj = torch.nn.Parameter(layer.w13, requires_grad=False)
    block.experts.down_proj = torch.nn.Parameter(layer.w2, requires_grad=False)
    block.gate.weight = torch.nn.Parameter(layer.router, requires_grad=False)
    last: list[Any] = [None]

    def run() -> None:
        with torch.no_grad():
            result = block(layer.x.unsqueeze(0))
        last[0] = (result[0] if isinstance(result, tuple) else result).view(layer.x.shape)

    return run, lambda: last[0]


def liger(params: dict[str, Any], layer: moe.Layer) -> tuple[Run, Callable[[], Any]]:
    """Liger's fused MoE behind torch's routing."""
    from liger_kernel.ops.fused_moe import LigerFusedMoEFunction

    last: list[Any] = [None]

    def run() -> None:
        with torch.no_grad():
            chosen, weights = routing.route(moe.logits(layer), layer.bias, params)
            last[0] = LigerFusedMoEFunction.apply(layer.x, layer.w13, layer.w2, chosen.int(), weights.to(layer.x.dtype))

    return run, lambda: last[0]


def triton_kernels(params: dict[str, Any], layer: moe.Layer) -> tuple[Run, Callable[[], Any]]:
    """triton_kernels' top-k, ragged matmuls with its own SwiGLU, and reduction. Its SwiGLU takes gate and up in turn, and adds 1
    to up, which a bias takes off again."""
    from triton_kernels.matmul import FnSpecs, FusedActivation, PrecisionConfig, matmul
    from triton_kernels.reduce import reduce
    from triton_kernels.swiglu import swiglu_fn
    from triton_kernels.tensor import make_ragged_tensor_metadata
    from triton_kernels.topk import topk

    act = FusedActivation(FnSpecs("swiglu", swiglu_fn, ("alpha", "limit"), reduction_n=2), (1.0, float("inf")))
    config, count, last = PrecisionConfig(), params["topk"], [None]
    in_turn = layer.w13.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2).contiguous()
    w13, w2 = in_turn.transpose(1, 2), layer.w2.transpose(1, 2)
    minus_one = torch.zeros(w13.shape[0], w13.shape[2], device="cuda")
    minus_one[:, 1::2] = -1

    @torch.no_grad()
    def run() -> None:
        active = topk(moe.logits(layer), count, apply_softmax=True)
        order = active.mask_metadata.col_sorted_indx
        ragged = make_ragged_tensor_metadata(active.mask_metadata.col_sum, order.shape[0])
        given = {"a_ragged_metadata": ragged, "precision_config": config}
        hidden = matmul(layer.x, w13, minus_one, gather_indx=order // count, fused_activation=act, **given)
        scaled = active.vals.flatten()[order]
        parts = matmul(hidden, w2, None, scatter_indx=order, gammas=scaled, **given)
        result = reduce(parts.view(-1, count, parts.shape[-1]), dim=1)
        last[0] = result[0] if isinstance(result, tuple) else result

    return run, lambda: last[0]


PEERS = {"transformers": transformers_experts, "liger": liger, "triton_kernels": triton_kernels}


def rows_of_each(params: dict[str, Any], layer: moe.Layer) -> torch.Tensor:
    """Rows that each expert gets [E]."""
    return torch.bincount(
        routing.route(moe.logits(layer), layer.bias, params)[0].flatten(), minlength=params["experts"]
    )


def deep_gemm_alone(params: dict[str, Any], layer: moe.Layer) -> Run:
    """DeepGEMM's grouped GEMM for both products on sorted rows, each expert's rows filled up to its tile; nothing else."""
    import deep_gemm

    tile = deep_gemm.get_mk_alignment_for_contiguous_layout()
    load_ = rows_of_each(params, layer)
    owner = torch.arange(params["experts"], device="cuda", dtype=torch.int32).repeat_interleave(
        (load_ + tile - 1) // tile * tile
    )

    def made(columns: int) -> torch.Tensor:
        return torch.empty(len(owner), columns, dtype=layer.x.dtype, device="cuda").normal_()

    rows, mid, wide, out = (made(n) for n in (params["hidden"], params["inner"], 2 * params["inner"], params["hidden"]))

    def run() -> None:
        deep_gemm.m_grouped_bf16_gemm_nt_contiguous(rows, layer.w13, wide, owner)
        deep_gemm.m_grouped_bf16_gemm_nt_contiguous(mid, layer.w2, out, owner)

    return run


def gemms_alone(params: dict[str, Any], layer: moe.Layer) -> Run:
    """torch's grouped_mm for both GEMMs on sorted rows, nothing else."""
    load_ = rows_of_each(params, layer)
    ends = load_.cumsum(0).int()
    rows = torch.empty(int(ends[-1]), params["hidden"], dtype=layer.x.dtype, device="cuda").normal_()
    mid = torch.empty(len(rows), params["inner"], dtype=layer.x.dtype, device="cuda").normal_()
    w13, w2 = layer.w13.transpose(1, 2), layer.w2.transpose(1, 2)

    def run() -> None:
        torch.nn.functional.grouped_mm(rows, w13, offs=ends)
        torch.nn.functional.grouped_mm(mid, w2, offs=ends)

    return run


def entries(params: dict[str, Any], only: set[str] | None) -> dict[str, Run]:
    """All entries that work here, proven; those that do not work are reported on stderr."""
    workload, layer = router.WORKLOAD, moe.layer(params, "cuda")
    runs: dict[str, Run] = {}
    owners: list[Any] = [layer]

    def attempted(name: str, make: Callable[[], Run]) -> None:
        if only is None or name in only:
            attempt(runs, name, make)

    def proven(build: Any) -> Run:
        step = build(params, "cuda")
        proof = check.prove(params, "cuda", step)
        if not proof.ok:
            raise RuntimeError(f"wrong: {proof.reason}")
        owners.append(step)
        return step.run

    def compared(make: Any) -> Run:
        run, output = make(params, layer)
        run()
        chosen, weights = check.routed(params, layer, None)
        if (result := output()) is not None:
            expected = check.reference(layer, chosen, weights, torch.float32)
            error = float((result.float() - expected).norm() / expected.norm())
            if not error < 2e-2:
                raise RuntimeError(f"wrong by {error:.1e}")
        return run

    for variant in workload.variants:
        attempted(variant.name, lambda variant=variant: proven(variant.build))
    attempted("topk eager", lambda: proven(topk.build_eager))
    rows = -(-params["tokens"] * params["topk"] // params["experts"])
    attempted("bound", lambda: bmm(params, rows))
    attempted("bmm of dense", lambda: bmm(params, params["tokens"]))
    attempted("bmm of topk", lambda: bmm(params, routing.capacity(params)))
    attempted("grouped_mm alone", lambda: gemms_alone(params, layer))
    attempted("DeepGEMM alone", lambda: deep_gemm_alone(params, layer))
    for name, peer in PEERS.items():
        attempted(name, lambda peer=peer: compared(peer))
    return runs


def report(params: dict[str, Any], times: dict[str, list[float]], read: float) -> list[dict[str, Any]]:
    """One row an entry: milliseconds, TFLOP/s on useful FLOPs, GB/s of declared bytes, and its fraction of its yardstick."""
    it_bytes = moe.bytes_moved(params, moe.layer(params, "cuda"))
    useful = 6 * params["tokens"] * params["topk"] * params["hidden"] * params["inner"]
    yardsticks = {
        "dense": "bmm of dense",
        "topk": "bmm of topk",
        "topk eager": "bmm of topk",
        "vectorized": "topk eager",
    }
    rows = []
    for name, samples in times.items():
        against = yardsticks.get(name, "bound")
        ratio = median([b / a for a, b in zip(samples, times[against], strict=True)]) if against in times else None
        ms = median(samples)
        gb_per_s = it_bytes / ms / 1e6
        rows.append({"entry": name, "ms": ms, "tflop_per_s": useful / ms / 1e9, "gb_per_s": gb_per_s, "of_read": gb_per_s / read, "against": against, "fraction": ratio})  # fmt: skip
    return rows


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="+", metavar="PRESET[:KEY=VALUE,...]")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", help="names, comma-separated")
    parser.add_argument("--json", help="write the rows here too")
    args = parser.parse_args()
    only = set(args.only.split(",")) if args.only else None
    workload, results = load("router"), {}
    read = read_gb_per_s("cuda")  # first of all: a process that has mapped much memory may read more slowly
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}; gemm {gemm_tflop_per_s(torch.bfloat16, 'cuda'):.0f} TFLOP/s, read {read:.0f} GB/s",
        flush=True,
    )
    for case in args.cases:
        preset, _, words = case.partition(":")
        try:
            params = workload.params(preset, pairs(words.split(",") if words else []))
            print(f"\n{case}", flush=True)
            rows = report(params, measure(entries(params, only), args.rounds), read)
        except MoeprofError as error:
            print(f"error: {error.message} ({error.hint})", file=sys.stderr)
            return int(error.exit_code)
        for row in rows:
            share = "" if row["fraction"] is None else f"{row['fraction']:6.3f} of {row['against']}"
            print(f"  {row['entry']:18s} {row['ms']:8.4f} ms {row['tflop_per_s']:7.1f} TFLOP/s {row['gb_per_s']:7.0f} GB/s {row['of_read']:6.3f} of read  {share}", flush=True)  # fmt: skip
        results[case] = rows
        torch.cuda.empty_cache()
    if args.json:
        with Path(args.json).open("w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
