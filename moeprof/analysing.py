"""What ``moeprof analyze`` does: read a trace or a capture, and give its numbers with the findings."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from moeprof import manifest, tools
from moeprof.errors import CaptureError
from moeprof.findings import find
from moeprof.metrics.analysis import Analysis
from moeprof.metrics.analyze import analyze
from moeprof.trace import read
from moeprof.trace.reading import report_version


def analyse(path: Path, range_name: str | None, device: int | None) -> dict[str, Analysis]:
    """The analysis of one trace under the name of its file, or of each variant of a capture under the variant's name."""
    if not path.is_dir():
        return {path.name: _one(path, range_name, device)}
    found = {}
    for record in manifest.read(path).variants:
        part = record.part("trace")
        if part is not None:
            found[record.name] = _one(path / part.file, range_name, device)
    if not found:
        raise CaptureError(f"{path} holds no trace", "capture again with --tools nsys or torch")
    return found


def _one(path: Path, range_name: str | None, device: int | None) -> Analysis:
    with tempfile.TemporaryDirectory() as scratch:
        trace = read(_readable(path, Path(scratch)))
    analysis = analyze(trace, range_name, device)
    return replace(analysis, findings=find(analysis))


def _readable(path: Path, scratch: Path) -> Path:
    """The path itself; of a raw nsys report its export, by the nsys that is here (without one ``read`` says what to do)."""
    version = report_version(path)
    nsys = tools.find("nsys") if version else None
    return path if nsys is None else tools.export_report(nsys, path, scratch / f"{path.stem}.sqlite")
