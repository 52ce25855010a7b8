"""The analysis of a trace, findings included: of a file, and of each variant of a capture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from moeprof.analysis.analyze import analyze
from moeprof.analysis.device import DeviceView, views
from moeprof.analysis.model import Analysis
from moeprof.errors import CaptureError
from moeprof.findings.find import Rule, find
from moeprof.findings.steady_state import named
from moeprof.findings.what_if import Scene, scenes_of
from moeprof.storage import manifest
from moeprof.trace import Trace, open_trace
from moeprof.trace.classify import COMMUNICATION, Classes


def analyse(
    path: Path,
    range_name: str | None = None,
    device: int | None = None,
    rules: tuple[Rule, ...] = (),
    classes: Classes = COMMUNICATION,
) -> dict[str, Analysis]:
    """The analysis of one trace under the name of its file, or of each variant of a capture under the variant's name.

    Args:
        range_name: one window for each instance of this range; None: the whole trace.
        device: only this device; None: all.
        rules: a user's own rules, applied after the built-in ones.
        classes: name the kernels that move data between GPUs.

    Raises:
        CaptureError: the capture contains no trace.
        TraceError: a file cannot be read.
        UsageError: there is no such range or device.
    """

    def analysed(file: Path) -> Analysis:
        with open_trace(file, classes) as trace:
            return analysis_of(trace, range_name, device, rules)

    if not path.is_dir():
        return {path.name: analysed(path)}
    traced = {record.name: record.part("trace") for record in manifest.read(path).variants}
    analyses = {name: analysed(path / part.file) for name, part in traced.items() if part is not None}
    if not analyses:
        raise CaptureError(f"{path} contains no trace", "capture again with --tools nsys or torch")
    return analyses


def analysis_of(
    trace: Trace,
    range_name: str | None = None,
    device: int | None = None,
    rules: tuple[Rule, ...] = (),
    prepared: tuple[DeviceView, ...] | None = None,
) -> Analysis:
    """All numbers of a trace, with the findings; ``prepared`` are its views, where the caller has them."""
    prepared = views(trace, device) if prepared is None else prepared
    analysis = analyze(trace, range_name, device, prepared)
    judged = scenes(trace, prepared, analysis, range_name)
    return replace(analysis, findings=find(judged, rules), judged=tuple(scene.judged for scene in judged))


def scenes(
    trace: Trace, prepared: tuple[DeviceView, ...], analysis: Analysis, range_name: str | None
) -> tuple[Scene, ...]:
    """What the rules judge on each device: the windows of the requested range, or the part that repeats."""
    if range_name is None:
        return scenes_of(trace, prepared)
    spans = {v.index: [(w.start_ns, w.end_ns) for w in analysis.windows if w.device == v.index] for v in prepared}
    return tuple(
        Scene(trace, view, named(spans[view.index], f"{range_name} x {len(spans[view.index])}"))
        for view in prepared
        if spans[view.index]
    )
