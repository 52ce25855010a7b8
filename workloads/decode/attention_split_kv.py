"""Launch the Triton kernel of decode attention, split-KV, over a contiguous cache or over pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton

from moeprof.workloads.decode.attention import Cache
from moeprof.workloads.decode.kernels import attention as kernels
from moeprof.workloads.decode.sequences import LOG2E
from moeprof.workloads.decode.split_kv import (
    FEW,
    Config,
    Scratch,
    combine,
    configs,
    max_programs_per_unit,
    program_count,
    resident_programs,
)

BATCH = 32  # sequences that a kernel is compiled for, at least: one version for all small batches
CHUNK = 128  # blocks whose page-table entries are read ahead
EARLIEST = (9, 0)  # compute capability that launches a kernel before the one ahead of it has ended
# block of keys, warps, stages, programs an SM, keys as the rows of the tensor cores' tile; each with and without whole units
TILES = (
    (64, 4, 3, 2, False),
    (64, 4, 4, 1, False),
    (128, 8, 3, 1, False),
    (128, 4, 3, 1, False),
    (64, 4, 3, 2, True),
)
CONFIGS = configs(TILES)


def decode(config: Config, kv: Cache, scale: float, table: Any = None) -> tuple[Callable[[], object], Scratch]:
    """The launch over a cache [B, HKV, capacity, D], or over pages [N, HKV, page, D] with a table [B, W], and its scratch."""
    q, k = kv.q, kv.k
    batch, heads, width = q.shape
    kv_heads = k.shape[1]
    group = heads // kv_heads
    rows = max(16, triton.next_power_of_2(group))
    scratch = Scratch(
        program_count(resident_programs(config), batch * kv_heads, config["whole"]), batch * kv_heads, rows, width
    )
    shared = max_programs_per_unit(scratch.programs, config["bn"], kv.lengths.tolist(), kv_heads)
    inside = shared <= FEW
    early = not inside and torch.cuda.get_device_capability(q.device) >= EARLIEST

    def launch() -> object:
        kernels.decode[(scratch.programs,)](
            q, k, kv.v, kv.lengths, kv.lengths if table is None else table, kv.out, *scratch.tensors, scale * LOG2E, batch,
            0 if table is None else table.shape[1], 0 if table is not None else k.shape[2], HKV=kv_heads, G=group, GP=rows, D=width,
            BP=max(BATCH, triton.next_power_of_2(batch)), BN=config["bn"], PAGE=0 if table is None else k.shape[2], CHUNK=CHUNK, SWAP=config["swap"],
            launched=scratch.programs, INSIDE=inside, EARLY=early, num_warps=config["warps"], num_stages=config["stages"],
        )  # fmt: skip
        return None if inside else combine(config, kv.lengths, kv.out, scratch, group, shared, early=early)

    return launch, scratch
