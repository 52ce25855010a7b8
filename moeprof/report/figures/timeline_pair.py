"""Timelines one above the other on one scale: the baseline's iteration over another variant's, or one trace over another.

They are linked: zoom and position are the same in all, each counted from its own zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup

from moeprof import units
from moeprof.analysis.device import DeviceView
from moeprof.analysis.intervals import EARLY
from moeprof.analysis.model import Window
from moeprof.loaded.analysed_trace import AnalysedTrace
from moeprof.loaded.capture import Capture, CapturedVariant
from moeprof.report.figures.timeline_canvas import timeline
from moeprof.report.figures.timeline_classes import NUMBER
from moeprof.report.figures.timeline_data import BUDGET, Timeline, timeline_data
from moeprof.report.figures.timeline_lanes import Part
from moeprof.report.figures.timeline_owners import owners
from moeprof.report.figures.timeline_places import Pass

MOST_BEFORE = (
    10  # iterations before the shown one that the recording reaches back, for launches that were made so early
)
PAD = 0.01  # of the longest iteration, beside it


@dataclass(frozen=True)
class Side:
    """One timeline of a pair: its title, its data, where its axis begins, and how long the part is that is shown first."""

    name: str
    detail: str
    data: Timeline
    zero_ns: int
    span_ns: int


def iterations(capture: Capture, prefix: str = "") -> tuple[Side, ...]:
    """The representative iteration of each traced variant, in the capture's order; ``prefix`` goes before the names."""
    traced = [v for v in capture.variants if v.trace is not None and v.representative is not None]
    return tuple(side for variant in traced if (side := _iteration(variant, prefix, BUDGET // len(traced))) is not None)


def _iteration(variant: CapturedVariant, prefix: str, budget: int) -> Side | None:
    window, trace = variant.representative, variant.trace
    view = None if window is None else next((v for v in variant.views if v.index == window.device), None)
    if window is None or trace is None or view is None:
        return None
    start = _begin(view, window)
    rows = view.overlapping(start, window.end_ns)
    ops = view.ops.iloc[rows].reset_index(drop=True)
    shown = DeviceView(view.index, ops, view.calls, view.streams, view.classes)
    data = timeline_data(
        trace, (shown,), variant.findings, _passes(variant, start, window), budget, Part(start, window.end_ns, (window.start_ns,))
    )  # fmt: skip
    zero, span = window.start_ns - start, window.span_ns
    owned = [
        [NUMBER[name], spent]
        for name, part in owners(shown, window.start_ns, window.end_ns).items()
        if (spent := part.clip(window.start_ns, window.end_ns).total_ns)
    ]
    groups = [data.payload["groups"][0] | {"owned": owned, "owned_span": span}]
    calls = view.call_starts[view.overlapping(window.start_ns, window.end_ns)]
    early = bool(((calls < start) & (calls > EARLY)).any())
    payload = data.payload | {"groups": groups, "home": [zero, zero + span], "early": early}
    detail = f"{window.range} {window.instance}, {units.ms(span)} traced"
    return Side(f"{prefix}{variant.record.name}", detail, replace(data, payload=payload), zero, span)


def trace_side(label: str, side: AnalysedTrace, passes: tuple[Pass, ...] | None) -> Side:
    """One of two whole traces with its ``passes``, from the beginning of its typical pass; first shown is what the trace's own page shows first."""
    data = timeline_data(side.trace, side.views, side.analysis.findings, passes, BUDGET // 2)
    first, last = data.payload["home"]
    zero = data.typical_ns or first
    return Side(label, side.name, data, zero, last - zero)


def _begin(view: DeviceView, window: Window) -> int:
    """The first launch call of the iteration's operations, at most MOST_BEFORE iterations before it."""
    calls = view.call_starts[view.overlapping(window.start_ns, window.end_ns)]
    least = window.start_ns - MOST_BEFORE * window.span_ns
    known = calls[(calls >= least) & (calls < window.start_ns)]
    return int(np.min(known)) if len(known) else window.start_ns


def _passes(variant: CapturedVariant, start: int, shown: Window) -> tuple[Pass, ...]:
    """The iterations from ``start`` to the shown one."""
    windows = variant.iterations.windows if variant.iterations else ()
    return tuple(
        Pass(max(w.start_ns, start), w.end_ns, f"{w.range} {w.instance}")
        for w in windows
        if w.end_ns > start and w.end_ns <= shown.end_ns
    )


def side_by_side(sides: Sequence[Side], first: str | None, second: str | None, id: str, style: str) -> Markup:
    """The timeline ``first`` above ``second``; where there are more, a choice for the lower place.

    Args:
        first, second: names of sides; a name that no side has, or None, stands for the first side, and for the last other one.
        id: begins the ids of the elements; unique on the page.
        style: class of the whole.
    """
    upper = next((s for s in sides if s.name == first), sides[0])
    lower_sides = [s for s in sides if s is not upper]
    lower = next((s for s in lower_sides if s.name == second), lower_sides[-1] if lower_sides else None)
    longest = max(s.span_ns for s in (upper, *([lower] if lower else [])))
    parts = [_title(upper), _figure(upper, f"{id}-0", longest, id)]
    if lower is not None:
        place = lower_sides.index(lower)
        parts.append(_title(lower) if len(lower_sides) == 1 else _choice(lower_sides, place, id))
        parts += [_figure(s, f"{id}-{n}", longest, id, s is not lower) for n, s in enumerate(lower_sides, 1)]
    return Markup('<div class="tl-pair {}">{}</div>').format(style, Markup("").join(parts))


def _title(side: Side) -> Markup:
    return Markup('<h3 class="tl-title">{} <span>{}</span></h3>').format(side.name, side.detail)


def _choice(sides: Sequence[Side], place: int, id: str) -> Markup:
    options = Markup("").join(
        Markup('<option value="{}-{}"{}>{}: {}</option>').format(
            id, n, Markup(" selected") if n == place + 1 else "", side.name, side.detail
        )
        for n, side in enumerate(sides, 1)
    )
    return Markup(
        '<h3 class="tl-title"><label>beside it <select class="tl-choice" data-key="{}-with">{}</select></label></h3>'
    ).format(id, options)


def _figure(side: Side, id: str, longest: int, link: str, hidden: bool = False) -> Markup:
    home = [side.zero_ns - PAD * longest, side.zero_ns + (1 + PAD) * longest]
    data = replace(side.data, payload=side.data.payload | {"home": [round(t) for t in home]})
    return timeline(data, id, side.name, "t" if link == "timeline" else link, link, side.zero_ns, hidden)
