"""The roofline of a capture: what bounds its work, and what each variant achieves against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moeprof.manifest import Manifest, VariantRecord
from moeprof.metrics.analysis import Window
from moeprof.study import VariantStudy

DRAM_BYTES = "dram__bytes.sum"


@dataclass(frozen=True)
class Roof:
    """The best possible time of one iteration, max(FLOPs / F, bytes / B), F and B measured in the same run.

    ``yardstick`` is what a library reaches on the bare work, in TFLOP/s, where the workload names one.
    """

    flops: int
    bytes_moved: int
    flops_ceiling: str
    tflop_per_s: float  # F
    bytes_ceiling: str
    gb_per_s: float  # B
    ideal_ns: float
    bound: str  # "FLOPs" or "bytes"
    yardstick: str | None = None
    yardstick_tflop_per_s: float | None = None


@dataclass(frozen=True)
class Work:
    """What one variant achieves in its clean time, and what its kernels moved."""

    tflop_per_s: float  # useful FLOPs
    gb_per_s: float  # declared bytes
    yardstick_ratio: float | None  # of the yardstick's TFLOP/s
    declared_bytes: int
    kernels: int | None  # of one traced iteration
    counted: int  # of them, by ncu
    dram_bytes: float | None  # by ncu, where every kernel of the iteration was counted


def roof(manifest: Manifest, record: VariantRecord | None) -> Roof | None:
    """The roofline of a variant's declared work; None for another model, or where a ceiling was not measured."""
    model: dict[str, Any] = manifest.limit or {}
    if record is None or model.get("kind") != "roofline" or not record.flops or not record.bytes_moved:
        return None
    compute, memory = (manifest.ceilings.get(str(model.get(key))) for key in ("flops_ceiling", "bytes_ceiling"))
    if not compute or not memory:
        return None
    times = {"FLOPs": record.flops / compute / 1e3, "bytes": record.bytes_moved / memory}
    bound = max(times, key=lambda name: times[name])
    yardstick = manifest.ceilings.get(str(model.get("yardstick")))
    return Roof(
        flops=record.flops, bytes_moved=record.bytes_moved, flops_ceiling=model["flops_ceiling"], tflop_per_s=compute,
        bytes_ceiling=model["bytes_ceiling"], gb_per_s=memory, ideal_ns=times[bound], bound=bound,
        yardstick=model["yardstick"] if yardstick else None, yardstick_tflop_per_s=yardstick,
    )  # fmt: skip


def work(variant: VariantStudy, found: Roof | None, time_ns: float | None, window: Window | None) -> Work | None:
    """What ``variant`` achieves against its roofline; None without one or without a clean time."""
    if found is None or time_ns is None:
        return None
    achieved = found.flops / time_ns / 1e3
    kernels = None if window is None else window.launch.kernels
    counted, moved = dram(variant)
    return Work(
        tflop_per_s=achieved,
        gb_per_s=found.bytes_moved / time_ns,
        yardstick_ratio=achieved / found.yardstick_tflop_per_s if found.yardstick_tflop_per_s else None,
        declared_bytes=found.bytes_moved,
        kernels=kernels,
        counted=counted,
        dram_bytes=moved if counted and counted == kernels else None,
    )


def dram(variant: VariantStudy) -> tuple[int, float]:
    """Kernels that ncu counted, and the bytes that they moved to and from device memory."""
    frame = variant.counters
    if frame is None or not len(frame):
        return 0, 0.0
    values = frame.loc[frame["metric"] == DRAM_BYTES]
    return int(values["launch"].nunique()), float(values["value"].sum())
