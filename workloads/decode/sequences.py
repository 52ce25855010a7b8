"""Sequences of decode attention and MLA: their lengths, seeded values, keys that matter, runs over a cold cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from math import ceil, log
from typing import Any

from moeprof.errors import UsageError
from moeprof.workload.model import Params, Step

COLD_BYTES = 256 << 20  # caches smaller than this are cloned and used in turn: several times an L2 of 60 MB
MOST_COPIES = 16
GRAIN = 64  # a cache's capacity is a multiple of it, and at least one row more than the longest sequence
LOG2E = 1.4426950408889634
ROUNDED = 3.0  # slack of variants that store scores in 16 bits: half a unit in the last place of a score near 16 is 0.03: 3 % of its weight
NEEDLE = 0.12  # weight that the first and the last key of a sequence get: what leaves one out is seen


def dtype(params: Params) -> Any:
    import torch

    return getattr(torch, params["dtype"])


def lengths(params: Params) -> list[int]:
    """The cached tokens of each sequence: ``lengths``, comma-separated, or ``batch`` times ``length``.

    Raises:
        UsageError: a length is not a positive whole number.
    """
    if not params["lengths"]:
        counts = [params["length"]] * params["batch"]
    else:
        words = str(params["lengths"]).split(",")
        if not all(word.strip().isdigit() for word in words):
            raise UsageError(
                f"parameter lengths={params['lengths']!r} is no list of numbers", "give for example lengths=4641,1730"
            )
        counts = [int(word) for word in words]
    if not counts or min(counts) < 1:
        raise UsageError("a sequence needs at least one cached token", "give batch and length, or lengths, above 0")
    return counts


def equal_lengths(counts: Sequence[int]) -> list[tuple[slice, int]]:
    """The sequences that can be computed together, with their length: all, or one by one if their lengths differ."""
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
    """A function that runs on the next of several clones of a cache, enough to keep it out of L2; on a CPU on the cache itself."""
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
    """The dtype of the reference: float32 for the half precisions, else float64."""
    import torch

    return torch.float32 if params["dtype"] in ("bfloat16", "float16") else torch.float64
