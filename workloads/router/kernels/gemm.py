"""The two expert GEMMs in Triton: gather and SwiGLU inside the first, both over the tile list that `scatter` wrote."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _place(tile, tiles, columns: tl.constexpr, GROUP: tl.constexpr):
    """Row tile and column tile number ``tile``: GROUP row tiles share each column tile while it is in L2."""
    group = tile // (GROUP * columns)
    first = group * GROUP
    size = tl.minimum(tiles - first, GROUP)
    inside = tile % (GROUP * columns)
    return first + inside % size, inside // size


@triton.jit
def gate_up(x_ptr, w_desc, h_ptr, token_ptr, tile_expert_ptr, tiles_ptr, H: tl.constexpr, N: tl.constexpr,
            BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
            PROGRAMS: tl.constexpr, FLATTEN: tl.constexpr):  # fmt: skip
    """h[rows] = silu(x[token] @ gate) * (x[token] @ up); w_desc [E * 2I, H] holds 8 rows of gate, then 8 of up."""
    tiles = tl.load(tiles_ptr)
    for tile in tl.range(tl.program_id(0), tiles * (N // BN), PROGRAMS, flatten=FLATTEN):
        m, n = _place(tile, tiles, N // BN, GROUP)
        expert = tl.load(tile_expert_ptr + m)
        rows = m * BM + tl.arange(0, BM)
        tokens = tl.load(token_ptr + rows)
        x_ptrs = x_ptr + tokens[:, None].to(tl.int64) * H + tl.arange(0, BK)[None, :]
        total = tl.zeros((BM, BN), tl.float32)
        for k in range(0, H, BK):
            x = tl.load(x_ptrs + k)
            w = w_desc.load([expert * N + n * BN, k])
            total = tl.dot(x, w.T, total)
        gate, up = tl.split(tl.permute(tl.reshape(total, (BM, BN // 16, 2, 8)), (0, 1, 3, 2)))
        hidden = tl.reshape(gate * tl.sigmoid(gate) * up, (BM, BN // 2))
        columns = n * (BN // 2) + tl.arange(0, BN // 2)
        tl.store(h_ptr + rows[:, None].to(tl.int64) * (N // 2) + columns[None, :], hidden.to(h_ptr.dtype.element_ty))


@triton.jit
def down(h_desc, w_desc, y_ptr, tile_expert_ptr, tiles_ptr, INNER: tl.constexpr, N: tl.constexpr,
         BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
         PROGRAMS: tl.constexpr, FLATTEN: tl.constexpr):  # fmt: skip
    """y[rows] = h[rows] @ w2[expert], w_desc [E * H, I]."""
    tiles = tl.load(tiles_ptr)
    for tile in tl.range(tl.program_id(0), tiles * (N // BN), PROGRAMS, flatten=FLATTEN):
        m, n = _place(tile, tiles, N // BN, GROUP)
        expert = tl.load(tile_expert_ptr + m)
        total = tl.zeros((BM, BN), tl.float32)
        for k in range(0, INNER, BK):
            h = h_desc.load([m * BM, k])
            w = w_desc.load([expert * N + n * BN, k])
            total = tl.dot(h, w.T, total)
        rows, columns = m * BM + tl.arange(0, BM), n * BN + tl.arange(0, BN)
        tl.store(y_ptr + rows[:, None].to(tl.int64) * N + columns[None, :], total.to(y_ptr.dtype.element_ty))
