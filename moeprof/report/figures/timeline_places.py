"""Places in a timeline: where a finding shows, and where the passes of a loop begin."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from moeprof.analysis.device import DeviceView, main_device
from moeprof.analysis.model import Finding
from moeprof.findings.passes import Span, spans_of
from moeprof.trace import Trace

EXAMPLES = ("example", "waiting", "ahead")  # keys of a finding's evidence that name an operation


@dataclass(frozen=True)
class Flag:
    """The place of a finding: ``number`` as the page counts findings, from 1; ``device`` or -1 where none is named."""

    number: int
    start_ns: int
    end_ns: int
    device: int
    id: str
    claim: str

    def encoded(self, zero_ns: int) -> list[Any]:
        """As the timeline's script reads it, in ns from ``zero_ns``."""
        return [self.number, self.start_ns - zero_ns, self.end_ns - zero_ns, self.device, self.id, self.claim]

    def fragment(self, zero_ns: int, around_ns: int = 3_000_000) -> str:
        """The URL fragment that shows the place, in ms from ``zero_ns``."""
        low, high = self.start_ns - zero_ns - around_ns, self.end_ns - zero_ns + around_ns
        return f"#t={max(low, 0) / 1e6:.3f}-{high / 1e6:.3f}"


def flags_of(findings: Iterable[Finding], start: int, end: int) -> tuple[Flag, ...]:
    """The findings' places inside [start, end): that of the operation which its evidence names."""
    found = []
    for number, finding in enumerate(findings, 1):
        example = next((finding.evidence[k] for k in EXAMPLES if finding.evidence.get(k)), None)
        if not isinstance(example, dict) or "start_ns" not in example:
            continue
        at = int(example["start_ns"])
        if start <= at < end:
            match = re.match(r"device (-?\d+)", finding.where)
            device = int(match[1]) if match else -1
            found.append(Flag(number, at, at + int(example.get("duration_ns", 0)), device, finding.id, finding.claim))
    return tuple(found)


def passes_of(trace: Trace, devices: Sequence[DeviceView]) -> tuple[Span, ...]:
    """The passes of the device with the most work."""
    view = main_device(devices)
    return () if view is None else spans_of(trace, view)


def median_pass(passes: Sequence[Span]) -> Span:
    """The pass of median length (of two the shorter; the first of equals); at least one is needed."""
    return sorted(passes, key=lambda p: (p.end_ns - p.start_ns, p.start_ns))[(len(passes) - 1) // 2]
