"""The two expert GEMMs for sm_90, warp-specialised: TMA and gather warps feed two warpgroups that multiply.

Written in Gluon, Triton's own lower level. A program keeps one SM and walks its tiles; the loads of the next tile run while
the warpgroups still write the last one, which plain Triton's loop cannot do. Each warpgroup owns 64 of a tile's 128 rows.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    async_copy,
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

# Gluon renamed these after Triton 3.7
_copy = async_copy.async_load if hasattr(async_copy, "async_load") else async_copy.async_copy_global_to_shared
_tma_load = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared
_tma_store = tma.async_store if hasattr(tma, "async_store") else tma.async_copy_shared_to_global


@gluon.jit
def _place(tile, tiles, columns: gl.constexpr, GROUP: gl.constexpr):
    group = tile // (GROUP * columns)
    first = group * GROUP
    size = gl.minimum(tiles - first, GROUP)
    inside = tile % (GROUP * columns)
    return first + inside % size, inside // size


@gluon.jit
def _feed_dense(w_desc, a_desc, w_smem, a_smem, full, empty, tile_expert_ptr, tiles, KDIM: gl.constexpr, N: gl.constexpr, BM: gl.constexpr,
                BN: gl.constexpr, BK: gl.constexpr, STAGES: gl.constexpr, GROUP: gl.constexpr, PROGRAMS: gl.constexpr):  # fmt: skip
    """One warp: TMA loads of the weights' and the rows' tiles, as far ahead as there are slots."""
    step = 0
    for tile in range(gl.program_id(0), tiles * (N // BN), PROGRAMS):
        m, n = _place(tile, tiles, N // BN, GROUP)
        row = gl.load(tile_expert_ptr + m) * N + n * BN
        for k in range(0, KDIM, BK):
            slot = step % STAGES
            mbarrier.wait(empty.index(slot), ((step // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(slot), w_desc.block_type.nbytes + a_desc.block_type.nbytes)
            _tma_load(a_desc, [m * BM, k], full.index(slot), a_smem.index(slot))
            _tma_load(w_desc, [row, k], full.index(slot), w_smem.index(slot))
            step += 1


@gluon.jit
def _feed_gathered(x_ptr, token_ptr, w_desc, w_smem, a_smem, full, empty, tile_expert_ptr, tiles, KDIM: gl.constexpr, N: gl.constexpr, BM: gl.constexpr,
                   BN: gl.constexpr, BK: gl.constexpr, STAGES: gl.constexpr, GROUP: gl.constexpr, PROGRAMS: gl.constexpr):  # fmt: skip
    """Four warps: TMA loads of the weights' tiles, asynchronous copies of the rows that the tokens name; the next tile's tokens
    are read while this tile's rows are on their way."""
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [32 // (BK // 8), BK // 8], [gl.num_warps(), 1], [1, 0])
    inner = gl.arange(0, BK, gl.SliceLayout(0, layout))
    rows = gl.arange(0, BM, gl.SliceLayout(1, layout))
    total = tiles * (N // BN)
    m, n = _place(gl.minimum(gl.program_id(0), total - 1), tiles, N // BN, GROUP)
    tokens, expert = gl.load(token_ptr + m * BM + rows), gl.load(tile_expert_ptr + m)
    step = 0
    for tile in range(gl.program_id(0), total, PROGRAMS):
        pointers = x_ptr + tokens[:, None].to(gl.int64) * KDIM + inner[None, :]
        row = expert * N + n * BN
        m, n = _place(gl.minimum(tile + PROGRAMS, total - 1), tiles, N // BN, GROUP)
        tokens, expert = gl.load(token_ptr + m * BM + rows), gl.load(tile_expert_ptr + m)
        for k in range(0, KDIM, BK):
            slot = step % STAGES
            mbarrier.wait(empty.index(slot), ((step // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(slot), w_desc.block_type.nbytes)
            _tma_load(w_desc, [row, k], full.index(slot), w_smem.index(slot))
            _copy(a_smem.index(slot), pointers + k)
            async_copy.mbarrier_arrive(full.index(slot), increment_count=False)
            step += 1
    async_copy.wait_group(0)


@gluon.jit
def _product(a_smem, w_smem, full, empty, lag, first, KDIM: gl.constexpr, BM: gl.constexpr, BN: gl.constexpr, BK: gl.constexpr,
             STAGES: gl.constexpr, LAG: gl.constexpr, HALF: gl.constexpr, DENSE: gl.constexpr):  # fmt: skip
    """This warpgroup's 64 rows of one tile in fp32, one product in flight behind the newest; ``first``: steps before."""
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BN, 16])
    total = gl.zeros((BM // 2, BN), gl.float32, layout)
    for k in range(0, KDIM, BK):
        step = first + k // BK
        slot = step % STAGES
        mbarrier.wait(full.index(slot), (step // STAGES) & 1)
        if not DENSE:  # what ordinary copies wrote must be visible to the tensor cores' reads
            fence_async_shared()
        a = a_smem.index(slot).slice(HALF * (BM // 2), BM // 2, dim=0)
        total = warpgroup_mma(a, w_smem.index(slot).permute((1, 0)), total, use_acc=k > 0, is_async=True)
        total = warpgroup_mma_wait(num_outstanding=1, deps=(total,))
        mbarrier.arrive(empty.index((step + STAGES - 1) % STAGES), count=1, pred=k > 0)
        if HALF == 0 and LAG > 0:
            mbarrier.arrive(lag, count=1, pred=step == LAG)
    total = warpgroup_mma_wait(num_outstanding=0, deps=(total,))
    mbarrier.arrive(empty.index((first + KDIM // BK + STAGES - 1) % STAGES), count=1)
    return total


@gluon.jit
def _pass_by(full, empty, first, KDIM: gl.constexpr, BK: gl.constexpr, STAGES: gl.constexpr):
    """No row of this half belongs to the expert: give the slots back unread."""
    for k in range(0, KDIM, BK):
        step = first + k // BK
        mbarrier.wait(full.index(step % STAGES), (step // STAGES) & 1)
        mbarrier.arrive(empty.index(step % STAGES), count=1)


@gluon.jit
def _leave(value, smem, desc, row, column):
    """Store through shared memory by TMA, once the last store has read it."""
    tma.store_wait(pendings=0)
    smem.store(value.to(desc.dtype))
    fence_async_shared()
    _tma_store(desc, [row, column], smem)


@gluon.jit
def _silu(gate):
    """gate * sigmoid(gate), its division by the approximate reciprocal: one unit in the last place of fp32."""
    inverse = gl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;", "=f,f", [1.0 + gl.exp(-gate)], dtype=gl.float32, is_pure=True, pack=1
    )
    return gate * inverse


@gluon.jit
def _multiply(out_desc, a_smem, w_smem, out_smem, full, empty, lag, tile_rows_ptr, tiles, KDIM: gl.constexpr, N: gl.constexpr, BM: gl.constexpr,
              BN: gl.constexpr, BK: gl.constexpr, STAGES: gl.constexpr, LAG: gl.constexpr, GROUP: gl.constexpr, PROGRAMS: gl.constexpr,
              HALF: gl.constexpr, DENSE: gl.constexpr):  # fmt: skip
    """One warpgroup: 64 rows of each tile; SwiGLU where the rows were gathered; the result leaves by TMA.

    The second one starts LAG steps behind the first, so that one multiplies while the other writes its result.
    """
    first = 0
    last = tiles * (N // BN) - 1
    m, n = _place(gl.minimum(gl.program_id(0), last), tiles, N // BN, GROUP)
    rows = gl.load(tile_rows_ptr + m)
    if HALF == 1 and LAG > 0:
        mbarrier.wait(lag, 0, pred=gl.program_id(0) <= last)
    for tile in range(gl.program_id(0), last + 1, PROGRAMS):
        row, column, mine = m * BM + HALF * (BM // 2), n * BN, rows
        m, n = _place(gl.minimum(tile + PROGRAMS, last), tiles, N // BN, GROUP)
        rows = gl.load(tile_rows_ptr + m)  # of the next tile, while this one is multiplied
        if mine > HALF * (BM // 2):
            total = _product(a_smem, w_smem, full, empty, lag, first, KDIM, BM, BN, BK, STAGES, LAG, HALF, DENSE)
            if DENSE:
                left, right = total.reshape((BM // 2, 2, BN // 2)).permute((0, 2, 1)).split()
                _leave(left, out_smem.index(HALF), out_desc, row, column)
                _leave(right, out_smem.index(HALF), out_desc, row, column + BN // 2)
            else:
                gate, up = total.reshape((BM // 2, BN // 16, 2, 8)).permute((0, 1, 3, 2)).split()
                _leave((_silu(gate) * up).reshape((BM // 2, BN // 2)), out_smem.index(HALF), out_desc, row, column // 2)
        else:
            _pass_by(full, empty, first, KDIM, BK, STAGES)
        first += KDIM // BK
    tma.store_wait(pendings=0)


@gluon.jit
def _barriers(STAGES: gl.constexpr, FEEDERS: gl.constexpr):
    """One barrier a slot that says full (the TMA's bytes and FEEDERS threads' copies), one that both warpgroups gave it back; and one that
    lets the second warpgroup start."""
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    lag = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(lag, count=1)
    for slot in gl.static_range(STAGES):
        mbarrier.init(full.index(slot), count=1 + FEEDERS)
        mbarrier.init(empty.index(slot), count=2)
    fence_async_shared()
    return full, empty, lag


# fmt: off
@gluon.jit
def gate_up(x_ptr, w_desc, h_desc, token_ptr, tile_expert_ptr, tile_rows_ptr, tiles_ptr, KDIM: gl.constexpr, N: gl.constexpr, BM: gl.constexpr,
            BN: gl.constexpr, BK: gl.constexpr, STAGES: gl.constexpr, LAG: gl.constexpr, GROUP: gl.constexpr, PROGRAMS: gl.constexpr):
    """h[rows] = silu(x[token] @ gate) * (x[token] @ up); w_desc [E * 2I, H] holds 8 rows of gate, then 8 of up."""
    tiles = gl.load(tiles_ptr)
    a_smem = gl.allocate_shared_memory(w_desc.dtype, [STAGES, BM, BK], w_desc.layout)
    w_smem = gl.allocate_shared_memory(w_desc.dtype, [STAGES, BN, BK], w_desc.layout)
    out_smem = gl.allocate_shared_memory(h_desc.dtype, [2, BM // 2, BN // 2], h_desc.layout)
    full, empty, lag = _barriers(STAGES, 128)
    gl.warp_specialize(
        [
            (_multiply, (h_desc, a_smem, w_smem, out_smem, full, empty, lag, tile_rows_ptr, tiles, KDIM, N, BM, BN, BK, STAGES, LAG, GROUP, PROGRAMS, 0, False)),
            (_multiply, (h_desc, a_smem, w_smem, out_smem, full, empty, lag, tile_rows_ptr, tiles, KDIM, N, BM, BN, BK, STAGES, LAG, GROUP, PROGRAMS, 1, False)),
            (_feed_gathered, (x_ptr, token_ptr, w_desc, w_smem, a_smem, full, empty, tile_expert_ptr, tiles, KDIM, N, BM, BN, BK, STAGES, GROUP, PROGRAMS)),
        ],
        [4, 4],
        [208, 88],
    )


@gluon.jit
def down(h_desc, w_desc, y_desc, tile_expert_ptr, tile_rows_ptr, tiles_ptr, KDIM: gl.constexpr, N: gl.constexpr, BM: gl.constexpr,
         BN: gl.constexpr, BK: gl.constexpr, STAGES: gl.constexpr, LAG: gl.constexpr, GROUP: gl.constexpr, PROGRAMS: gl.constexpr):
    """y[rows] = h[rows] @ w2[expert], w_desc [E * H, I]."""
    tiles = gl.load(tiles_ptr)
    a_smem = gl.allocate_shared_memory(w_desc.dtype, [STAGES, BM, BK], h_desc.layout)
    w_smem = gl.allocate_shared_memory(w_desc.dtype, [STAGES, BN, BK], w_desc.layout)
    out_smem = gl.allocate_shared_memory(y_desc.dtype, [2, BM // 2, BN // 2], y_desc.layout)
    full, empty, lag = _barriers(STAGES, 0)
    gl.warp_specialize(
        [
            (_multiply, (y_desc, a_smem, w_smem, out_smem, full, empty, lag, tile_rows_ptr, tiles, KDIM, N, BM, BN, BK, STAGES, LAG, GROUP, PROGRAMS, 0, True)),
            (_multiply, (y_desc, a_smem, w_smem, out_smem, full, empty, lag, tile_rows_ptr, tiles, KDIM, N, BM, BN, BK, STAGES, LAG, GROUP, PROGRAMS, 1, True)),
            (_feed_dense, (w_desc, h_desc, w_smem, a_smem, full, empty, tile_expert_ptr, tiles, KDIM, N, BM, BN, BK, STAGES, GROUP, PROGRAMS)),
        ],
        [4, 1],
        [224, 40],
    )
# fmt: on
