"""Launch the Triton decode kernels: scratch, configurations worth timing, the fastest one remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
import triton

from moeprof.workloads.common.timing import seconds
from moeprof.workloads.common.tuning import fastest
from moeprof.workloads.decode.attention import LOG2E, Cache
from moeprof.workloads.decode.kernels import attention as kernels

BATCH = 32  # sequences that a kernel is compiled for, at least: one version for all small batches
CHUNK = 128  # blocks whose page-table entries are read ahead
FEW = 3  # parts of a unit that the last of its programs adds up itself; more take a launch of their own, side by side
EARLIEST = (9, 0)  # compute capability that launches a kernel before the one ahead of it has ended
HOLDERS = 64  # parts that it reads at a time, at most
VALUES = 4096  # of them that a program of it reads at a time
Way = dict[str, Any]
# block of keys, warps, stages, programs an SM, keys as the rows of the tensor cores' tile; each with and without whole units
TILES = (
    (64, 4, 3, 2, False),
    (64, 4, 4, 1, False),
    (128, 8, 3, 1, False),
    (128, 4, 3, 1, False),
    (64, 4, 3, 2, True),
)


def ways(table: Sequence[tuple[int, int, int, int, bool]]) -> list[Way]:
    """The rows of a table by name, each cut into as many parts as programs fit the GPU, and into whole units."""
    named = [dict(zip(("bn", "warps", "stages", "per_sm", "swap"), row, strict=True)) for row in table]
    return [{**way, "whole": whole} for way in named for whole in (False, True)]


DECODE = ways(TILES)


def words(way: Way) -> dict[str, Any]:
    """A way as facts of a step."""
    return {
        "keys a block": way["bn"], "warps": way["warps"], "stages": way["stages"], "programs an SM": way["per_sm"],
        "rows of the tile": "keys" if way["swap"] else "heads", "parts": "whole units" if way["whole"] else "equal",
    }  # fmt: skip


def share(programs: int, units: int, whole: bool) -> int:
    """Programs to launch of those that fit. ``whole``: so many that each gets equally many whole units, or the same
    part of one; all of them where that does not divide.

    >>> share(132, 128, True), share(132, 300, True), share(264, 8, True), share(132, 128, False)
    (128, 100, 264, 132)
    """
    if not whole:
        return programs
    if units <= programs:
        return units * (programs // units)
    each = -(-units // programs)
    return programs if units % each else units // each


class Scratch:
    """Partial sums [2 P, GP, D], their statistics [2 P, 2, GP], and a counter a unit, zero between launches."""

    def __init__(self, programs: int, units: int, rows: int, width: int) -> None:
        self.programs = programs
        self.parts = torch.zeros(2 * programs, rows, width, device="cuda")
        self.stats = torch.zeros(2 * programs, 2, rows, device="cuda")
        self.counts = torch.zeros(units, dtype=torch.int32, device="cuda")

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return self.parts, self.stats, self.counts


def fitting(way: Way) -> int:
    """Programs that fit the GPU at once."""
    return int(way["per_sm"] * torch.cuda.get_device_properties(0).multi_processor_count)


def chosen(key: Sequence[Any], found: Sequence[Way], make: Callable[[Way], Callable[[], object]]) -> Way:
    """The fastest way, each timed as a CUDA graph."""
    whole = [torch.cuda.get_device_name(), triton.__version__, *key]
    return fastest(whole, found, lambda way: seconds(make(way), "cuda", 10, graph=True))


def holders(launched: int, bn: int, lengths: Sequence[int], lines: int) -> int:
    """Programs that share one unit, at most: ``lines`` units of a sequence, one after another, among ``launched`` programs."""
    blocks = [-(-length // bn) for length in lengths for _ in range(lines)]
    ends = list(accumulate(blocks))
    total = ends[-1]
    count = min(total, launched)
    most = 1
    for end, mine in zip(ends, blocks, strict=True):
        first, last = ((count * (block + 1) - 1) // total for block in (end - mine, end - 1))
        most = max(most, last - first + 1)
    return most


def decode(way: Way, it: Cache, scale: float, table: Any = None) -> tuple[Callable[[], object], Scratch]:
    """What launches the kernel over a cache [B, HKV, capacity, D], or over pages [N, HKV, page, D] with a table [B, W]."""
    q, k = it.q, it.k
    batch, heads, width = q.shape
    kv_heads = k.shape[1]
    group = heads // kv_heads
    rows = max(16, triton.next_power_of_2(group))
    scratch = Scratch(share(fitting(way), batch * kv_heads, way["whole"]), batch * kv_heads, rows, width)
    shared = holders(scratch.programs, way["bn"], it.lengths.tolist(), kv_heads)
    inside = shared <= FEW
    early = not inside and torch.cuda.get_device_capability(q.device) >= EARLIEST

    def launch() -> object:
        kernels.decode[(scratch.programs,)](
            q, k, it.v, it.lengths, it.lengths if table is None else table, it.out, *scratch.tensors, scale * LOG2E, batch,
            0 if table is None else table.shape[1], 0 if table is not None else k.shape[2], HKV=kv_heads, G=group, GP=rows, D=width,
            BP=max(BATCH, triton.next_power_of_2(batch)), BN=way["bn"], PAGE=0 if table is None else k.shape[2], CHUNK=CHUNK, SWAP=way["swap"],
            launched=scratch.programs, INSIDE=inside, EARLY=early, num_warps=way["warps"], num_stages=way["stages"],
        )  # fmt: skip
        return None if inside else combine(way, it.lengths, it.out, scratch, group, shared, early=early)

    return launch, scratch


def combine(way: Way, lengths: Any, out: Any, scratch: Scratch, group: int, shared: int, side: int = 1, early: bool = False) -> object:  # fmt: skip # noqa: PLR0917
    """Launch what adds up the parts of the units that several programs share, at most ``shared``; out [B, units * group, D].

    ``side``: units of a sequence that stand side by side; ``early``: it is launched while the kernel before it runs, and waits.
    """
    width, together = out.shape[2], min(HOLDERS, triton.next_power_of_2(shared))
    columns = min(width, VALUES // together)
    return kernels.combine[(out.shape[0] * out.shape[1] * (width // columns),)](
        lengths, out, *scratch.tensors[:2], out.shape[0], UNITS=out.shape[1] // group, G=group, GP=scratch.parts.shape[1], D=width,
        BP=triton.next_power_of_2(out.shape[0]), BN=way["bn"], SIDE=side, HOLDERS=together, COLUMNS=columns, EARLY=early,
        launched=scratch.programs, **({"launch_pdl": True} if early else {}),
    )  # fmt: skip
