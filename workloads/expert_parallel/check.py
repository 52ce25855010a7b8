"""expert_parallel's proof, rank by rank, the ceilings that bound it, and the figures beside its time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moeprof.workload.model import Params, Proof, Step
from moeprof.workloads.common.ceilings import gemm_tflop_per_s
from moeprof.workloads.common.timing import delay_gpu, seconds, synchronise
from moeprof.workloads.expert_parallel import layout as ep
from moeprof.workloads.expert_parallel import peer_copy, registered_memory
from moeprof.workloads.router import check
from moeprof.workloads.router import layer as moe

DELAY_MS = 20  # of rank 0, of rank r r + 1 times as long: a rank that does not wait for another reads too early
CEILING_BYTES = {"cuda": 256 << 20, "cpu": 16 << 20}


def prove(params: Params, device: str, step: Step) -> Proof:
    """Compare the whole output of this rank with its own reference; every rank must call it.

    All runs come before any verdict: a rank that returned early would leave the others waiting.
    """
    assert isinstance(step, moe.MoeStep)
    group = ep.ranks()
    layer, _ = ep.inputs(params, device, group)
    expected = check.reference(layer, *check.routed(params, layer, None), check.exact(params))
    first, second = _fresh(step, device, group), _fresh(step, device, group)
    probe: Callable[[], float] | None = None
    if params["topk"] > 1:
        first_local_expert = [layer.w13[0], layer.w2[0]]
        with check.identical_experts(step.weights, group.rank * len(step.weights[0]), first_local_expert):
            output = _fresh(step, device, group)
        rounding = check.combine_error(params, layer, None, output)
        probe = lambda: rounding  # noqa: E731
    return check.judged(params, expected, first, lambda: second, probe)


def _fresh(step: Step, device: str, group: ep.Ranks) -> Any:
    """The output of a run after every rank poisoned its buffers, with the GPU delayed."""
    step.poison()
    synchronise(device)
    ep.barrier(device)
    delay_gpu(device, DELAY_MS * (1 + group.rank))
    step.run()
    synchronise(device)
    return step.output().clone()


def ceilings(params: Params, device: str) -> dict[str, float]:
    """TFLOP/s of one large GEMM on every GPU at once; GB/s each way between ranks, all at once; every rank must call it.

    The link: copies by copy engines to the next rank where the GPUs reach each other (on one rank: within its memory), else the
    bus bandwidth of an all-to-all.
    """
    gemm = gemm_tflop_per_s(moe.dtype(params), device)
    if device == "cuda" and peer_copy.linked(ep.ranks()):
        return {"gemm_tflop_per_s": gemm, "peer_gb_per_s": peer_copy.copy_gb_per_s(CEILING_BYTES[device])}
    return {"gemm_tflop_per_s": gemm, "peer_gb_per_s": all_to_all_gb_per_s(CEILING_BYTES[device], device)}


def all_to_all_gb_per_s(size: int, device: str) -> float:
    """Bus bandwidth of an even all-to-all of ``size`` bytes per rank: bytes to other ranks over time (one rank: all bytes)."""
    import torch

    count = ep.ranks().count
    rows, out = (registered_memory.zeros((count, size // 2 // count), torch.bfloat16, device) for _ in range(2))
    return bytes_to_others(rows.nbytes, count) / collective_seconds(lambda: _exchange(out, rows), device) / 1e9


def _exchange(out: Any, rows: Any) -> None:
    import torch.distributed as dist

    dist.all_to_all_single(out, rows)


def bytes_to_others(size: int, count: int) -> float:
    """The part of ``size`` evenly distributed bytes that goes to other ranks; with one rank all bytes."""
    return size * (count - 1) / count if count > 1 else size


def collective_seconds(action: Callable[[], object], device: str) -> float:
    """Median seconds of one ``action``; all ranks begin together and repeat it equally often."""
    ep.barrier(device)
    return seconds(action, device, repeats=8, graph=False)


def link_bytes(params: Params, layout: ep.Layout) -> int:
    """Bytes that a rank sends to others in an iteration, rows and results, the mean over the ranks (one rank: to itself)."""
    row, count = params["hidden"] * moe.dtype(params).itemsize, layout.ranks.count
    rows = sum(layout.crossing(rank)[0] for rank in range(count)) if count > 1 else layout.rows(0)
    return round(2 * rows * row / count)


def facts(params: Params, layout: ep.Layout, counts_received: Any) -> dict[str, Any]:
    """Figures beside the time, of this rank and of all ranks; ``counts_received``: rows by sender, chunk and local expert."""
    row = params["hidden"] * moe.dtype(params).itemsize / 1e6
    leave, arrive = layout.crossing(layout.ranks.rank)
    rows = [layout.rows(rank) for rank in range(layout.ranks.count)]
    return {
        "sent to other ranks, rows (MB)": leave * row,
        "received from other ranks, rows (MB)": arrive * row,
        "sent to other ranks, rows and results (MB)": (leave + arrive) * row,
        "rows of this rank": float(counts_received.sum()),
        "rows of each rank": rows,
        "rows of a rank, max / mean": max(rows) * len(rows) / sum(rows),
        "tokens of each expert": layout.counts.sum((0, 1)).tolist(),
        "dropped assignments (%)": 0.0,
    }
