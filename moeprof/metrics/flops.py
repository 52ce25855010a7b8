"""Floating-point operations of a kernel by unit and precision, from counters that count operations, and its place under the roofs.

An instruction is not an operation: an ffma of a thread is two, a packed half instruction works on two numbers, a tensor instruction
on a tile. Threads' instructions are counted by ``smsp__sass_thread_inst_executed_op_*_pred_on`` (predicated-off threads left out), tensor
operations by ``sm__ops_path_tensor_src_*``, which count 2 a multiply-add. Where a chip has none of the latter, the shapes in the
opcodes of the executed SASS give them (PTX ISA, mma and wgmma: m x n x k).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

INSTRUCTION = "smsp__sass_thread_inst_executed_op_{}_pred_on.sum"
# precision -> instruction -> operations of one thread. Half ones are packed, as ncu's own derived metrics hfma_x4, hadd_x2, hmul_x2 have it
WEIGHTS = {
    "fp32": {"fadd": 1, "fmul": 1, "ffma": 2},
    "fp64": {"dadd": 1, "dmul": 1, "dfma": 2},
    "fp16": {"hadd": 2, "hmul": 2, "hfma": 4},
}
FMA = {"fp32": "ffma", "fp64": "dfma", "fp16": "hfma"}
PEAK = "sm__sass_thread_inst_executed_op_{}_pred_on.sum.peak_sustained"  # instructions a cycle of all SMs
CYCLES, SM_CLOCK = "smsp__cycles_elapsed.avg", "sm__cycles_elapsed.avg.per_second"
TENSOR = re.compile(r"^sm__ops_path_tensor_src_(\w+)\.sum$")
TENSOR_SOURCES = ("bf16_dst_fp32", "fp16", "fp64", "fp8_sparsity_off", "fp8_sparsity_on", "tf32_dst_fp32")
TENSOR_METRICS = tuple(f"sm__ops_path_tensor_src_{source}.sum" for source in TENSOR_SOURCES)
TENSOR_BUSY = "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active"
METRICS = (
    *(INSTRUCTION.format(op) for weights in WEIGHTS.values() for op in weights),
    *(PEAK.format(op) for op in FMA.values()),
    CYCLES,
    SM_CLOCK,
)
# opcode's shape -> operations of one warp instruction; a Volta HMMA.884 is a quarter of an m8n8k4 of four quad pairs
HMMA = {"884": 512, "1688": 2 * 16 * 8 * 8, "16816": 2 * 16 * 8 * 16, "16832": 2 * 16 * 8 * 32}
DMMA = {"884": 2 * 8 * 8 * 4}
WARPGROUP = 4  # warps, each of which executes the one warpgroup instruction


@dataclass(frozen=True)
class Flops:
    """Operations of one launch in one precision. ``peak_per_s`` at the clock of the run; ``origin``: how ``count`` came about."""

    precision: str
    count: float
    per_s: float | None
    peak_per_s: float | None
    origin: str


def flops(
    values: Mapping[str, float], duration_ns: float | None, sass: Iterable[tuple[str, int]] = ()
) -> tuple[Flops, ...]:
    """Those that the kernel did, most first. ``sass``: (instruction, times executed by a warp) of one launch, asked only where no
    counter tells the tensor operations."""
    found = [*_of_threads(values, duration_ns), *_of_tensors(values, duration_ns)]
    if not counts_tensors(values):
        found += _of_sass(sass, duration_ns)
    return tuple(sorted((f for f in found if f.count), key=lambda f: -f.count))


def counts_tensors(values: Mapping[str, float]) -> bool:
    """Whether a counter of tensor operations is there."""
    return any(TENSOR.match(metric) for metric in values)


def uncounted(values: Mapping[str, float], found: Iterable[Flops]) -> tuple[str, ...]:
    """What is missing from the operations, a clause each: precisions whose instructions no counter tells, a tensor pipe that worked."""
    lacking = [p for p, weights in WEIGHTS.items() if all(_executed(values, op) is None for op in weights)]
    told = [f"{', '.join(lacking)}: no {INSTRUCTION.format('*')}"] if lacking else []
    has_tensor = any("tensor" in f.precision for f in found)
    if values.get(TENSOR_BUSY, 0.0) > 0 and not has_tensor and not counts_tensors(values):
        told.append("tensor: the pipe worked, but there is no sm__ops_path_tensor_src_*.sum and no executed SASS")
    return tuple(told)


def _of_threads(values: Mapping[str, float], duration_ns: float | None) -> Iterable[Flops]:
    for precision, weights in WEIGHTS.items():
        given = {op: _executed(values, op) for op in weights}
        if any(count is None for count in given.values()):
            continue
        count = sum((given[op] or 0.0) * weight for op, weight in weights.items())
        fma = FMA[precision]
        peak, clock = values.get(PEAK.format(fma)), values.get(SM_CLOCK)
        most = peak * weights[fma] * clock if peak is not None and clock is not None else None
        exact = all(INSTRUCTION.format(op) in values for op in weights)
        yield Flops(precision, count, _rate(count, duration_ns), most, "counted" if exact else "rate x cycles")


def _executed(values: Mapping[str, float], op: str) -> float | None:
    """Thread instructions: counted, or from the rate a cycle that ncu's roofline section collects."""
    metric = INSTRUCTION.format(op)
    rate, cycles = values.get(f"{metric}.per_cycle_elapsed"), values.get(CYCLES)
    if metric in values or rate is None or cycles is None:
        return values.get(metric)
    return rate * cycles


