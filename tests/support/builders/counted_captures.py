"""Studies with hardware counters, for tests: the recorded sample with tables of counters that are made, or a real one of an H200."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from builders.sample_captures import recorded

from moeprof import resources
from moeprof.loaded import capture
from moeprof.loaded.capture import Capture, CapturedVariant
from moeprof.machine.ncu_metrics import PIPES, SASS, TENSOR, TENSOR_PIPE
from moeprof.trace.ncu.counters import read_counters
from moeprof.trace.tables import COUNTERS, table

SAMPLE = resources.folder("reports") / "samples" / "kv_transfer"
MODEL = {"kind": "roofline", "flops_ceiling": "gemm_tflop_per_s", "bytes_ceiling": "read_gb_per_s"}
CEILINGS = {"gemm_tflop_per_s": 700.0, "read_gb_per_s": 4000.0}
NOTHING = {f"{SASS.format(op)}.sum": 0.0 for weights in PIPES.values() for op in weights}
Launch = tuple[str, Mapping[str, float]]


def launch(kernel: str, time_us: float, megabytes: float, gflop: float = 0.0, **more: float) -> Launch:
    """One counted kernel: its tensor GFLOP in bf16; ``more``: tensor, l2, occupancy (percent), registers, ffma (instructions)."""
    values = {
        **NOTHING, "gpu__time_duration.sum": time_us * 1e3, "dram__bytes.sum": megabytes * 1e6, f"{TENSOR}bf16_dst_fp32.sum": gflop * 1e9,
        TENSOR_PIPE: more.get("tensor", 0.0), "lts__t_sector_hit_rate.pct": more.get("l2", 50.0),
        "sm__warps_active.avg.pct_of_peak_sustained_active": more.get("occupancy", 25.0), "launch__registers_per_thread": more.get("registers", 96.0),
        f"{SASS.format('ffma')}.sum": more.get("ffma", 0.0),
    }  # fmt: skip
    return kernel, values


def frame(launches: Sequence[Launch]) -> pd.DataFrame:
    """A COUNTERS table of launches."""
    rows = [
        (n, kernel, metric, value) for n, (kernel, values) in enumerate(launches) for metric, value in values.items()
    ]
    columns = zip(("launch", "kernel", "metric", "value"), zip(*rows, strict=True), strict=True)
    return table(COUNTERS, {name: list(column) for name, column in columns})


def whole(variant: CapturedVariant, counters: pd.DataFrame) -> CapturedVariant:
    """The variant with these counters, its iterations as long as what was counted."""
    assert variant.iterations is not None
    kernels = int(counters["launch"].nunique())
    windows = tuple(replace(w, launch=replace(w.launch, kernels=kernels)) for w in variant.iterations.windows)
    return recorded(variant, counters=counters, iterations=replace(variant.iterations, windows=windows))


def plain() -> Capture:
    """The sample."""
    return capture.load(SAMPLE)


def made(*tables: pd.DataFrame, measured: bool = True) -> Capture:
    """The sample with these counters of whole iterations, one table a variant; under a roofline whose ceilings were measured."""
    found = plain()
    variants = tuple(whole(v, t) for v, t in zip(found.variants, tables, strict=True))
    variants = tuple(replace(v, record=replace(v.record, flops=2 * 10**12, bytes_moved=10**9)) for v in variants)
    manifest = replace(found.manifest, limit=MODEL, ceilings=CEILINGS) if measured else found.manifest
    return replace(found, manifest=manifest, variants=variants)


def story() -> tuple[pd.DataFrame, ...]:
    """A loop of small kernels, then a better one, then one fused kernel that moves a fourth of the bytes."""
    gemm = "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_64x64_64x6_tn_align8>(T1::Params)"
    first = [launch(gemm, 400, 900, 60, tensor=21, l2=31, occupancy=12, registers=230) for _ in range(4)]
    first += [
        launch(
            "void at::native::elementwise_kernel<128, 4, gpu_kernel_impl>(int, T3)",
            120,
            400,
            ffma=4e8,
            l2=12,
            occupancy=88,
            registers=32,
        )
    ] * 4
    second = [launch(gemm, 260, 500, 60, tensor=35, l2=44, occupancy=14, registers=230) for _ in range(4)]
    second += [
        launch(
            "void at::native::elementwise_kernel<128, 4, gpu_kernel_impl>(int, T3)",
            110,
            390,
            ffma=4e8,
            l2=12,
            occupancy=88,
            registers=32,
        )
    ]
    third = [launch("fused_moe_kernel", 480, 880, 240, tensor=78, l2=71, occupancy=22, registers=168, ffma=2e8)]
    return frame(first), frame(second), frame(third)


def real(traces: Path) -> Capture:
    """Real counters of an H200 (five GEMMs of 4,096 cubed and their softmax) on the first variant, the GEMMs alone on the last."""
    counted = read_counters(traces / "h200" / "ncu_raw.csv")
    gemms = counted[counted["kernel"].astype(str).str.startswith("nvjet")]
    found = plain()
    tables = (counted, counted, gemms)
    return replace(found, variants=tuple(whole(v, t) for v, t in zip(found.variants, tables, strict=True)))
