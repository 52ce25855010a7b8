"""FLOPs of one kernel from ncu's counters, by the pipe that did them. Pure: one launch's counters in, a sum or a reason out.

What an instruction counts for follows Nsight Compute's own roofline sections: an add or a multiply is one, a fused
multiply-add two, twice that for packed pairs (``hadd``, ``ffma2``, ...); predicated-off threads count for nothing. The fp16 sum is
an upper bound: compilers also move constants with such instructions. Tensor counters (``sm__ops_path_tensor_*``) count
operations, two a multiply-add; on an H200 a GEMM of 4,096 cubed gives 2 * 4096^3 exactly. Integer operations are no FLOPs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from moeprof.machine.ncu_metrics import CYCLES, NEWER, PIPES, SASS, TENSOR, TENSOR_PIPE, outermost

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Flops:
    """FLOPs by pipe ("fp32", "fp64", "fp16", "tensor bf16", "tensor fp8 sparse", ...), for pipes that were counted whole.

    ``reason``: why their sum is not known; empty where it is.
    """

    by_pipe: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def total(self) -> float | None:
        """The sum over all pipes; None where a pipe was not counted."""
        return None if self.reason else sum(self.by_pipe.values())

    @property
    def pipe(self) -> str | None:
        """The pipe that did most."""
        return max(self.by_pipe, key=lambda name: self.by_pipe[name], default=None)


def flops(launch: pd.DataFrame) -> Flops:
    """FLOPs of the rows of one launch of a COUNTERS table."""
    return of(dict(zip(launch["metric"].astype(str), launch["value"].astype(float), strict=True)))


def of(values: Mapping[str, float]) -> Flops:
    """FLOPs from one launch's values by metric."""
    flops: dict[str, float] = {}
    missing = []
    for pipe, weights in PIPES.items():
        counts = {op: executed(values, op) for op in weights}
        lacking = [SASS.format(op) + ".sum" for op, n in counts.items() if n is None and op not in NEWER]
        missing += lacking
        flops[pipe] = 0.0 if lacking else sum((n or 0.0) * weights[op] for op, n in counts.items())
    tensor, reason = _tensor(values)
    if missing:
        reason = f"ncu did not count {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else "")
    return Flops({pipe: n for pipe, n in {**flops, **tensor}.items() if n}, reason)


def executed(values: Mapping[str, float], op: str) -> float | None:
    """How many threads executed an instruction; ncu's own sections store it a cycle."""
    name = SASS.format(op)
    if f"{name}.sum" in values:
        return values[f"{name}.sum"]
    rate, cycles = values.get(f"{name}.sum.per_cycle_elapsed"), values.get(CYCLES)
    return None if rate is None or cycles is None else rate * cycles


def _tensor(values: Mapping[str, float]) -> tuple[dict[str, float], str]:
    """Operations by the type of their inputs, and why they are not known."""
    sources = tensor_sources(values)
    floating = {
        kind: sum(values[f"{name}.sum"] for name in names) for kind, names in sources.items() if not _whole(kind)
    }
    if any(values[f"{name}.sum"] for kind, names in sources.items() if _whole(kind) for name in names):
        return floating, "its tensor operations are integer ones, which are no FLOPs"
    if not sources and values.get(TENSOR_PIPE) != 0:
        return floating, f"ncu did not count tensor operations ({TENSOR}*.sum)"
    return floating, ""


def tensor_sources(values: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    """Pipe -> the base names of the counters of its tensor operations that are there, those of which each counts alone."""
    names = outermost(name.removesuffix(".sum") for name in values if name.startswith(TENSOR) and name.endswith(".sum"))
    sources: dict[str, tuple[str, ...]] = {}
    for name in names:
        kind = "tensor " + name.removeprefix(TENSOR).partition("_")[0] + (" sparse" if "_sparsity_on" in name else "")
        sources[kind] = (*sources.get(kind, ()), name)
    return sources


def _whole(pipe: str) -> bool:
    """Whether a tensor pipe's numbers are integers."""
    return pipe.startswith("tensor int")
