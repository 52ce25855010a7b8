"""Traces of programs that repeat a step, made in memory: what each step launches, how often, under which range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from builders.trace_tables import trace

from moeprof.trace import Trace

GAP_NS, CALL_NS = 1_000, 500


@dataclass(frozen=True)
class Launch:
    """A kernel that a step launches ``count`` times; ``blocks`` is its grid."""

    name: str
    ns: int
    blocks: int
    count: int = 1


ATTENTION = (
    Launch("qkv_gemm", 20_000, 96), Launch("rope", 4_000, 64), Launch("flash_fwd", 30_000, 128), Launch("out_gemm", 15_000, 96),
    Launch("rms_norm", 3_000, 32, 2), Launch("router_softmax", 2_000, 32), Launch("argmax", 2_000, 16),
)  # fmt: skip
# eight experts in a loop against one grouped product: 314 us and 210 us per step, gaps included
EAGER = (
    *ATTENTION,
    Launch("index_select", 2_000, 40, 8),
    Launch("expert_gemm", 19_400, 80, 8),
    Launch("index_add", 2_000, 40, 8),
)
GROUPED = (
    *ATTENTION,
    Launch("sort_tokens", 9_000, 40),
    Launch("grouped_gemm", 96_000, 132),
    Launch("silu_mul", 8_000, 300),
)
SETUP = (Launch("normal_init", 50_000, 4096, 6), Launch("fill", 5_000, 512, 3))


def batched(step: Sequence[Launch], factor: int) -> tuple[Launch, ...]:
    """The same step with a batch ``factor`` times as large: more blocks, longer kernels; persistent kernels keep their grids."""
    return tuple(
        Launch(k.name, int(k.ns * 0.9 * factor), k.blocks if k.blocks == 132 else k.blocks * factor, k.count)
        for k in step
    )


def program(
    step: Sequence[Launch],
    steps: int,
    marked: str | None = "step",
    setup: Sequence[Launch] = SETUP,
    shapes: bool = True,
) -> Trace:
    """A program: its set-up, then so many steps, each under a range ``marked`` (``#`` is its number), or under none."""
    ops: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    ranges: list[dict[str, Any]] = []
    now = 0

    def run(launches: Sequence[Launch]) -> None:
        nonlocal now
        for k in launches:
            for _ in range(k.count):
                calls.append({"start_ns": now, "end_ns": now + CALL_NS})
                shape = dict.fromkeys(("grid_y", "grid_z", "block_y", "block_z"), 1) | {
                    "grid_x": k.blocks,
                    "block_x": 128,
                }
                ops.append(
                    {"start_ns": now + CALL_NS, "end_ns": now + CALL_NS + k.ns, "name": k.name, "call": len(calls) - 1}
                    | (shape if shapes else {})
                )
                now += CALL_NS + k.ns + GAP_NS

    run(setup)
    for number in range(steps):
        begun = now
        run(step)
        if marked is not None:
            ranges.append(
                {"start_ns": begun, "end_ns": now, "name": marked.replace("#", str(number)), "domain": "NVTX"}
            )
    return trace(ops, calls, ranges)
