"""Points under the roofline: arithmetic intensity and FLOP/s from ncu's counters alone, and what they lack.

A variant has one point for each of its longest kernels by name, and one for its whole iteration if every kernel of it was
counted. Where FLOPs were not counted, the whole iteration uses the FLOPs that the variant declares. Times are ncu's: it runs one
kernel at a time on flushed caches, so a point lies lower than the kernel does in the program.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace

from moeprof.kernels import flops
from moeprof.kernels.counters import launches
from moeprof.kernels.memory_chart import dram_bytes
from moeprof.kernels.roofline import Ceiling, ceilings
from moeprof.loaded.capture import Capture, CapturedVariant
from moeprof.machine.ncu_metrics import DURATION

WHOLE = "whole iteration"
LONGEST = 3  # kernels of a variant that get a point
HOW = (
    "capture again with ncu, which then counts them: moeprof capture {command}; what stands in the way: moeprof doctor"
)

ROOFS = {"FLOP/s": "arithmetic", "byte/s": "device memory"}
Launch = tuple[str, dict[str, float]]


@dataclass(frozen=True)
class Point:
    """Kernels of one name in one counted iteration, or all of it (``kernel`` is WHOLE)."""

    variant: str
    kernel: str
    launches: int
    flops: float
    dram_bytes: float
    time_ns: float  # under ncu
    intensity: float  # FLOP a DRAM byte
    flop_per_s: float
    pipe: str  # with most of the FLOPs; "declared" where the variant declares their number


@dataclass(frozen=True)
class Roofline:
    """Points in the order of the variants, a variant's longest kernels first, the whole last; the lines; what is missing."""

    points: tuple[Point, ...] = ()
    ceilings: tuple[Ceiling, ...] = ()
    missing: tuple[str, ...] = ()

    def of(self, variant: str | None) -> tuple[Point, ...]:
        """A variant's points."""
        return tuple(p for p in self.points if p.variant == variant)


def roofline(capture: Capture, names: tuple[str, ...] = (), prefix: str = "") -> Roofline:
    """The roofline of the variants called ``names`` (default: all); ``prefix`` goes before their names."""
    if capture.manifest.device == "cpu":
        return Roofline()
    points: list[Point] = []
    without: dict[str, list[str]] = {}  # reason -> variants
    partial: list[str] = []
    for variant in capture.variants:
        if names and variant.record.name not in names:
            continue
        placed, why = _points(variant)
        points += [replace(p, variant=prefix + p.variant) for p in placed]
        partial += [f"{prefix}{variant.record.name}: {text}" for text in _partial(variant) if placed]
        for reason in why:
            without.setdefault(reason, []).append(prefix + variant.record.name)
    lines = ceilings(capture)
    missing = [f"{', '.join(variants)}: {reason}" for reason, variants in without.items()]
    if points:
        have = {c.unit for c in lines}
        missing += [f"no ceiling of {what}" for unit, what in ROOFS.items() if unit not in have]
    hint = [HOW.format(command=_again(capture))] if missing else []
    return Roofline(tuple(points), lines, (*missing, *hint, *partial))


def _again(capture: Capture) -> str:
    """The words after ``moeprof capture`` that count the same program or workload."""
    argv = capture.manifest.argv
    if "--" in argv:
        return f"--tools nsys,ncu {shlex.join(argv[argv.index('--') :])}"
    return f"{capture.manifest.name} --tools nsys,ncu"


def together(before: Roofline, after: Roofline) -> Roofline:
    """Two captures under the second one's ceilings, or the first one's where the second has none."""
    missing = tuple(dict.fromkeys((*before.missing, *after.missing)))
    return Roofline(before.points + after.points, after.ceilings or before.ceilings, missing)


def _points(variant: CapturedVariant) -> tuple[list[Point], list[str]]:
    """A variant's points, and why some of them are missing."""
    if variant.record.status in ("skipped", "failed"):
        return [], []
    counted = launches(variant.counters)
    if not counted:
        return [], ["no kernel was counted"]
    if any(dram_bytes(values) is None or not values.get(DURATION) for _, values in counted):
        return [], ["ncu counted no DRAM bytes or no durations (dram__bytes.sum, gpu__time_duration.sum)"]
    whole = _all_counted(variant, counted)
    names = sorted({kernel for kernel, _ in counted}, key=lambda n: (-_time(counted, n), n))
    groups = [(name, [x for x in counted if x[0] == name]) for name in names[:LONGEST]] + [(WHOLE, counted)] * whole
    placed = [_place(variant, name, group) for name, group in groups]
    points = [p for p, _ in placed if p is not None]
    reasons = list(dict.fromkeys(why for _, why in placed if why))
    return points, reasons or ([] if points else ["its longest kernels do no floating-point work"])


def _time(counted: list[Launch], name: str) -> float:
    return sum(values[DURATION] for kernel, values in counted if kernel == name)


def _all_counted(variant: CapturedVariant, counted: list[Launch]) -> bool:
    window = variant.representative
    return window is not None and window.launch.kernels == len(counted)


def _partial(variant: CapturedVariant) -> list[str]:
    """Why a variant's whole iteration has no point, although some of its kernels have one."""
    window, counted = variant.representative, len(launches(variant.counters))
    if window is None:
        return ["without a trace it is not known whether every kernel was counted, so its whole iteration has no point"]
    kernels = window.launch.kernels
    if kernels == counted:
        return []
    return [
        f"{counted} of {kernels} kernels were counted, so its whole iteration has no point (--ncu-kernels {kernels} counts all)"
    ]


def _place(variant: CapturedVariant, name: str, group: list[Launch]) -> tuple[Point | None, str]:
    """The point of some launches, or why there is none."""
    flops_of = [flops.of(values) for _, values in group]
    by_pipe: dict[str, float] = {}
    for counted in flops_of:
        for pipe, n in counted.by_pipe.items():
            by_pipe[pipe] = by_pipe.get(pipe, 0.0) + n
    reason = next((counted.reason for counted in flops_of if counted.reason), "")
    pipe = max(by_pipe, key=lambda key: by_pipe[key], default="")
    done = sum(by_pipe.values())
    if reason and name == WHOLE and variant.record.flops:
        done, pipe, reason = float(variant.record.flops), "declared", ""
    moved, time = sum(dram_bytes(values) or 0.0 for _, values in group), sum(values[DURATION] for _, values in group)
    if reason or not done or not moved:
        return None, reason  # none: what does no floating-point work, or stays in the caches, has no place here
    return Point(variant.record.name, name, len(group), done, moved, time, done / moved, done / time * 1e9, pipe), ""
