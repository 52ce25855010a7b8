"""Multi-head latent attention at decode in plain Triton: each block of latents is read once, as keys and as values."""

from __future__ import annotations

import triton
import triton.language as tl

from moeprof.workloads.decode.kernels.attention import _finish, _part, _softmax, _tile, _unit


@triton.jit
def _latent(
    q, q_rope, c_ptr, row, alive, most, weight, acc, scale,
    DV: tl.constexpr, DR: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """One block of latents: the first DV columns are keys and values, the last DR keys alone."""
    c = _tile(c_ptr, row, tl.arange(0, DV), DV + DR, alive, MASKED)
    rope = _tile(c_ptr + DV, row, tl.arange(0, DR), DV + DR, alive, MASKED)
    scores = tl.dot(q_rope, rope.T, tl.dot(q, c.T)) * scale
    p, most, weight, acc = _softmax(scores, alive, most, weight, acc, False, MASKED)
    return most, weight, tl.dot(p.to(c.dtype), c, acc)


@triton.jit
def mla(q_ptr, c_ptr, length_ptr, out_ptr, part_ptr, stat_ptr, count_ptr, scale, batch_size, capacity, launched,
        UNITS: tl.constexpr, G: tl.constexpr, GP: tl.constexpr, DV: tl.constexpr, DR: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
        INSIDE: tl.constexpr):  # fmt: skip
    """out [B, UNITS * G, DV] = softmax(q c^T scale) c[:, :DV] over latents c [B, capacity, DV + DR]."""
    batch, heads = tl.arange(0, BP), tl.arange(0, GP)
    lengths = tl.load(length_ptr + batch, batch < batch_size, 0)
    ends = tl.cumsum((lengths + BN - 1) // BN, 0) * UNITS
    total = tl.max(ends, 0)
    program, programs = tl.program_id(0), tl.minimum(total, launched)
    at = _part(program, total, programs)
    stop = tl.where(program < programs, _part(program + 1, total, programs), at)
    while at < stop:
        b, u, first, blocks, length = _unit(at, lengths, ends, batch, UNITS, BN)
        upto = tl.minimum(stop, first + blocks)
        unit = b * UNITS + u
        q_row = q_ptr + (unit * G + heads[:, None]).to(tl.int64) * (DV + DR)
        q = tl.load(q_row + tl.arange(0, DV)[None, :], (heads < G)[:, None], 0.0)
        q_rope = tl.load(q_row + DV + tl.arange(0, DR)[None, :], (heads < G)[:, None], 0.0)
        most = tl.full((GP,), float("-inf"), tl.float32)
        weight = tl.zeros((GP,), tl.float32)
        acc = tl.zeros((GP, DV), tl.float32)
        full = tl.minimum(upto - first, length // BN)
        for block in tl.range(at - first, full):
            row = b.to(tl.int64) * capacity + block * BN + tl.arange(0, BN)
            most, weight, acc = _latent(q, q_rope, c_ptr, row, row >= 0, most, weight, acc, scale, DV, DR, False)
        if upto - first > full:
            position = (upto - first - 1) * BN + tl.arange(0, BN)
            row = b.to(tl.int64) * capacity + position
            most, weight, acc = _latent(
                q, q_rope, c_ptr, row, position < length, most, weight, acc, scale, DV, DR, True
            )
        _finish(out_ptr, part_ptr, stat_ptr, count_ptr, unit, at, upto, first, first + blocks, program, total, programs, most, weight,
                acc, heads, G, GP, DV, INSIDE)  # fmt: skip
        at = upto
