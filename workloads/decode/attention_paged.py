"""The KV cache of decode attention as pages and a block table."""

from __future__ import annotations

from typing import Any

from moeprof.workloads.decode.attention import Cache


def paged(kv: Cache, page: int, seed: int) -> tuple[Any, Any, Any]:
    """The cache as pages k, v [N, HKV, page, D] in random order, and the table [B, W] whose entries past a length point outside."""
    import torch

    counts = [-(-n // page) for n in kv.lengths.tolist()]
    width = -(-kv.k.shape[2] // page)
    order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(seed)).to(kv.k.device)
    table = torch.full((len(counts), width), 1 << 30, dtype=torch.int32, device=kv.k.device)
    pages = [kv.k.new_empty(sum(counts), kv.k.shape[1], page, kv.k.shape[3]) for _ in range(2)]
    first = 0
    for sequence, count in enumerate(counts):
        page_numbers = order[first : first + count]
        table[sequence, :count] = page_numbers.int()
        for pool, contiguous in zip(pages, (kv.k, kv.v), strict=True):
            rows = contiguous[sequence, :, : count * page]
            pool[page_numbers] = rows.unflatten(1, (count, page)).transpose(0, 1)
        first += count
    return pages[0], pages[1], table
