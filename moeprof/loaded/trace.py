"""The analysis of a trace, findings included: of a file, and of each variant of a capture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from moeprof.analysis.analyze import analyze
from moeprof.analysis.copy_sizes import copy_sizes
from moeprof.analysis.device import DeviceView, views
from moeprof.analysis.kernel_costs import costed, families, owners
from moeprof.analysis.memory import memory_use
from moeprof.analysis.model import Analysis
from moeprof.analysis.passes import passes_of
from moeprof.analysis.range_tree import range_tree
from moeprof.errors import CaptureError
from moeprof.findings.find import Rule, find
from moeprof.findings.steady_state import named
from moeprof.findings.what_if import Scene, scenes_of
from moeprof.storage import manifest
from moeprof.trace import Trace, open_trace
from moeprof.trace.classify import COMMUNICATION, Classes
from moeprof.trace.tables import Device


@dataclass(frozen=True)
class Analysed:
    """An analysis, and the devices of its trace, which have names."""

    analysis: Analysis
    devices: tuple[Device, ...]


def analyse(
    path: Path,
    range_name: str | None = None,
    device: int | None = None,
    rules: tuple[Rule, ...] = (),
    classes: Classes = COMMUNICATION,
) -> dict[str, Analysis]:
    """The analyses of ``analysed``, without the devices."""
    return {name: a.analysis for name, a in analysed(path, range_name, device, rules, classes).items()}


def analysed(
    path: Path,
    range_name: str | None = None,
    device: int | None = None,
    rules: tuple[Rule, ...] = (),
    classes: Classes = COMMUNICATION,
) -> dict[str, Analysed]:
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

    def of_file(file: Path) -> Analysed:
        with open_trace(file, classes) as trace:
            return Analysed(analysis_of(trace, range_name, device, rules), trace.devices)

    if not path.is_dir():
        return {path.name: of_file(path)}
    traced = {record.name: record.part("trace") for record in manifest.read(path).variants}
    analyses = {name: of_file(path / part.file) for name, part in traced.items() if part is not None}
    if not analyses:
        raise CaptureError(f"{path} contains no trace", "capture again with --tools nsys or torch")
    return analyses


def analysis_of(
    trace: Trace,
    range_name: str | None = None,
    device: int | None = None,
    rules: tuple[Rule, ...] = (),
    prepared: tuple[DeviceView, ...] | None = None,
    details: bool = True,
) -> Analysis:
    """All numbers of a trace, with the findings.

    Args:
        prepared: its views, where the caller has them.
        details: with what ``broken_down`` adds; never for the windows of a range.
    """
    prepared = views(trace, device) if prepared is None else prepared
    analysis = analyze(trace, range_name, device, prepared)
    judged = scenes(trace, prepared, analysis, range_name)
    analysis = replace(analysis, findings=find(judged, rules), judged=tuple(scene.judged for scene in judged))
    return analysis if range_name is not None or not details else broken_down(trace, judged, analysis)


def broken_down(trace: Trace, judged: tuple[Scene, ...], analysis: Analysis) -> Analysis:
    """The analysis of a whole trace with what its page shows: passes, costs of kernels, the tree of ranges, copies by size.

    Args:
        judged: the scenes of all its devices.
    """
    devices = tuple(scene.view for scene in judged)
    of_device = {view.index: [k for k in analysis.kernels if k.device == view.index] for view in devices}
    kernels = tuple(kernel for view in devices for kernel in costed(view, of_device[view.index]))
    repeated = (passes_of(trace, view) for view in devices)
    return replace(
        analysis,
        kernels=kernels,
        families=families(
            kernels, {s.view.index: owners(s.view) for s in judged}, {s.view.index: s.focus.pieces for s in judged}
        ),
        passes=tuple(passes for passes in repeated if passes is not None),
        range_tree=range_tree(trace, devices),
        copy_sizes=tuple(sizes for view in devices for sizes in copy_sizes(view)),
        memory=memory_use(trace),
    )


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
