"""What the decode-attention workloads share: lengths, caches with a poisoned tail, the cold step, the proof."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import ceil, isnan, log
from typing import Any

from moeprof.errors import UsageError
from moeprof.workload.model import Params, Proof, Step
from moeprof.workloads.common.ceilings import gemm_tflop_per_s, read_gb_per_s
from moeprof.workloads.common.timing import synchronise

COLD_BYTES = 256 << 20  # caches smaller than this are cloned and used in turn: several times an L2 of 60 MB
MOST_COPIES = 16
GRAIN = 64  # a cache's capacity is a multiple of it, and at least one row more than the longest sequence
LOG2E = 1.4426950408889634
# relative Frobenius norm, whole and of a single head of a sequence; bf16 gives 2e-3 in one pass
TOLERANCES = {"bfloat16": 1e-2, "float16": 2e-3, "float32": 1e-5, "float64": 1e-12}
HEAD_FACTOR = 3
ROUNDED = 3.0  # slack of variants that store scores in 16 bits: half a unit in the last place of a score near 16 is 0.03: 3 % of its weight
NEEDLE = 0.12  # weight that the first and the last key of a sequence get: what leaves one out is seen


@dataclass(frozen=True)
class Cache:
    """q [B, HQ, D] for one new token a sequence; k, v [B, HKV, capacity, D], NaN past each length; lengths [B] (int32)."""

    q: Any
    k: Any
    v: Any
    lengths: Any
    out: Any


def dtype(params: Params) -> Any:
    import torch

    return getattr(torch, params["dtype"])


def lengths(params: Params) -> list[int]:
    """The cached tokens of each sequence: ``lengths``, comma-separated, or ``batch`` times ``length``.

    Raises:
        UsageError: they are no positive whole numbers.
    """
    if not params["lengths"]:
        found = [params["length"]] * params["batch"]
    else:
        words = str(params["lengths"]).split(",")
        if not all(word.strip().isdigit() for word in words):
            raise UsageError(
                f"parameter lengths={params['lengths']!r} is no list of numbers", "give for example lengths=4641,1730"
            )
        found = [int(word) for word in words]
    if not found or min(found) < 1:
        raise UsageError("a sequence needs at least one cached token", "give batch and length, or lengths, above 0")
    return found


def alike(counts: Sequence[int]) -> list[tuple[slice, int]]:
    """The sequences that can be computed together, with their length: all, or one after another where they differ."""
    return [(slice(None), counts[0])] if len(set(counts)) == 1 else [(slice(i, i + 1), n) for i, n in enumerate(counts)]


def capacity(params: Params) -> int:
    """Rows of a cache: room for the longest sequence and a tail that must not be read."""
    return (max(lengths(params)) // GRAIN + 1) * GRAIN


def normal(shape: Sequence[int], params: Params, device: str, salt: int) -> Any:
    """Random values of the workload's dtype from its seed, the same in every variant on one kind of device."""
    import torch

    source = torch.Generator(device=device).manual_seed(params["seed"] * 1000 + salt)
    return torch.randn(*shape, generator=source, device=device, dtype=torch.float32).to(dtype(params))


def needles(keys: Any, direction: Any, scale: float, count: int) -> None:
    """Give the first and the last of ``count`` keys [HKV, rows, D] a fixed share of the weight of the queries that point in
    ``direction`` [HKV, D] (their mean): random keys share the rest."""
    import torch

    size = direction.float().square().sum(-1, keepdim=True).clamp(min=1e-6)
    score = log(max(NEEDLE / (1 - 2 * NEEDLE) * count, 1.0)) + 0.5
    key = direction.float() * (score / scale) / size
    for row in {0, count - 1}:
        keys[:, row] = torch.nan_to_num(key).to(keys.dtype)


def cold(params: Params, device: str, first: Any, clone: Callable[[Any], Any], nbytes: int, make: Callable[[Any], Callable[[], object]]) -> Callable[[], None]:  # fmt: skip
    """Runs over as many clones of a cache as keep it out of L2, one after another; on a CPU over the one there is."""
    copies = 1 if device == "cpu" else max(1, min(MOST_COPIES, ceil(COLD_BYTES / nbytes)))
    runs = cycle([make(first), *(make(clone(first)) for _ in range(copies - 1))])
    return lambda: (next(runs)(), None)[1]


def step(run: Callable[[], None], out: Any, scratch: Sequence[Any], flops: int, bytes_moved: int, **more: Any) -> Step:
    """A step that poisons its output and scratch."""

    def poison() -> None:
        for buffer in (out, *scratch):
            buffer.fill_(float("nan"))

    return Step(run, lambda: out, poison, flops, bytes_moved, **more)


def exact(params: Params) -> Any:
    """The reference's dtype: float32 for the half precisions, float64 above."""
    import torch

    return torch.float32 if params["dtype"] in ("bfloat16", "float16") else torch.float64


def compare(params: Params, device: str, step: Step, expected: Any) -> Proof:
    """Poison, run, compare every head of every sequence with ``expected`` [B, HQ, D]; run again, bit for bit."""
    import torch

    def fresh() -> Any:
        step.poison()
        step.run()
        synchronise(device)
        return step.output().clone()

    found, tolerance = fresh(), step.slack * TOLERANCES[params["dtype"]]
    off = (found.to(expected.dtype) - expected).norm(dim=-1)
    heads, error = off / expected.norm(dim=-1), float(off.norm() / expected.norm())
    wrong = (~(heads <= HEAD_FACTOR * tolerance)).nonzero()[:6].tolist()
    if not error <= tolerance or wrong:  # NaN never passes
        reason = f"the output differs from the reference by {error:.1e} of its size; wrong (sequence, head): {wrong}"
        return Proof(False, "", None if isnan(error) else error, tolerance, reason)
    again = fresh()
    same = torch.equal(found, again)
    differ = float((again.to(expected.dtype) - expected).norm() / expected.norm())
    if not same and (step.repeatable or not differ <= tolerance):
        return Proof(False, "", error, tolerance, "two runs of the same input differ")
    twice = "twice the same" if same else "twice, not the same bits"
    return Proof(
        True,
        f"{heads.numel()} of {heads.numel()} heads, every element, {twice}, tails poisoned",
        error,
        tolerance,
    )


def ceilings(params: Params, device: str) -> dict[str, float]:
    """TFLOP/s of one large GEMM, GB/s of reading."""
    return {"gemm_tflop_per_s": gemm_tflop_per_s(dtype(params), device), "read_gb_per_s": read_gb_per_s(device)}
