"""The kernels around the expert GEMMs on a GPU: SwiGLU, gather, combine, prefetch."""

from __future__ import annotations

import torch
import triton

from moeprof.workloads.router.kernels import routing

ROWS = 4  # of a SwiGLU program
FEW, FEW_WIDE = 256, 512  # with so few tokens one program each would leave SMs idle: columns of a program then
AHEAD = 8192  # elements that a program prefetches


def _wide(columns: int) -> int:
    return min(2048, triton.next_power_of_2(columns))


def swiglu(gate_up: torch.Tensor, out: torch.Tensor, weights: torch.Tensor | None = None) -> None:
    """out [R, I] = silu(gate) * up of gate_up [R, 2I], each row times its weight [R] if there are weights."""
    rows, inner = out.shape
    width = min(1024, _wide(inner))
    grid = (triton.cdiv(rows, ROWS), triton.cdiv(inner, width))
    weights_or_dummy = gate_up if weights is None else weights
    routing.swiglu[grid](
        gate_up, weights_or_dummy, out, rows, INNER=inner, BR=ROWS, BI=width, WEIGHTED=weights is not None, num_warps=4
    )


def gather(x: torch.Tensor, order: torch.Tensor, topk: int, out: torch.Tensor) -> None:
    """out [R, H] = the rows of x [T, H] whose assignments ``order`` [R] names, topk of them a token."""
    rows, hidden = out.shape
    routing.gather[(rows, triton.cdiv(hidden, _wide(hidden)))](x, order, out, H=hidden, K=topk, BH=_wide(hidden))


def combine(results: torch.Tensor, positions: torch.Tensor, weights: torch.Tensor, out: torch.Tensor) -> None:
    """out [T, H] = the weighted sum, in fp32, of the K rows of ``results`` that ``positions`` [T, K] names."""
    tokens, topk = positions.shape
    hidden = out.shape[1]
    width = _wide(hidden) if tokens > FEW else min(FEW_WIDE, _wide(hidden))
    grid = (tokens, triton.cdiv(hidden, width))
    routing.combine[grid](
        results, positions, weights, out, H=hidden, K=topk, BH=width, num_warps=max(1, min(4, width // 256))
    )


class Prefetch:
    """Read the first ``nbytes`` of ``weights`` into L2 on a second stream, concurrently with the current one.

    ``begin`` forks and ``join`` joins: in a captured graph this is a branch for which nothing waits before the end.
    """

    def __init__(self, weights: torch.Tensor, nbytes: int) -> None:
        self.flat = weights.flatten()
        self.numel = min(nbytes // weights.element_size(), self.flat.numel())
        self.programs = triton.cdiv(self.numel, AHEAD)
        self.sink = torch.empty(max(self.programs, 1), dtype=torch.float32, device=weights.device)
        self.stream = torch.cuda.Stream()

    def begin(self) -> None:
        """Launch the kernel if there is anything to read."""
        if self.programs:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                routing.prefetch[(self.programs,)](self.flat, self.sink, self.numel, BLOCK=AHEAD, num_warps=4)

    def join(self) -> None:
        """Make the current stream wait for the kernel."""
        if self.programs:
            torch.cuda.current_stream().wait_stream(self.stream)
