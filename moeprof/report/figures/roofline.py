"""Points and ceilings -> the roofline figure and its tables; the page of a session draws its steps with the same lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import plotly.graph_objects as go

from moeprof import units
from moeprof.kernels.roofline import Ceiling
from moeprof.kernels.roofline_points import WHOLE, Point, Roofline
from moeprof.report.figures.style import COLOURS, FASTER, SLOWER, TOTAL
from moeprof.report.page import Table

DASHES = ("solid", "dash", "dot")
SHARED = 0.05  # of the drawn decades: nearer marks share a label
MARGIN = 3.0  # the factor that is left free around the points
SCALES = {"FLOP/s": ("TFLOP/s", 1e12), "byte/s": ("GB/s", 1e9)}


@dataclass(frozen=True)
class Mark:
    """A point as drawn; ``series`` is its entry in the legend."""

    series: str
    x: float  # FLOP a byte
    y: float  # FLOP/s
    text: str
    colour: str = TOTAL
    symbol: str = "circle"
    label: str = ""


def figure(
    roofline: Roofline, baseline: str | None, optimized: str | None, colours: Mapping[str, str]
) -> go.Figure | None:
    """The variants' kernels under the ceilings, with arrows from the baseline to the optimized variant; None without points."""
    if not roofline.points:
        return None
    marks = [
        Mark(
            p.variant, p.intensity, p.flop_per_s, f"{units.short_kernel(p.kernel, 32)}, {p.launches} launched", colours[p.variant],
            "diamond-open" if p.kernel == WHOLE else "circle",
        )
        for p in roofline.points
    ]  # fmt: skip
    drawn = canvas(roofline.ceilings, marks, "FLOP for a byte of device memory")
    add_marks(drawn, marks)
    for start, end in _pairs(roofline, baseline, optimized):
        add_arrow(
            drawn,
            (start.intensity, start.flop_per_s),
            (end.intensity, end.flop_per_s),
            end.flop_per_s >= start.flop_per_s,
        )
    return drawn


def _pairs(roofline: Roofline, baseline: str | None, optimized: str | None) -> list[tuple[Point, Point]]:
    """The longest kernel of one with that of the other, and the whole with the whole."""
    sides = [roofline.of(baseline), roofline.of(optimized)]
    longest = [next((p for p in side if p.kernel != WHOLE), None) for side in sides]
    whole = [next((p for p in side if p.kernel == WHOLE), None) for side in sides]
    return [(a, b) for a, b in (longest, whole) if a is not None and b is not None]


def canvas(ceilings: Sequence[Ceiling], marks: Sequence[Mark], axis: str) -> go.Figure:
    """The ceilings as lines over the part of the plane with the marks; both axes logarithmic."""
    flat = [c for c in ceilings if c.unit == "FLOP/s"]
    slopes = [c for c in ceilings if c.unit == "byte/s"]
    ridges = [f.per_s / s.per_s for f in flat for s in slopes]
    low, high = _bounds([m.x for m in marks] + ridges)
    top = max((c.per_s for c in flat), default=math.inf)
    drawn = go.Figure()
    for number, c in enumerate(slopes):
        end = min(high, top / c.per_s)
        _line(drawn, [(low, low * c.per_s), (end, end * c.per_s)], c, DASHES[number % len(DASHES)])
    steepest = max((c.per_s for c in slopes), default=0.0)
    for number, c in enumerate(flat):
        start = max(low, c.per_s / steepest) if steepest else low
        _line(drawn, [(start, c.per_s), (high, c.per_s)], c, DASHES[number % len(DASHES)])
    heights = [m.y for m in marks] + [c.per_s for c in flat]
    if not flat:
        heights += [high * c.per_s for c in slopes]
    bottom, over = _bounds(heights)
    drawn.update_layout(
        xaxis={"type": "log", "title": {"text": axis}, "range": [_log(low), _log(high)], "dtick": 1, "exponentformat": "power"},
        yaxis={"type": "log", "title": {"text": "FLOP/s"}, "range": [_log(bottom), _log(over)], "dtick": 1, "exponentformat": "power"},
        height=460, margin={"t": 28, "b": 110}, hovermode="closest", legend={"orientation": "h", "yanchor": "top", "y": -0.2, "x": 0},
    )  # fmt: skip
    return drawn


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    return min(values) / MARGIN, max(values) * MARGIN


def _log(value: float) -> float:
    return round(math.log10(value), 4)


def _line(drawn: go.Figure, ends: list[tuple[float, float]], ceiling: Ceiling, dash: str) -> None:
    drawn.add_scatter(
        x=[_digits(x) for x, _ in ends], y=[_digits(y) for _, y in ends], mode="lines", name=named(ceiling),
        line={"color": TOTAL, "width": 1.6, "dash": dash}, hovertemplate=f"{named(ceiling)}<extra></extra>",
    )  # fmt: skip


