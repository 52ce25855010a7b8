"""Floating-point operations of a kernel by pipe: how fast, of what peak, and their place under the roofs.

The counts are those of ``flops``. Where a chip has no counter of tensor operations, the shapes in the opcodes of the executed SASS give
them (PTX ISA, mma and wgmma: m x n x k).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moeprof.kernels import flops
from moeprof.machine.ncu_metrics import CYCLES, FMA, NEWER, PEAK, PIPES, SASS, SM_CLOCK, TENSOR, TENSOR_PIPE

TENSOR_SOURCES = ("bf16_dst_fp32", "fp16", "fp64", "fp8_sparsity_off", "fp8_sparsity_on", "tf32_dst_fp32")
TENSOR_METRICS = tuple(f"{TENSOR}{source}.sum" for source in TENSOR_SOURCES)
METRICS = (
    *(f"{SASS.format(op)}.sum" for weights in PIPES.values() for op in weights if op not in NEWER),
    *(PEAK.format(op) for op in FMA.values()),
    CYCLES,
    SM_CLOCK,
)
# opcode's shape -> operations of one warp instruction; a Volta HMMA.884 is a quarter of an m8n8k4 of four quad pairs
HMMA = {"884": 512, "1688": 2 * 16 * 8 * 8, "16816": 2 * 16 * 8 * 16, "16832": 2 * 16 * 8 * 32}
DMMA = {"884": 2 * 8 * 8 * 4}
WARPGROUP = 4  # warps, each of which executes the one warpgroup instruction


@dataclass(frozen=True)
class Operations:
    """Operations of one launch by one pipe. ``peak_per_s`` at the clock of the run; ``origin``: how ``count`` came about."""

    precision: str
    count: float
    per_s: float | None
    peak_per_s: float | None
    origin: str


def operations(
    values: Mapping[str, float], duration_ns: float | None, sass: Iterable[tuple[str, int]] = ()
) -> tuple[Operations, ...]:
    """The operations that the kernel performed, most first.

    ``sass``: (instruction, times executed by a warp) of one launch; used only where no counter contains the tensor operations.
    """
    sources = flops.tensor_sources(values)
    performed = []
    for pipe, count in flops.of(values).by_pipe.items():
        peak = _tensor_peak(values, sources[pipe]) if pipe in sources else thread_peak(values, pipe)
        performed.append(Operations(pipe, count, _rate(count, duration_ns), peak, _origin(values, pipe)))
    performed += [] if sources else _of_sass(sass, duration_ns)
    return tuple(sorted(performed, key=lambda f: -f.count))


def uncounted(values: Mapping[str, float], counted: Iterable[Operations]) -> tuple[str, ...]:
    """What the operations lack, a clause each: pipes without counted instructions, and a tensor pipe that was busy."""
    lacking = [p for p, weights in PIPES.items() if all(flops.executed(values, op) is None for op in weights)]
    reasons = [f"{', '.join(lacking)}: no {SASS.format('*')}.sum"] if lacking else []
    has_tensor = any(f.precision.startswith("tensor") for f in counted)
    if values.get(TENSOR_PIPE, 0.0) > 0 and not has_tensor and not flops.tensor_sources(values):
        reasons.append(f"tensor: the pipe worked, but there is no {TENSOR}*.sum and no executed SASS")
    return tuple(reasons)


def _origin(values: Mapping[str, float], pipe: str) -> str:
    rates = [op for op in PIPES.get(pipe, ()) if op not in NEWER and f"{SASS.format(op)}.sum" not in values]
    return "rate x cycles" if rates else "counted"


def thread_peak(values: Mapping[str, float], pipe: str) -> float | None:
    """The peak of a pipe in operations per second: only fused multiply-adds, at the clock of the run."""
    peak, clock = values.get(PEAK.format(FMA[pipe])), values.get(SM_CLOCK)
    return None if peak is None or clock is None else peak * PIPES[pipe][FMA[pipe]] * clock


def _tensor_peak(values: Mapping[str, float], names: Iterable[str]) -> float | None:
    """Of the instruction kind that did most of them: the path's own peak is that of sparse operands, twice as high."""
    source = max(names, key=lambda name: values[f"{name}.sum"]).removeprefix(TENSOR)
    dense = source if "sparsity" in source else rf"{source}(?:_dst_fp\d+)?_sparsity_off"
    kind = re.compile(rf"^(sm__ops_path_tensor_op_\w+_src_{dense})\.sum$")
    kinds = [match[1] for metric in values if (match := kind.match(metric)) and values[metric]]
    best = max(kinds, key=lambda name: values[f"{name}.sum"], default=None)
    peak, clock = values.get(f"{best}.sum.peak_sustained"), values.get(SM_CLOCK)
    return None if peak is None or clock is None else peak * clock


def _of_sass(sass: Iterable[tuple[str, int]], duration_ns: float | None) -> Iterable[Operations]:
    total = sum(executed * operations_of(text) for text, executed in sass if executed > 0)
    return (
        [Operations("tensor", float(total), _rate(float(total), duration_ns), None, "shapes of the executed SASS")]
        if total
        else []
    )


def operations_of(instruction: str) -> int:
    """Floating-point operations of one warp instruction by the shape in its opcode; 0 for any other or an unknown shape."""
    words = instruction.split()
    opcode = next((word for word in words if not word.startswith("@")), "")
    name, _, rest = opcode.partition(".")
    shape = rest.partition(".")[0]
    if name in ("HGMMA", "QGMMA"):
        sizes = [int(n) for n in re.findall(r"\d+", shape)]
        return 2 * sizes[0] * sizes[1] * sizes[2] // WARPGROUP if len(sizes) == 3 else 0
    return {"HMMA": HMMA, "QMMA": HMMA, "DMMA": DMMA}.get(name, {}).get(shape, 0)


def _rate(count: float, duration_ns: float | None) -> float | None:
    return count * 1e9 / duration_ns if duration_ns else None


@dataclass(frozen=True)
class Roof:
    """A kernel's place under one roof. ``intensity``: operations a DRAM byte; right of ``ridge`` the unit bounds it, left of it DRAM.

    ``of_roof``: what it reaches of min(peak, intensity x DRAM peak).
    """

    precision: str
    intensity: float
    ridge: float | None
    bound: str | None  # "DRAM" or "compute"
    of_roof: float | None


def roofs(
    counted: Iterable[Operations], dram_bytes: float | None, dram_peak_bytes_per_s: float | None
) -> tuple[Roof, ...]:
    """One a precision; none where the DRAM bytes are unknown or 0."""
    return tuple(_roof(f, dram_bytes, dram_peak_bytes_per_s) for f in counted) if dram_bytes else ()


def _roof(f: Operations, dram_bytes: float, dram_peak: float | None) -> Roof:
    intensity = f.count / dram_bytes
    if not f.peak_per_s or not dram_peak:
        return Roof(f.precision, intensity, None, None, None)
    ridge, best = f.peak_per_s / dram_peak, min(f.peak_per_s, intensity * dram_peak)
    return Roof(
        f.precision, intensity, ridge, "compute" if intensity >= ridge else "DRAM", f.per_s / best if f.per_s else None
    )
