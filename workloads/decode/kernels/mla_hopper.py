"""Latent attention at decode for sm_90, in Gluon: tiles of latents come by TMA while the warpgroups multiply the one before.

A tile of latents stays in shared memory for both products, as keys and as values, which plain Triton copies through registers. Few
heads are the columns of the tensor cores' tile (SWAP: the latents are its 64 rows, nothing is padded), 64 heads are its rows. The units
of a sequence go side by side: programs next to each other read the same latents at the same time, once from memory.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

# Gluon renamed these after Triton 3.6 and 3.7
_tma_load = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared
_barrier = gl.thread_barrier if hasattr(gl, "thread_barrier") else gl.barrier


@gluon.jit
def _add(a, b):
    return a + b


@gluon.jit
def _part(program, total, programs):
    return (total.to(gl.int64) * program // programs).to(gl.int32)


@gluon.jit
def _after(b, block, blocks, length_ptr, batch_size, BN: gl.constexpr):
    """The block that follows: the next of the sequence, or the first of the next sequence that has any."""
    block += 1
    while (block >= blocks) & (b + 1 < batch_size):
        b += 1
        block = 0
        blocks = (gl.load(length_ptr + b) + BN - 1) // BN
    return b, block, blocks


@gluon.jit
def _fetch(desc, rope_desc, smem, rope_smem, full, row, wanted):
    """A tile of rows, its first columns and its last, into shared memory."""
    mbarrier.expect(full, desc.block_type.nbytes + rope_desc.block_type.nbytes, pred=wanted)
    _tma_load(desc, [row, 0], full, smem, pred=wanted)
    _tma_load(rope_desc, [row, desc.block_type.shape[1]], full, rope_smem, pred=wanted)


# fmt: off
@gluon.jit
def _refill(desc, rope_desc, c, rope, full, step, b, block, blocks, todo, capacity, length_ptr, batch_size, BN: gl.constexpr, STAGES: gl.constexpr):
    """Once every warp has read a step's tile, fetch block ``block`` of sequence ``b`` into its place; the block after that one."""
    _barrier()
    _fetch(desc, rope_desc, c, rope, full.index(step % STAGES), b * capacity + block * BN, step + STAGES < todo)
    return _after(b, block, blocks, length_ptr, batch_size, BN)
# fmt: on


@gluon.jit
def _clear(c, left, BN: gl.constexpr, DV: gl.constexpr):
    """Zeros in the rows past the length, which may hold NaN: a weight of zero does not undo it."""
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [1, 32], [gl.num_warps(), 1], [1, 0])
    for first in gl.static_range(0, BN, 8):
        rows = c.slice(first, 8, dim=0)
        alive = first + gl.arange(0, 8, gl.SliceLayout(1, layout)) < left
        rows.store(gl.where(alive[:, None], rows.load(layout), 0.0))
    fence_async_shared()


