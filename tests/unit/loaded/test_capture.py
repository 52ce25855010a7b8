"""A loaded capture: what is read when, how often, and that its analysis is whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders.sample_captures import SAMPLE, made

from moeprof.analysis.device import DeviceView
from moeprof.analysis.model import Analysis
from moeprof.errors import CaptureError, TraceError
from moeprof.loaded import capture
from moeprof.loaded.capture import CapturedVariant
from moeprof.loaded.trace import analyse

CACHED = {"trace", "counters", "views", "iterations", "findings", "analysis"}


def held(variant: CapturedVariant) -> set[str]:
    """What of a variant was read or computed so far."""
    return CACHED & set(vars(variant.recording))


def test_nothing_is_read_before_it_is_needed_and_then_once() -> None:
    loaded = capture.load(SAMPLE)
    baseline, overlap, graph = loaded.variants
    assert held(baseline) == set()
    assert graph.counters is not None and held(graph) == {"counters"}
    assert overlap.representative is not None and held(overlap) == {"trace", "views", "iterations"}
    assert overlap.trace is overlap.trace and overlap.views is overlap.views and overlap.analysis is overlap.analysis
    other = replace(overlap, record=replace(overlap.record, summary="another"))
    assert other.trace is overlap.trace, "another record does not read the trace again"
    assert held(baseline) == set()


def test_the_analysis_of_a_variant_is_the_one_of_its_trace_with_findings() -> None:
    loaded, expected = capture.load(SAMPLE), analyse(SAMPLE)
    assert list(expected) == [v.record.name for v in loaded.variants]
    for variant in loaded.variants:
        assert isinstance(variant.analysis, Analysis) and variant.analysis == expected[variant.record.name]
        assert variant.analysis.findings == variant.findings
    assert loaded.variants[0].findings, "the baseline of the sample has findings"


def test_the_main_device_is_the_one_of_the_iterations() -> None:
    variant = capture.load(SAMPLE).variants[0]
    assert isinstance(variant.main_device, DeviceView) and variant.iterations is not None
    assert {window.device for window in variant.iterations.windows} == {variant.main_device.index}


def test_a_missing_file_is_named_at_once_and_a_damaged_one_when_it_is_needed(tmp_path: Path) -> None:
    folder = made(tmp_path / "copy")
    part = capture.load(folder).variants[0].record.part("trace")
    assert part is not None
    (folder / part.file).write_bytes(b"no trace")
    variant = capture.load(folder).variants[0]
    with pytest.raises(TraceError, match="is no trace that moeprof reads"):
        _ = variant.analysis
    (folder / part.file).unlink()
    with pytest.raises(CaptureError, match=r"its manifest names .*trace.* not there"):
        capture.load(folder)
    bare = capture.bare(folder).variants[0]
    assert bare.trace is bare.counters is bare.iterations is bare.analysis is bare.representative is None
    assert bare.findings == bare.views == () and bare.main_device is None
