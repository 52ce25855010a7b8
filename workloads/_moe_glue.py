"""What surrounds the expert GEMMs on a GPU, one kernel each: SwiGLU, the rows in sorted order, the combine."""

from __future__ import annotations

import torch
import triton

from moeprof.workloads import _moe_kernels

ROWS = 4  # of a SwiGLU program


def _wide(columns: int) -> int:
    return min(2048, triton.next_power_of_2(columns))


def swiglu(gate_up: torch.Tensor, out: torch.Tensor, weights: torch.Tensor | None = None) -> None:
    """out [R, I] = silu(gate) * up of gate_up [R, 2I], each row times its weight [R] if there are weights."""
    rows, inner = out.shape
    width = min(1024, _wide(inner))
    grid = (triton.cdiv(rows, ROWS), triton.cdiv(inner, width))
    given = gate_up if weights is None else weights
    _moe_kernels.swiglu[grid](
        gate_up, given, out, rows, INNER=inner, BR=ROWS, BI=width, WEIGHTED=weights is not None, num_warps=4
    )


def gather(x: torch.Tensor, order: torch.Tensor, topk: int, out: torch.Tensor) -> None:
    """out [R, H] = the rows of x [T, H] whose assignments ``order`` [R] names, topk of them a token."""
    rows, hidden = out.shape
    _moe_kernels.gather[(rows, triton.cdiv(hidden, _wide(hidden)))](x, order, out, H=hidden, K=topk, BH=_wide(hidden))


def combine(results: torch.Tensor, positions: torch.Tensor, weights: torch.Tensor, out: torch.Tensor) -> None:
    """out [T, H] = the weighted sum, in fp32, of the K rows of ``results`` that ``positions`` [T, K] names."""
    tokens, topk = positions.shape
    hidden = out.shape[1]
    grid = (tokens, triton.cdiv(hidden, _wide(hidden)))
    _moe_kernels.combine[grid](results, positions, weights, out, H=hidden, K=topk, BH=_wide(hidden), num_warps=4)
