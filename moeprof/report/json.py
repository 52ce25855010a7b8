"""Reports as JSON: the numbers of a comparison and its sentences in one document."""

from __future__ import annotations

from typing import Any

from moeprof.compare.traces import TraceComparison
from moeprof.compare.variants import Comparison
from moeprof.report.narrative import traces
from moeprof.report.narrative.narrative import Narrative
from moeprof.storage.json import encode


def comparison(numbers: Comparison, narrative: Narrative) -> dict[str, Any]:
    """A comparison of variants: the numbers with ``sentence``, ``reasons`` and ``closing``."""
    return {**encode(numbers), **encode(narrative)}


def two_traces(numbers: TraceComparison) -> dict[str, Any]:
    """A comparison of traces: the numbers, each device with its sentences as ``words``."""
    document: dict[str, Any] = encode(numbers)
    for encoded, device in zip(document["devices"], numbers.devices, strict=True):
        encoded["words"] = list(traces.sentences(device))
    return document
