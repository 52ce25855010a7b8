"""What ``moeprof analyze`` does: read a trace or a capture, and give its numbers with the findings."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from moeprof.analysis.analyze import analyze
from moeprof.analysis.device import DeviceView, views
from moeprof.analysis.model import Analysis
from moeprof.errors import CaptureError, ToolError
from moeprof.findings.find import Rule, find
from moeprof.findings.steady_state import named
from moeprof.findings.what_if import Scene, judged
from moeprof.machine import tools
from moeprof.storage import manifest
from moeprof.trace import Trace, read
from moeprof.trace.classify import COMMUNICATION, Classes
from moeprof.trace.ncu import counters as ncu
from moeprof.trace.ncu import report
from moeprof.trace.open import report_version


def analyse(
    path: Path,
    range_name: str | None = None,
    device: int | None = None,
    rules: tuple[Rule, ...] = (),
    classes: Classes = COMMUNICATION,
) -> dict[str, Analysis]:
    """The analysis of one trace under the name of its file, or of each variant of a capture under the variant's name.

    ``rules`` are a user's own, asked after the built-in ones; ``classes`` name the kernels that move data between GPUs.
    """

    def one(file: Path) -> Analysis:
        with opened(file, classes) as trace:
            return analysis_of(trace, range_name, device, rules)

    if not path.is_dir():
        return {path.name: one(path)}
    found = {}
    for record in manifest.read(path).variants:
        part = record.part("trace")
        if part is not None:
            found[record.name] = one(path / part.file)
    if not found:
        raise CaptureError(f"{path} holds no trace", "capture again with --tools nsys or torch")
    return found


def counters(path: Path) -> Counters | None:
    """Hardware counters and ncu's rules, where ``path`` is a CSV or raw report of Nsight Compute; None for anything else."""
    if not path.is_file():
        return None
    if report.is_report(path):
        return Counters(path.name, report.read_report(path), report.read_rules(path))
    return Counters(path.name, ncu.read_counters(path), ncu.read_rules(path)) if ncu.is_counters(path) else None


@dataclass(frozen=True)
class Counters:
    """What ncu counted: the COUNTERS table, and what its rules said."""

    path: str
    table: pd.DataFrame
    rules: list[dict[str, Any]]

    def encoded(self) -> dict[str, Any]:
        """As JSON: kernels in launch order with their metrics in base units."""
        launches = [
            {
                "launch": int(launch), "kernel": str(rows["kernel"].iloc[0]), "device": int(rows["device"].iloc[0]),
                "stream": int(rows["stream"].iloc[0]), "grid": str(rows["grid"].iloc[0]), "block": str(rows["block"].iloc[0]),
                "metrics": {str(m): {"value": float(v), "unit": str(u)} for m, v, u in zip(rows["metric"], rows["value"], rows["unit"], strict=True)},
            }
            for launch, rows in self.table.groupby("launch", sort=True)
        ]  # fmt: skip
        source = {"path": self.path, "kind": "ncu", "producer": None, "schema": None}
        return {"schema_version": 1, "source": source, "launches": launches, "rules": self.rules}


@contextmanager
def opened(path: Path, classes: Classes = COMMUNICATION) -> Iterator[Trace]:
    """The trace at ``path``; a raw report of nsys is exported for as long as it takes to read it."""
    with tempfile.TemporaryDirectory() as scratch:
        yield replace(read(_readable(path, Path(scratch)), classes), path=path)


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
    return replace(analysis, findings=find(scenes(trace, prepared, analysis, range_name), rules))


def scenes(
    trace: Trace, prepared: tuple[DeviceView, ...], analysis: Analysis, range_name: str | None
) -> tuple[Scene, ...]:
    """What the rules judge on each device: the windows of the range that was asked for, or the part that repeats."""
    if range_name is None:
        return judged(trace, prepared)
    spans = {v.index: [(w.start_ns, w.end_ns) for w in analysis.windows if w.device == v.index] for v in prepared}
    return tuple(
        Scene(trace, view, named(spans[view.index], f"{range_name} x {len(spans[view.index])}"))
        for view in prepared
        if spans[view.index]
    )


def _readable(path: Path, scratch: Path) -> Path:
    """The path itself; of a raw nsys report its export, by the nsys that is here (without one ``read`` says what to do).

    Raises:
        ToolError: that nsys fails; where it is older than the report, both versions are named.
    """
    version = report_version(path)
    nsys = tools.find("nsys") if version else None
    if nsys is None or version is None:
        return path
    try:
        return tools.export_report(nsys, path, scratch / f"{path.stem}.sqlite")
    except ToolError as error:
        if _numbers(nsys.version or "") >= _numbers(version):
            raise
        raise ToolError(
            f"{path} was written by nsys {version}; the nsys here is {nsys.version}, too old to export it",
            "give nsys of that version or newer with MOEPROF_NSYS, or the export of one",
        ) from error


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
