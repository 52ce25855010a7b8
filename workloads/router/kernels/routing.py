"""Triton kernels around the expert GEMMs: routing, the sorted order and its tile list, SwiGLU, the combine.

Three launches turn x into a sorted order that a grouped GEMM can read, with no atomics and no host: `route` chooses the
experts and counts them block by block, `offsets` scans the counts, `scatter` writes where each assignment goes. Every
expert's rows begin at a multiple of BM, so that tile i of the GEMMs is rows i*BM to (i+1)*BM of one expert; rows past an
expert's own are computed from whatever token the list names and never read. A row's place depends on token order alone.
"""

from __future__ import annotations

import triton
import triton.language as tl

SOFTMAX_TOPK, TOPK_SOFTMAX, DEEPSEEK = 0, 1, 2


@triton.jit
def _choice(logits, columns, bias_ptr, E: tl.constexpr, EP: tl.constexpr, MODE: tl.constexpr, GROUPS: tl.constexpr, KEPT: tl.constexpr, BT: tl.constexpr):  # fmt: skip
    """What the experts are chosen by [BT, EP]; minus infinity where they may not be chosen."""
    choice = logits
    if MODE == 2:
        choice = tl.sigmoid(logits) + tl.load(bias_ptr + columns, columns < E, 0.0)[None, :]
    choice = tl.where(columns[None, :] < E, choice, float("-inf"))
    if MODE == 2 and GROUPS > KEPT:
        grouped = tl.reshape(choice, (BT, GROUPS, EP // GROUPS))
        place = tl.arange(0, EP // GROUPS)[None, None, :]
        first, at = tl.max(grouped, 2, return_indices=True)
        second = tl.max(tl.where(place == at[:, :, None], float("-inf"), grouped), 2)
        value, names = first + second, tl.arange(0, GROUPS)[None, :]
        kept = tl.zeros((BT, GROUPS), tl.int32)
        for _ in tl.static_range(KEPT):
            best = tl.argmax(value, 1)[:, None]
            kept = tl.where(names == best, 1, kept)
            value = tl.where(names == best, float("-inf"), value)
        choice = tl.reshape(tl.where(kept[:, :, None] > 0, grouped, float("-inf")), (BT, EP))
    return choice


@triton.jit
def _weights(values, ids, logits, columns, ks, bias_ptr, E: tl.constexpr, K: tl.constexpr, MODE: tl.constexpr, RENORMALISE: tl.constexpr):  # fmt: skip
    """The weights [BT, KP] of the chosen, from what they were chosen by."""
    if MODE == 2:
        weights = values - tl.load(bias_ptr + ids)
    else:
        top = tl.max(values, 1)[:, None]
        weights = tl.exp(values - top)
        if MODE == 0:
            others = tl.exp(tl.where(columns[None, :] < E, logits, float("-inf")) - top)
            weights = weights / tl.sum(others, 1)[:, None]
    weights = tl.where((ks < K)[None, :], weights, 0.0)
    if RENORMALISE:
        weights = weights / tl.sum(weights, 1)[:, None]
    return weights


@triton.jit
def route(x_ptr, router_ptr, bias_ptr, id_ptr, weight_ptr, rank_ptr, count_ptr, T, scale,
          H: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, MODE: tl.constexpr,
          RENORMALISE: tl.constexpr, GROUPS: tl.constexpr, KEPT: tl.constexpr, BT: tl.constexpr, BK: tl.constexpr):  # fmt: skip
    """Router GEMM in fp32, top-k, weights; each assignment's rank among its block's of the same expert; block counts."""
    block = tl.program_id(0)
    rows, columns, ks, inner = block * BT + tl.arange(0, BT), tl.arange(0, EP), tl.arange(0, KP), tl.arange(0, BK)
    alive = rows < T
    logits = tl.zeros((BT, EP), tl.float32)
    for k in range(0, H, BK):
        x = tl.load(
            x_ptr + rows[:, None].to(tl.int64) * H + k + inner[None, :], alive[:, None] & (k + inner < H)[None, :], 0.0
        )
        w = tl.load(
            router_ptr + columns[None, :] * H + k + inner[:, None],
            (columns < E)[None, :] & (k + inner < H)[:, None],
            0.0,
        )
        logits = tl.dot(x, w, logits, input_precision="ieee")
    choice = _choice(logits, columns, bias_ptr, E, EP, MODE, GROUPS, KEPT, BT)
    ids = tl.zeros((BT, KP), tl.int32)
    values = tl.full((BT, KP), float("-inf"), tl.float32)
    chosen = tl.zeros((BT, EP), tl.int32)
    for k in tl.static_range(K):
        best, at = tl.max(choice, 1, return_indices=True)
        ids = tl.where(ks[None, :] == k, at[:, None], ids)
        values = tl.where(ks[None, :] == k, best[:, None], values)
        hit = columns[None, :] == at[:, None]
        chosen = tl.where(hit & alive[:, None], 1, chosen)
        choice = tl.where(hit, float("-inf"), choice)
    weights = _weights(values, ids, logits, columns, ks, bias_ptr, E, K, MODE, RENORMALISE) * scale
    ranks = tl.gather(tl.cumsum(chosen, 0) - chosen, ids, 1)
    at = rows[:, None] * K + ks[None, :]
    mask = alive[:, None] & (ks < K)[None, :]
    tl.store(id_ptr + at, ids, mask)
    tl.store(weight_ptr + at, weights, mask)
    tl.store(rank_ptr + at, ranks, mask)
    tl.store(count_ptr + block * EP + columns, tl.sum(chosen, 0))


@triton.jit
def offsets(count_ptr, base_ptr, load_ptr, blocks, EP: tl.constexpr, BE: tl.constexpr, BB: tl.constexpr):
    """BE experts a program: block counts [blocks, EP] -> each block's first place in their queues, and loads [EP]."""
    columns, some = tl.program_id(0) * BE + tl.arange(0, BE), tl.arange(0, BB)
    total = tl.zeros((BE,), tl.int32)
    for first in range(0, blocks, BB):
        mask = (first + some < blocks)[:, None] & (columns < EP)[None, :]
        at = (first + some)[:, None] * EP + columns[None, :]
        counts = tl.load(count_ptr + at, mask, 0)
        tl.store(base_ptr + at, total[None, :] + tl.cumsum(counts, 0) - counts, mask)
        total += tl.sum(counts, 0)
    tl.store(load_ptr + columns, total, columns < EP)


@triton.jit
def scatter(id_ptr, rank_ptr, base_ptr, load_ptr, position_ptr, token_ptr, tile_expert_ptr, tile_rows_ptr, tiles_ptr, T, max_tiles,
            EP: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, BM: tl.constexpr, BT: tl.constexpr, TILES: tl.constexpr):  # fmt: skip
    """position [T, K] of each assignment among the sorted rows; token of each row; expert and rows of each tile; their number."""
    block = tl.program_id(0)
    rows, ks, columns = block * BT + tl.arange(0, BT), tl.arange(0, KP), tl.arange(0, EP)
    load = tl.load(load_ptr + columns)
    own = (load + BM - 1) // BM
    end = tl.cumsum(own, 0)
    mask = (rows < T)[:, None] & (ks < K)[None, :]
    at = rows[:, None] * K + ks[None, :]
    ids = tl.load(id_ptr + at, mask, 0)
    first = tl.reshape(tl.gather(end - own, tl.reshape(ids, (BT * KP,)), 0), (BT, KP))
    position = first * BM + tl.load(base_ptr + block * EP + ids, mask, 0) + tl.load(rank_ptr + at, mask, 0)
    tl.store(position_ptr + at, position, mask)
    tl.store(token_ptr + position, tl.broadcast_to(rows[:, None], (BT, KP)), mask)
    tile = block * TILES + tl.arange(0, TILES)
    inside = (end[None, :] - own[None, :] <= tile[:, None]) & (tile[:, None] < end[None, :])
    owner = tl.sum(tl.where(inside, columns[None, :], 0), 1)
    left = tl.sum(tl.where(inside, load[None, :] - (tile[:, None] - (end - own)[None, :]) * BM, 0), 1)
    tl.store(tile_expert_ptr + tile, owner, tile < max_tiles)
    tl.store(tile_rows_ptr + tile, tl.minimum(left, BM), tile < max_tiles)
    if block == 0:
        tl.store(tiles_ptr, tl.sum(own, 0))


@triton.jit
def prefetch(source_ptr, sink_ptr, numel, BLOCK: tl.constexpr):
    """Reads BLOCK elements a program, so that they are in L2 when they are wanted; the sum keeps the loads alive."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    read = tl.load(source_ptr + at, at < numel, 0.0, eviction_policy="evict_last")
    tl.store(sink_ptr + tl.program_id(0), tl.sum(read.to(tl.float32), 0))


@triton.jit
def gather(x_ptr, order_ptr, out_ptr, H: tl.constexpr, K: tl.constexpr, BH: tl.constexpr):
    """out[r] = x[order[r] // K]: the rows of the assignments in sorted order."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BH + tl.arange(0, BH)
    token = tl.load(order_ptr + row) // K
    tl.store(out_ptr + row * H + columns, tl.load(x_ptr + token * H + columns, columns < H), columns < H)


@triton.jit
def combine(y_ptr, position_ptr, weight_ptr, out_ptr, H: tl.constexpr, K: tl.constexpr, BH: tl.constexpr):
    """out[t] = sum over k of weight[t, k] * y[position[t, k]], in fp32, in the order of k, rounded once."""
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BH + tl.arange(0, BH)
    total = tl.zeros((BH,), tl.float32)
    for k in tl.static_range(K):
        position = tl.load(position_ptr + token * K + k).to(tl.int64)
        weight = tl.load(weight_ptr + token * K + k)
        total += weight * tl.load(y_ptr + position * H + columns, columns < H, 0.0).to(tl.float32)
    tl.store(out_ptr + token * H + columns, total.to(out_ptr.dtype.element_ty), columns < H)


@triton.jit
def swiglu(
    gate_up_ptr,
    weight_ptr,
    out_ptr,
    rows,
    INNER: tl.constexpr,
    BR: tl.constexpr,
    BI: tl.constexpr,
    WEIGHTED: tl.constexpr,
):
    """out[r] = silu(gate_up[r, :inner]) * gate_up[r, inner:], times weight[r] if WEIGHTED; in fp32."""
    row = tl.program_id(0) * BR + tl.arange(0, BR)
    columns = tl.program_id(1) * BI + tl.arange(0, BI)
    mask = (row < rows)[:, None] & (columns < INNER)[None, :]
    at = row[:, None].to(tl.int64) * INNER + columns[None, :]
    first = at + row[:, None].to(tl.int64) * INNER
    gate = tl.load(gate_up_ptr + first, mask, 0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + first + INNER, mask, 0.0).to(tl.float32)
    hidden = gate * tl.sigmoid(gate) * up
    if WEIGHTED:
        hidden *= tl.load(weight_ptr + row, row < rows, 0.0)[:, None]
    tl.store(out_ptr + at, hidden.to(out_ptr.dtype.element_ty), mask)
