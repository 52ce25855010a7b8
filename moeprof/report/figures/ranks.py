"""Figures of a group of ranks: how late ranks are by cause, and heat maps of rank by window.

A heat map is within BOUNDS: the latest ranks have a row each, the others share bands, so that a
straggler among 1,024 ranks is visible. A page of any number of ranks stays below 4 MB.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from moeprof.ranks.heat import Bounds, Heat
from moeprof.ranks.model import CAUSES, EARLIER, GroupAnalysis
from moeprof.ranks.totals import by_lateness
from moeprof.report.figures.style import COLOURS

BOUNDS = Bounds(rows=80, single=16, columns=200)
ROW_HEIGHT, LEAST_HEIGHT = 11, 240  # pixels
LEAST_SCALE = 5  # percent at which a colour is full, at the least: noise stays pale
MOST_TICKS = 16
LATEST = 8  # ranks with a bar
SMALL_FONT = 9  # pixels, of the labels of more rows than ROOMY
ROOMY = 24
CAUSE_COLOURS = dict(
    zip(
        (*CAUSES, EARLIER),
        (COLOURS[c] for c in ("compute", "copy", "launch", "sync", "host", "dependency", "communication")),
        strict=True,
    )
)


def stragglers(analysis: GroupAnalysis) -> go.Figure | None:
    """How late the latest ranks were: a bar is as long as the delay, its colours are shares of what the rank did longer than the middle one.

    What it did shorter makes the longer parts sum to more than the delay; so these are no lengths of their own.
    """
    late = [r for r in by_lateness(analysis.ranks) if r.lateness and r.lateness.late_ns > 0]
    latest = late[:LATEST][::-1]
    if not latest:
        return None
    figure = go.Figure()
    for cause, colour in CAUSE_COLOURS.items():
        values = [r.lateness.late_ns * _share(r.lateness.because, cause) for r in latest if r.lateness]
        if any(values):
            figure.add_bar(
                y=[f"rank {r.place.rank}" for r in latest], x=np.round(np.array(values) / 1e6, 6), orientation="h", name=cause, marker_color=colour,
                hovertemplate=f"%{{y}}, {cause}: %{{x:.3f}} ms of its delay<extra></extra>",
            )  # fmt: skip
    figure.update_layout(
        barmode="stack", xaxis_title="ms behind the middle rank, by cause", height=130 + 28 * len(latest),
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "traceorder": "normal"},
    )  # fmt: skip
    return figure


def _share(because: Mapping[str, int], cause: str) -> float:
    """Of what a rank did longer."""
    longer = sum(ns for ns in because.values() if ns > 0)
    return max(because.get(cause, 0), 0) / longer if longer else 0.0


def heat(analysis: GroupAnalysis, shares: Heat, key: str, colour: str) -> go.Figure:
    """Rank x window, in percent of the window."""
    labels, cells = labels_of(shares), shares.shares
    columns, axis = _columns(analysis, cells.shape[1])
    top = 100 if key == "busy" else max(LEAST_SCALE, int(np.ceil(100 * cells.max())))
    figure = go.Figure(
        go.Heatmap(
            z=np.round(100 * cells, 1).tolist(), x=columns, y=labels, zmin=0, zmax=top,
            colorscale=[[0, "rgba(127,127,127,0.10)"], [1, colour]], colorbar={"ticksuffix": " %", "thickness": 12},
            hovertemplate="%{y}, " + axis + " %{x}: %{z:.1f} %<extra></extra>", xgap=0, ygap=1 if len(labels) <= ROOMY else 0,
        )
    )  # fmt: skip
    figure.update_layout(height=max(LEAST_HEIGHT, 110 + ROW_HEIGHT * len(labels)), xaxis_title=axis)
    if columns and len(columns) <= MOST_TICKS:
        figure.update_xaxes(tickvals=columns)
    figure.update_yaxes(type="category", tickvals=labels, autorange="reversed", showgrid=False, zeroline=False)
    if len(labels) > ROOMY:
        figure.update_yaxes(tickfont_size=SMALL_FONT)
    return figure


def labels_of(shares: Heat) -> list[str]:
    """The labels of the rows: a rank, or the first and last rank of a band."""
    return [f"rank {m[0]}" if len(m) == 1 else f"ranks {m[0]} to {m[-1]}" for m in shares.members]


def _columns(analysis: GroupAnalysis, count: int) -> tuple[list[float], str]:
    """The columns' positions, and what they are."""
    first = analysis.ranks[0]
    if first.slices:
        return [round(100 * (i + 0.5) / count, 2) for i in range(count)], "part of the trace, %"
    numbers = [w.instance if w.instance is not None else i for i, w in enumerate(first.windows)]
    picked = [
        float(part[0])
        for part in np.array_split(
            np.array(numbers[: max(count, 1)] if len(numbers) <= BOUNDS.columns else numbers), count
        )
    ]
    return picked, first.windows[0].range or "window"
