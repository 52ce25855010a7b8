"""What ``moeprof kernels`` does: the kernels of a trace or of a capture's variants, ranked by their cost."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from moeprof.analysis.analyze import analyze, iterations
from moeprof.analysis.device import DeviceView, main_device, views
from moeprof.analysis.model import Analysis
from moeprof.errors import CaptureError, UsageError
from moeprof.kernels.ranking import Ranking, rank
from moeprof.storage import manifest
from moeprof.trace import Trace, open_trace
from moeprof.trace.ncu.counters import read_counters


def rankings(
    path: Path, range_name: str | None, variant: str | None, device: int | None, by: str
) -> dict[str, Ranking]:
    """The ranking of one trace under its file's name, or of each variant of a capture under the variant's.

    Raises:
        CaptureError: a capture without a trace.
        UsageError: there is no such variant, range or device.
    """
    if not path.is_dir():
        if variant is not None:
            raise UsageError(f"{path} is a trace: it has no variants", "leave --variant out")
        return {path.name: ranking(path, None, range_name, device, by)}
    found = manifest.read(path)
    names = [v.name for v in found.variants]
    if variant is not None and variant not in names:
        raise UsageError(f"{path} has no variant {variant!r}", f"its variants: {', '.join(names)}")
    ranked = {}
    for record in found.variants:
        trace, counters = record.part("trace"), record.part("counters")
        if trace is not None and variant in (None, record.name):
            counted = read_counters(path / counters.file) if counters is not None else None
            ranked[record.name] = ranking(path / trace.file, counted, range_name, device, by)
    if not ranked:
        raise CaptureError(
            f"{path} holds no trace" + (f" of {variant}" if variant else ""), "capture again with --tools nsys or torch"
        )
    return ranked


def ranking(path: Path, counters: pd.DataFrame | None, range_name: str | None, device: int | None, by: str) -> Ranking:
    """The kernels of a trace: of its measured iterations, of a range's instances, or of all of it."""
    with open_trace(path) as trace:
        prepared = views(trace, device)
        view = main_device(prepared)
        if view is None or not len(view.ops):
            raise UsageError(
                f"{path} has no GPU work" + ("" if device is None else f" on device {device}"), "see: moeprof analyze"
            )
        measured = iterations(trace, prepared if device is None else None) if range_name is None else None
        return rank(view, _spans(trace, view, range_name, measured), by, counters)


def _spans(trace: Trace, view: DeviceView, range_name: str | None, measured: Analysis | None) -> list[tuple[int, int]]:
    """The windows of the measured iterations, if they are on this device; else of the range, or the whole trace."""
    if measured is None or not any(w.device == view.index for w in measured.windows):
        measured = analyze(trace, range_name, view.index, (view,))
    return sorted((w.start_ns, w.end_ns) for w in measured.windows if w.device == view.index)


def encoded(found: Ranking) -> dict[str, Any]:
    """A ranking as JSON."""
    rows = [{**asdict(k), "grid": list(k.grid), "block": list(k.block), "limiter": k.limiter} for k in found.kernels]
    return {"windows": found.windows, "span_ns": found.span_ns, "covered": found.covered, "kernels": rows}
