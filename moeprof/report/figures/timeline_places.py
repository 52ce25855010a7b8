"""Places in a timeline: where a finding shows, and where the passes of a loop begin."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from moeprof.analysis import steps
from moeprof.analysis.device import DeviceView
from moeprof.analysis.model import Finding
from moeprof.analysis.projection import projected, tiled
from moeprof.findings.steady_state import LEAST_PASSES, Focus, focus
from moeprof.trace import Trace

REGULAR = (0.5, 2.0)  # of the median distance: passes whose distances lie outside are no loop
LEAST_REACH = 0.6  # of the part that repeats that its passes must reach over
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


@dataclass(frozen=True)
class Pass:
    """One repetition of the loop."""

    start_ns: int
    end_ns: int
    label: str


def flags_of(findings: Iterable[Finding], start: int, end: int) -> tuple[Flag, ...]:
    """The findings' places inside [start, end): that of the operation which its evidence names."""
    flags = []
    for number, finding in enumerate(findings, 1):
        example = next((finding.evidence[k] for k in EXAMPLES if finding.evidence.get(k)), None)
        if not isinstance(example, dict) or "start_ns" not in example:
            continue
        worst = example.get("worst", {})
        at = int(worst.get("from_ns", example["start_ns"]))
        if start <= at < end:
            match = re.match(r"device (-?\d+)", finding.where)
            device = int(match[1]) if match else -1
            flags.append(
                Flag(
                    number,
                    at,
                    int(worst.get("to_ns", at + int(example.get("duration_ns", 0)))),
                    device,
                    finding.id,
                    finding.claim,
                )
            )
    return tuple(flags)


def passes_of(trace: Trace, devices: Sequence[DeviceView]) -> tuple[Pass, ...]:
    """The passes of the device with the most work: its steps, where its launches show them; else the instances of its repeated range, else from one appearance to the next
    of an operation that comes once per pass; none where nothing repeats."""
    view = max(devices, key=lambda v: len(v.ops), default=None)
    if view is None or not len(view.ops):
        return ()
    step_spans = steps.find(trace, view)
    if step_spans is not None:
        word = "step" if step_spans.sure else "pass"
        bounds = zip(step_spans.starts, step_spans.ends, strict=True)
        return tuple(Pass(int(start), int(end), f"{word} {i}") for i, (start, end) in enumerate(bounds))
    judged = focus(trace, view)
    return _ranged(trace, view, judged) if judged.spans else _recurring(view, judged)


def median_pass(passes: Sequence[Pass]) -> Pass:
    """The pass of median length (of two the shorter; the first of equals); at least one is needed."""
    return sorted(passes, key=lambda p: (p.end_ns - p.start_ns, p.start_ns))[(len(passes) - 1) // 2]


def _ranged(trace: Trace, view: DeviceView, judged: Focus) -> tuple[Pass, ...]:
    rows = projected(trace, view.index)
    spans = {*judged.spans, *(() if judged.warm_up is None else (judged.warm_up,))}
    instances = [
        (int(r.first_ns), int(r.last_ns), str(r.name))
        for r in rows[rows["gpu_ops"] > 0].itertuples()
        if (int(r.start_ns), int(r.last_ns)) in spans and judged.label.startswith(f"{r.name} x ")
    ]
    instances.sort()
    ends = tiled([(a, b) for a, b, _ in instances])
    return tuple(Pass(a, end, f"{name} {i}") for i, ((a, _, name), end) in enumerate(zip(instances, ends, strict=True)))


def _recurring(view: DeviceView, judged: Focus) -> tuple[Pass, ...]:
    """From each appearance of the rarest operation that comes regularly to the next."""
    if not judged.repeats:
        return ()
    rows = np.flatnonzero(judged.pieces.contains(view.starts))
    kinds, starts = view.signatures[rows], view.starts[rows]
    reach = judged.end_ns - judged.start_ns
    best: tuple[int, int] | None = None
    marks = starts[:0]
    order = np.argsort(kinds, kind="stable")
    _, first = np.unique(kinds[order], return_index=True)
    for places in np.split(order, first[1:]):
        times = starts[np.sort(places)]
        if len(times) <= LEAST_PASSES or (best is not None and len(times) > best[0]):
            continue
        gap = np.diff(times)
        usual = float(np.median(gap))
        regular = usual > 0 and gap.min() >= REGULAR[0] * usual and gap.max() <= REGULAR[1] * usual
        if (
            regular
            and times[-1] - times[0] >= LEAST_REACH * reach
            and (best is None or (len(times), int(times[0])) < best)
        ):
            best, marks = (len(times), int(times[0])), times
    return tuple(Pass(int(a), int(b), f"pass {i}") for i, (a, b) in enumerate(pairwise(marks)))