def named(ceiling: Ceiling) -> str:
    """A ceiling with its number: gemm_tflop_per_s 554.0 TFLOP/s, measured."""
    unit, scale = SCALES[ceiling.unit]
    return f"{ceiling.name} {units.rate(ceiling.per_s / scale)} {unit}, {'measured' if ceiling.measured else 'by ncu'}"


def add_marks(drawn: go.Figure, marks: Sequence[Mark]) -> None:
    """The points, one entry of the legend a series."""
    for series in dict.fromkeys(m.series for m in marks):
        entries = [m for m in marks if m.series == series]
        drawn.add_scatter(
            x=[_digits(m.x) for m in entries], y=[_digits(m.y) for m in entries], mode="markers+text" if any(m.label for m in entries) else "markers",
            name=series, text=[m.label for m in entries], textposition="middle right", customdata=[m.text for m in entries],
            marker={"size": [16 if m.symbol == "diamond-open" else 11 for m in entries], "color": [m.colour for m in entries], "symbol": [m.symbol for m in entries], "opacity": 1, "line": {"width": [2.5 if m.symbol == "diamond-open" else 1 for m in entries], "color": COLOURS["edge"]}},
            hovertemplate=f"{series}: %{{customdata}}<br>%{{x:.3s}} FLOP/byte, %{{y:.3s}}FLOP/s<extra></extra>",
        )  # fmt: skip


def apart(marks: Sequence[Mark]) -> list[Mark]:
    """The marks with their labels where these do not meet: marks that lie together share one, on the first of them."""
    wide, tall = (
        max(SHARED * (_log(max(v)) - _log(min(v)) + 1.0), 1e-9) for v in ([m.x for m in marks], [m.y for m in marks])
    )
    groups: list[list[Mark]] = []
    for mark in marks:
        near = [
            g for g in groups if abs(_log(g[0].x) - _log(mark.x)) < wide and abs(_log(g[0].y) - _log(mark.y)) < tall
        ]
        near[0].append(mark) if near else groups.append([mark])
    return [replace(m, label=_labels(group) if i == 0 else "") for group in groups for i, m in enumerate(group)]


def _labels(group: Sequence[Mark]) -> str:
    """0, 3, 4; of many the first and the last."""
    names = [m.label for m in group]
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:2])} … {names[-1]}"


def add_arrow(drawn: go.Figure, start: tuple[float, float], end: tuple[float, float], better: bool) -> None:
    """An arrow between two points; annotations on a logarithmic axis take its exponents."""
    if math.dist([_log(v) for v in start], [_log(v) for v in end]) < 0.01:  # one point on the other
        return
    drawn.add_annotation(
        x=_log(end[0]), y=_log(end[1]), ax=_log(start[0]), ay=_log(start[1]), xref="x", yref="y", axref="x", ayref="y", text="", showarrow=True,
        arrowhead=2, arrowsize=1.2, arrowwidth=1.8, arrowcolor=FASTER if better else SLOWER, standoff=8, startstandoff=8, opacity=0.85,
    )  # fmt: skip


def _digits(value: float) -> float:
    return float(f"{value:.6g}")


def table(roofline: Roofline) -> Table:
    """The numbers of the points."""
    rows = [
        (
            p.variant, p.kernel if p.kernel == WHOLE else units.short_kernel(p.kernel, 40), str(p.launches), units.rate(p.flops / 1e9), p.pipe, units.size(p.dram_bytes),
            units.us(p.time_ns), units.rate(p.intensity), units.rate(p.flop_per_s / 1e12),
        )
        for p in roofline.points
    ]  # fmt: skip
    header = (
        "variant",
        "kernels",
        "launches",
        "GFLOP",
        "mostly by",
        "DRAM bytes",
        "time under ncu",
        "FLOP/byte",
        "TFLOP/s",
    )
    return Table("Points of the roofline", header, tuple(rows), detail="summary")


def roofs(roofline: Roofline) -> Table:
    """The lines."""
    rows = [(c.name, units.rate(c.per_s / SCALES[c.unit][1]), SCALES[c.unit][0], origin(c)) for c in roofline.ceilings]
    return Table("Ceilings", ("ceiling", "value", "unit", "where it is from"), tuple(rows), plain=True)


def origin(ceiling: Ceiling) -> str:
    """Where a ceiling's number is from."""
    return (
        "measured in this capture"
        if ceiling.measured
        else "a peak by ncu's counters, at the clocks of the counted kernels"
    )


def title(roofline: Roofline, optimized: str | None) -> str:
    """The finding, of a roofline with points: the optimized variant's longest kernel, or the highest point."""
    point = next(iter(roofline.of(optimized)), None) or max(roofline.points, key=lambda p: p.flop_per_s)
    what = WHOLE if point.kernel == WHOLE else units.short_kernel(point.kernel, 32)
    return f"Roofline: {point.variant}'s {what} does {units.rate(point.flop_per_s / 1e12)} TFLOP/s at {units.rate(point.intensity)} FLOP a byte"