def _of_tensors(values: Mapping[str, float], duration_ns: float | None) -> Iterable[Flops]:
    sources = [match[1] for metric in values if (match := TENSOR.match(metric))]
    for source in sources:
        part_of_another = any(source.startswith(f"{other}_") for other in sources)
        if "int" in source or part_of_another:  # integer operations are none of floating point
            continue
        count = values[f"sm__ops_path_tensor_src_{source}.sum"]
        name = source.replace("_dst_fp32", "").replace("_sparsity_off", "").replace("_sparsity_on", " sparse")
        yield Flops(f"{name} tensor", count, _rate(count, duration_ns), _tensor_peak(values, source), "counted")


def _tensor_peak(values: Mapping[str, float], source: str) -> float | None:
    """Of the instruction kind that did most of them: the path's own peak is that of sparse operands, twice as high."""
    dense = source if "sparsity" in source else f"{source}(?:_dst_fp\\d+)?_sparsity_off"
    kind = re.compile(rf"^(sm__ops_path_tensor_op_\w+_src_{dense})\.sum$")
    kinds = [match[1] for metric in values if (match := kind.match(metric)) and values[metric]]
    best = max(kinds, key=lambda name: values[f"{name}.sum"], default=None)
    peak, clock = values.get(f"{best}.sum.peak_sustained"), values.get(SM_CLOCK)
    return None if peak is None or clock is None else peak * clock


def _of_sass(sass: Iterable[tuple[str, int]], duration_ns: float | None) -> Iterable[Flops]:
    total = sum(executed * operations(text) for text, executed in sass if executed > 0)
    return (
        [Flops("tensor", float(total), _rate(float(total), duration_ns), None, "shapes of the executed SASS")]
        if total
        else []
    )


def operations(instruction: str) -> int:
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


def roofs(found: Iterable[Flops], dram_bytes: float | None, dram_peak_bytes_per_s: float | None) -> tuple[Roof, ...]:
    """One a precision; none where the DRAM bytes are unknown or 0."""
    return tuple(_roof(f, dram_bytes, dram_peak_bytes_per_s) for f in found) if dram_bytes else ()


def _roof(f: Flops, dram_bytes: float, dram_peak: float | None) -> Roof:
    intensity = f.count / dram_bytes
    if not f.peak_per_s or not dram_peak:
        return Roof(f.precision, intensity, None, None, None)
    ridge, best = f.peak_per_s / dram_peak, min(f.peak_per_s, intensity * dram_peak)
    return Roof(
        f.precision, intensity, ridge, "compute" if intensity >= ridge else "DRAM", f.per_s / best if f.per_s else None
    )