@gluon.jit
def _arrived(c_smem, rope_smem, full, step, left, BN: gl.constexpr, DV: gl.constexpr, STAGES: gl.constexpr):
    """The tile of a step once it is there, zeros in its rows past the length."""
    slot = step % STAGES
    mbarrier.wait(full.index(slot), (step // STAGES) & 1)
    c, rope = c_smem.index(slot), rope_smem.index(slot)
    if left < BN:
        _clear(c, left, BN, DV)
    return c, rope


@gluon.jit
def _scores(q, q_rope, c, rope, layout: gl.constexpr, GP: gl.constexpr, BN: gl.constexpr, SWAP: gl.constexpr):
    """Begin q c^T [GP, BN]; SWAP: c q^T [BN, GP]."""
    if SWAP:
        scores = warpgroup_mma(
            c, q.permute((1, 0)), gl.zeros((BN, GP), gl.float32, layout), use_acc=False, is_async=True
        )
        return warpgroup_mma(rope, q_rope.permute((1, 0)), scores, is_async=True)
    else:
        scores = warpgroup_mma(
            q, c.permute((1, 0)), gl.zeros((GP, BN), gl.float32, layout), use_acc=False, is_async=True
        )
        return warpgroup_mma(q_rope, rope.permute((1, 0)), scores, is_async=True)


@gluon.jit
def _softmax(scores, left, most, weight, layout: gl.constexpr, BN: gl.constexpr, SWAP: gl.constexpr):
    """One step of the online softmax in base 2: weights, largest score, sums of weights (SWAP: each thread's), what the sums so far shrink by."""
    keys: gl.constexpr = 0 if SWAP else 1
    alive = gl.arange(0, BN, gl.SliceLayout(1 - keys, layout)) < left
    scores = gl.where(alive.expand_dims(1 - keys), scores, float("-inf"))
    newest = gl.maximum(most, gl.max(scores, keys))
    shrink = gl.exp2(most - newest)
    p = gl.exp2(scores - newest.expand_dims(keys))
    weight = weight * shrink.expand_dims(0) + p if SWAP else weight * shrink + gl.sum(p, 1)
    return p, newest, weight, shrink


@gluon.jit
def _weighted(p, p_smem, c, acc, shrink, SWAP: gl.constexpr):
    """Begin acc [GP, DV] * shrink + p c; SWAP: acc [DV, GP] * shrink + c^T p."""
    heads: gl.constexpr = 1 if SWAP else 0
    less = gl.convert_layout(shrink, gl.SliceLayout(1 - heads, acc.type.layout))
    acc *= less.expand_dims(1 - heads)
    if SWAP:
        p_smem.permute((1, 0)).store(p.to(c.dtype))
        fence_async_shared()
        return warpgroup_mma(c.permute((1, 0)), p_smem.permute((1, 0)), acc, is_async=True)
    else:
        p_smem.store(p.to(c.dtype))
        fence_async_shared()
        return warpgroup_mma(p_smem, c, acc, is_async=True)


@gluon.jit
def _leave(
    out_ptr,
    part_ptr,
    stat_ptr,
    unit,
    slot,
    whole,
    most,
    weight,
    acc,
    GP: gl.constexpr,
    DV: gl.constexpr,
    SWAP: gl.constexpr,
):
    """The unit's output [GP, DV] where this program had all of it, else its part."""
    axis: gl.constexpr = 1 if SWAP else 0
    rows = gl.arange(0, GP, gl.SliceLayout(1 - axis, acc.type.layout)).expand_dims(1 - axis)
    columns = gl.arange(0, DV, gl.SliceLayout(axis, acc.type.layout)).expand_dims(axis)
    at = rows * DV + columns
    if whole:
        share = gl.convert_layout(1.0 / weight, gl.SliceLayout(1 - axis, acc.type.layout)).expand_dims(1 - axis)
        gl.store(out_ptr + unit.to(gl.int64) * (GP * DV) + at, (acc * share).to(out_ptr.dtype.element_ty))
    else:
        heads = gl.arange(0, GP, most.type.layout)
        gl.store(part_ptr + slot.to(gl.int64) * (GP * DV) + at, acc)
        gl.store(stat_ptr + slot * 2 * GP + heads, most)
        gl.store(stat_ptr + slot * 2 * GP + GP + heads, weight)


# fmt: off
@gluon.jit
def mla(q_desc, q_rope_desc, c_desc, rope_desc, length_ptr, out_ptr, part_ptr, stat_ptr, scale, batch_size, capacity, launched, UNITS: gl.constexpr,
        GP: gl.constexpr, DV: gl.constexpr, DR: gl.constexpr, BP: gl.constexpr, BN: gl.constexpr, SWAP: gl.constexpr, STAGES: gl.constexpr):
    """out [B, UNITS * GP, DV] = softmax(q c^T scale) c[:, :DV] over latents c [B * capacity, DV + DR], whole units; parts of the others."""
    GROUPS: gl.constexpr = gl.num_warps() // 4
    score_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, GROUPS], [16, GP // GROUPS if SWAP else BN // GROUPS, 16])
    acc_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, GROUPS], [16, GP // GROUPS if SWAP else DV // GROUPS, 16])
    head_layout: gl.constexpr = gl.SliceLayout(0 if SWAP else 1, score_layout)
    q_smem = gl.allocate_shared_memory(q_desc.dtype, [GP, DV], q_desc.layout)
    q_rope_smem = gl.allocate_shared_memory(q_desc.dtype, [GP, DR], q_rope_desc.layout)
    c_smem = gl.allocate_shared_memory(c_desc.dtype, [STAGES, BN, DV], c_desc.layout)
    rope_smem = gl.allocate_shared_memory(c_desc.dtype, [STAGES, BN, DR], rope_desc.layout)
    p_smem = gl.allocate_shared_memory(c_desc.dtype, [GP, BN], gl.NVMMASharedLayout(128, 16, 2))
    full = gl.allocate_shared_memory(gl.int64, [STAGES + 1, 1], mbarrier.MBarrierLayout())
    for index in gl.static_range(STAGES + 1):
        mbarrier.init(full.index(index), count=1)
    fence_async_shared()

    batch = gl.arange(0, BP, gl.BlockedLayout([1], [32], [gl.num_warps()], [0]))
    sizes = (gl.load(length_ptr + batch, mask=batch < batch_size, other=0) + BN - 1) // BN
    ends = gl.associative_scan(sizes, 0, _add)
    total = gl.max(ends, 0)
    part, u, parts = gl.program_id(0) // UNITS, gl.program_id(0) % UNITS, gl.minimum(total, launched // UNITS)
    at = _part(gl.minimum(part, parts), total, parts)
    todo = _part(gl.minimum(part + 1, parts), total, parts) - at
    b = gl.sum((ends <= at).to(gl.int32), 0)
    blocks, block = gl.sum(gl.where(batch == b, sizes, 0), 0), at - gl.sum(gl.where(batch == b, ends - sizes, 0), 0)

    next_b, next_block, next_blocks = b, block, blocks
    for index in gl.static_range(STAGES):
        _fetch(c_desc, rope_desc, c_smem.index(index), rope_smem.index(index), full.index(index), next_b * capacity + next_block * BN, todo > index)
        next_b, next_block, next_blocks = _after(next_b, next_block, next_blocks, length_ptr, batch_size, BN)
    step, units = 0, 0
    while step < todo:
        unit, length, count = b * UNITS + u, gl.load(length_ptr + b), gl.minimum(todo - step, blocks - block)
        _fetch(q_desc, q_rope_desc, q_smem, q_rope_smem, full.index(STAGES), unit * GP, True)
        most = gl.full((GP,), float("-inf"), gl.float32, head_layout)
        weight = gl.zeros((BN, GP), gl.float32, score_layout) if SWAP else gl.zeros((GP,), gl.float32, head_layout)
        acc = gl.zeros((DV, GP) if SWAP else (GP, DV), gl.float32, acc_layout)
        mbarrier.wait(full.index(STAGES), units & 1)
        left = length - block * BN
        c, rope = _arrived(c_smem, rope_smem, full, step, left, BN, DV, STAGES)
        scores = warpgroup_mma_wait(0, deps=(_scores(q_smem, q_rope_smem, c, rope, score_layout, GP, BN, SWAP),))
        for _ in range(count - 1):
            p, most, weight, shrink = _softmax(scores * scale, left, most, weight, score_layout, BN, SWAP)
            acc = _weighted(p, p_smem, c, acc, shrink, SWAP)
            left -= BN
            ahead, ahead_rope = _arrived(c_smem, rope_smem, full, step + 1, left, BN, DV, STAGES)
            scores = _scores(q_smem, q_rope_smem, ahead, ahead_rope, score_layout, GP, BN, SWAP)
            acc = warpgroup_mma_wait(2, deps=(acc,))  # the next scores' two products go on
            next_b, next_block, next_blocks = _refill(c_desc, rope_desc, c, rope, full, step, next_b, next_block, next_blocks, todo, capacity, length_ptr, batch_size, BN, STAGES)
            step += 1
            scores, c, rope = warpgroup_mma_wait(0, deps=(scores,)), ahead, ahead_rope
        p, most, weight, shrink = _softmax(scores * scale, left, most, weight, score_layout, BN, SWAP)
        acc = warpgroup_mma_wait(0, deps=(_weighted(p, p_smem, c, acc, shrink, SWAP),))
        next_b, next_block, next_blocks = _refill(c_desc, rope_desc, c, rope, full, step, next_b, next_block, next_blocks, todo, capacity, length_ptr, batch_size, BN, STAGES)
        step += 1
        weight = gl.sum(weight, 0) if SWAP else weight
        _leave(out_ptr, part_ptr, stat_ptr, unit, 2 * gl.program_id(0) + (block == 0).to(gl.int32), (block == 0) & (count == blocks), most, weight, acc, GP, DV, SWAP)
        b, block, blocks = _after(b, block + count - 1, blocks, length_ptr, batch_size, BN)
        units += 1
# fmt: on
