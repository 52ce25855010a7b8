"""What ``moeprof analyze`` does: read a trace or a capture, and give its numbers with the findings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from moeprof import manifest
from moeprof.errors import CaptureError
from moeprof.findings import find
from moeprof.metrics.analysis import Analysis
from moeprof.metrics.analyze import analyze
from moeprof.trace import read


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
    trace = read(path)
    analysis = analyze(trace, range_name, device)
    return replace(analysis, findings=find(analysis))
