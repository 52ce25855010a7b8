"""Split-KV: how the blocks of all sequences are divided among programs, the scratch of their parts, and the combine kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
import triton

from moeprof.workloads.common.timing import seconds
from moeprof.workloads.common.tuning import fastest
from moeprof.workloads.decode.kernels import attention as kernels

FEW = 3  # parts of a unit that its last program adds up; more are added up by a second kernel, in parallel
HOLDERS = 64  # the most parts that the second kernel reads at a time
VALUES = 4096  # values that a program of the second kernel reads at a time
Config = dict[str, Any]


def configs(table: Sequence[tuple[int, int, int, int, bool]]) -> list[Config]:
    """The rows of a table by name, each with equal parts for all programs that fit the GPU, and with whole units."""
    named = [dict(zip(("bn", "warps", "stages", "per_sm", "swap"), row, strict=True)) for row in table]
    return [{**config, "whole": whole} for config in named for whole in (False, True)]


def config_facts(config: Config) -> dict[str, Any]:
    """A configuration as facts of a step."""
    return {
        "keys a block": config["bn"], "warps": config["warps"], "stages": config["stages"], "programs an SM": config["per_sm"],
        "rows of the tile": "keys" if config["swap"] else "heads", "parts": "whole units" if config["whole"] else "equal",
    }  # fmt: skip


def program_count(programs: int, units: int, whole: bool) -> int:
    """Programs to launch of those that fit. ``whole``: so many that each gets equally many whole units, or the same
    part of one; all that fit if this does not divide.

    >>> share(132, 128, True), share(132, 300, True), share(264, 8, True), share(132, 128, False)
    (128, 100, 264, 132)
    """
    if not whole:
        return programs
    if units <= programs:
        return units * (programs // units)
    units_per_program = -(-units // programs)
    return programs if units % units_per_program else units // units_per_program


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


def resident_programs(config: Config) -> int:
    """Programs that fit the GPU at once."""
    return int(config["per_sm"] * torch.cuda.get_device_properties(0).multi_processor_count)


def fastest_config(
    key: Sequence[Any], candidates: Sequence[Config], make: Callable[[Config], Callable[[], object]]
) -> Config:
    """The fastest configuration, each timed as a CUDA graph."""
    full_key = [torch.cuda.get_device_name(), triton.__version__, *key]
    return fastest(full_key, candidates, lambda config: seconds(make(config), "cuda", 10, graph=True))


def max_programs_per_unit(launched: int, bn: int, lengths: Sequence[int], lines: int) -> int:
    """The most programs that share one unit, with ``lines`` units a sequence in a row divided among ``launched`` programs."""
    blocks = [-(-length // bn) for length in lengths for _ in range(lines)]
    ends = list(accumulate(blocks))
    total = ends[-1]
    count = min(total, launched)
    most = 1
    for end, blocks_of_unit in zip(ends, blocks, strict=True):
        first, last = ((count * (block + 1) - 1) // total for block in (end - blocks_of_unit, end - 1))
        most = max(most, last - first + 1)
    return most


def combine(config: Config, lengths: Any, out: Any, scratch: Scratch, group: int, shared: int, side: int = 1, early: bool = False) -> object:  # fmt: skip # noqa: PLR0917
    """Launch the kernel that adds up the parts of units shared by up to ``shared`` programs; out [B, units * group, D].

    ``side``: units of a sequence side by side; ``early``: launch it while the kernel before it runs, for which it waits.
    """
    width, together = out.shape[2], min(HOLDERS, triton.next_power_of_2(shared))
    columns = min(width, VALUES // together)
    return kernels.combine[(out.shape[0] * out.shape[1] * (width // columns),)](
        lengths, out, *scratch.tensors[:2], out.shape[0], UNITS=out.shape[1] // group, G=group, GP=scratch.parts.shape[1], D=width,
        BP=triton.next_power_of_2(out.shape[0]), BN=config["bn"], SIDE=side, HOLDERS=together, COLUMNS=columns, EARLY=early,
        launched=scratch.programs, **({"launch_pdl": True} if early else {}),
    )  # fmt: skip
