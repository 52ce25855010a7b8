"""Launch the Triton decode kernels: scratch, configurations worth timing, the fastest one remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton

from moeprof.workloads import _attention_kernels as kernels
from moeprof.workloads._attention import LOG2E, Cache
from moeprof.workloads._timing import seconds
from moeprof.workloads._tuning import fastest

CHUNK = 128  # blocks whose page-table entries are read ahead
FEW = 3  # parts of a unit that the last of its programs adds up itself; more take a launch of their own, side by side
EARLIEST = (9, 0)  # compute capability that launches a kernel before the one ahead of it has ended
HOLDERS = 16  # parts that it reads at a time
Way = dict[str, Any]
# block of keys, warps, stages, programs an SM, waves of them, keys as the rows of the tensor cores' tile
TILES = (
    (64, 4, 3, 2, False),
    (64, 4, 4, 1, False),
    (128, 8, 3, 1, False),
    (64, 4, 3, 2, True),
    (128, 8, 3, 1, True),
    (32, 2, 4, 4, False),
)
WAVES = (1, 2, 4)


def ways(table: Sequence[tuple[int, int, int, int, int, bool]]) -> list[Way]:
    """The rows of a table by name."""
    return [dict(zip(("bn", "warps", "stages", "per_sm", "waves", "swap"), row, strict=True)) for row in table]


DECODE = ways([(*tile[:-1], waves, tile[-1]) for tile in TILES for waves in WAVES])


def words(way: Way) -> dict[str, Any]:
    """A way as facts of a step."""
    return {
        "keys a block": way["bn"], "warps": way["warps"], "stages": way["stages"], "programs an SM": way["per_sm"], "waves": way["waves"],
        "rows of the tile": "keys" if way["swap"] else "heads",
    }  # fmt: skip


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


def programs(way: Way) -> int:
    """Programs of a launch: SMs are not equally fast, later waves go to those that are free."""
    return int(way["per_sm"] * way["waves"] * torch.cuda.get_device_properties(0).multi_processor_count)


def chosen(key: Sequence[Any], found: Sequence[Way], make: Callable[[Way], Callable[[], object]]) -> Way:
    """The fastest way, each timed as a CUDA graph."""
    whole = [torch.cuda.get_device_name(), triton.__version__, *key]
    return fastest(whole, found, lambda way: seconds(make(way), "cuda", 10, graph=True))


def holders(way: Way, lengths: Sequence[int], units: int, lines: int) -> int:
    """Programs that share one unit, at most: ``units`` of a sequence, of which ``lines`` stand in line."""
    blocks = [-(-length // way["bn"]) for length in lengths]
    total, longest = sum(blocks) * lines, max(blocks)
    each = max(1.0, total / (programs(way) // (units // lines)))  # blocks of a program
    return int(longest / each) + 2


def decode(way: Way, it: Cache, scale: float, table: Any = None) -> tuple[Callable[[], object], Scratch]:
    """What launches the kernel over a cache [B, HKV, capacity, D], or over pages [N, HKV, page, D] with a table [B, W]."""
    q, k = it.q, it.k
    batch, heads, width = q.shape
    kv_heads = k.shape[1]
    group = heads // kv_heads
    rows = max(16, triton.next_power_of_2(group))
    scratch = Scratch(programs(way), batch * kv_heads, rows, width)
    inside = holders(way, it.lengths.tolist(), kv_heads, kv_heads) <= FEW
    early = not inside and torch.cuda.get_device_capability(q.device) >= EARLIEST

    def launch() -> object:
        kernels.decode[(scratch.programs,)](
            q, k, it.v, it.lengths, it.lengths if table is None else table, it.out, *scratch.tensors, scale * LOG2E, batch,
            0 if table is None else table.shape[1], 0 if table is not None else k.shape[2], HKV=kv_heads, G=group, GP=rows, D=width,
            BP=triton.next_power_of_2(batch), BN=way["bn"], PAGE=0 if table is None else k.shape[2], CHUNK=CHUNK, SWAP=way["swap"],
            launched=scratch.programs, INSIDE=inside, EARLY=early, num_warps=way["warps"], num_stages=way["stages"],
        )  # fmt: skip
        return None if inside else combine(way, it.lengths, it.out, scratch, kv_heads, group, early=early)

    return launch, scratch


def combine(way: Way, lengths: Any, out: Any, scratch: Scratch, units: int, group: int, side: int = 1, early: bool = False) -> object:  # fmt: skip  # noqa: PLR0917
    """Launch what adds up the parts of the units [B * units] that several programs share; out [B, units * group, D]. ``early``: it
    is launched while the kernel before it runs, and waits."""
    return kernels.combine[(out.shape[0] * out.shape[1],)](
        lengths, out, *scratch.tensors[:2], out.shape[0], UNITS=units, G=group, GP=scratch.parts.shape[1], D=out.shape[2],
        BP=triton.next_power_of_2(out.shape[0]), BN=way["bn"], SIDE=side, HOLDERS=HOLDERS, EARLY=early, launched=scratch.programs,
        **({"launch_pdl": True} if early else {}),
    )  # fmt: skip
