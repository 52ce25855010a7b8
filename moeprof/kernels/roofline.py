"""The roofline of a capture: what bounds its work, and what each variant achieves against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moeprof.analysis.model import Window
from moeprof.kernels import flops
from moeprof.kernels.counters import launches
from moeprof.kernels.memory_chart import dram_bytes
from moeprof.kernels.operations import thread_peak
from moeprof.kernels.speed_of_light import dram_peak
from moeprof.loaded.capture import Capture, CapturedVariant
from moeprof.machine.ncu_metrics import DURATION, TENSOR_BUSY
from moeprof.storage.manifest import Manifest, VariantRecord

BUSY_ENOUGH = 10.0  # % of the time that the tensor pipe must work, for its full rate to follow from what it did


@dataclass(frozen=True)
class Roof:
    """The best possible time of one iteration, max(FLOPs / F, bytes / B), F and B measured in the same run; for an exchange over a
    link in ``pieces`` C, max(FLOPs / F + bytes / B / C, bytes / B).

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
    pieces: int | None = None


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


@dataclass(frozen=True)
class Ceiling:
    """One line that a roofline draws: FLOP/s (``unit`` "FLOP/s") or byte/s ("byte/s"), and where the number is from.

    ``measured``: by this capture on this machine; otherwise a peak from ncu's counters, at the clocks of the counted kernels.
    """

    name: str
    unit: str
    per_s: float
    measured: bool


def ceilings(capture: Capture) -> tuple[Ceiling, ...]:
    """The ceilings of compute and of device memory: those that the workload's roofline names, else ncu's own peaks."""
    manifest = capture.manifest
    model: dict[str, Any] = (manifest.limit or {}) if (manifest.limit or {}).get("kind") == "roofline" else {}
    lines = [
        Ceiling(str(model[key]), unit, manifest.ceilings[str(model[key])] * scale, True)
        for key, unit, scale in (("flops_ceiling", "FLOP/s", 1e12), ("bytes_ceiling", "byte/s", 1e9))
        if manifest.ceilings.get(str(model.get(key)))
    ]
    have = {ceiling.unit for ceiling in lines}
    return (*lines, *(peak for peak in _peaks(capture) if peak.unit not in have))


def _peaks(capture: Capture) -> tuple[Ceiling, ...]:
    """The highest peaks in ncu's counters of any variant."""
    every = [values for variant in capture.variants for _, values in launches(variant.counters)]
    kinds = (
        ("tensor pipe", "FLOP/s", _tensor_peak),
        ("fp32 pipe", "FLOP/s", lambda values: thread_peak(values, "fp32")),
        ("DRAM", "byte/s", dram_peak),
    )
    best = ((name, unit, max((peak(values) or 0.0 for values in every), default=0.0)) for name, unit, peak in kinds)
    return tuple(Ceiling(name, unit, value, False) for name, unit, value in best if value)


def _tensor_peak(values: dict[str, float]) -> float:
    """What the tensor pipe does in the time in which it works. ncu's own peak of ``sm__ops_path_tensor_*`` counts sparsity,
    which doubles it, where the type allows any."""
    busy, time = values.get(TENSOR_BUSY, 0.0), values.get(DURATION, 0.0)
    done = sum(n for pipe, n in flops.of(values).by_pipe.items() if pipe.startswith("tensor"))
    return done / time * 1e9 / (busy / 100) if busy >= BUSY_ENOUGH and time else 0.0


def roof(manifest: Manifest, record: VariantRecord | None) -> Roof | None:
    """The roofline of a variant's declared work, or its exchange; None for another model, or where a ceiling was not measured."""
    model: dict[str, Any] = manifest.limit or {}
    if (
        record is None
        or model.get("kind") not in ("roofline", "exchange")
        or not record.flops
        or not record.bytes_moved
    ):
        return None
    compute, memory = (manifest.ceilings.get(str(model.get(key))) for key in ("flops_ceiling", "bytes_ceiling"))
    if not compute or not memory:
        return None
    times = {"FLOPs": record.flops / compute / 1e3, "bytes": record.bytes_moved / memory}
    bound = max(times, key=lambda name: times[name])
    pieces = int(manifest.params[model["pieces"]]) if model["kind"] == "exchange" else None
    ideal = max(times["FLOPs"] + times["bytes"] / pieces, times["bytes"]) if pieces else times[bound]
    yardstick = manifest.ceilings.get(str(model.get("yardstick")))
    return Roof(
        flops=record.flops, bytes_moved=record.bytes_moved, flops_ceiling=model["flops_ceiling"], tflop_per_s=compute,
        bytes_ceiling=model["bytes_ceiling"], gb_per_s=memory, ideal_ns=ideal, bound=bound,
        yardstick=model["yardstick"] if yardstick else None, yardstick_tflop_per_s=yardstick, pieces=pieces,
    )  # fmt: skip


def work(variant: CapturedVariant, roof: Roof | None, time_ns: float | None, window: Window | None) -> Work | None:
    """What ``variant`` achieves against its roofline; None without one or without a clean time."""
    if roof is None or time_ns is None:
        return None
    achieved = roof.flops / time_ns / 1e3
    kernels = None if window is None else window.launch.kernels
    counted, moved = dram(variant)
    return Work(
        tflop_per_s=achieved,
        gb_per_s=roof.bytes_moved / time_ns,
        yardstick_ratio=achieved / roof.yardstick_tflop_per_s if roof.yardstick_tflop_per_s else None,
        declared_bytes=roof.bytes_moved,
        kernels=kernels,
        counted=counted,
        dram_bytes=moved if counted and counted == kernels else None,
    )


def dram(variant: CapturedVariant) -> tuple[int, float]:
    """Kernels whose bytes ncu counted, and the bytes that they moved to and from device memory."""
    moved = [n for _, values in launches(variant.counters) if (n := dram_bytes(values)) is not None]
    return len(moved), sum(moved)
