"""Figures of a group of ranks: how late ranks are by cause, and heat maps of rank by window.

A heat map has at most ROWS rows and COLUMNS columns: the latest ranks have a row each, the others share bands, so that a
straggler among 1,024 ranks is visible. A page of any number of ranks stays below 8 MB, most of it plotly.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from moeprof.ranks.lanes import COMPUTE, MOVING, OTHER, UNMATCHED, WAITING, RankLane
from moeprof.ranks.model import CAUSES, EARLIER, GroupAnalysis, Rank
from moeprof.report import rank_tables
from moeprof.report.figures.style import COLOURS, SLOWER
from moeprof.report.figures.timeline import Lane

ROWS, OWN_ROWS, COLUMNS = 80, 16, 200
ROW_HEIGHT, LEAST_HEIGHT = 11, 240  # pixels
LEAST_SCALE = 5  # percent at which a colour is full, at the least: noise stays pale
MOST_TICKS = 16
SMALL_FONT = 9  # pixels, of the labels of more rows than ROOMY
ROOMY = 24
LANE_COLOURS = {
    COMPUTE: COLOURS["compute"],
    OTHER: COLOURS["copy"],
    MOVING: COLOURS["communication"],
    WAITING: SLOWER,
    UNMATCHED: COLOURS["graph"],
}
CAUSE_COLOURS = dict(
    zip(
        (*CAUSES, EARLIER),
        (COLOURS[c] for c in ("compute", "copy", "launch", "sync", "host", "dependency", "communication")),
        strict=True,
    )
)


def lane(rank: RankLane) -> Lane:
    """The parts of a rank's window as a lane of a timeline."""
    bars = [
        (name, LANE_COLOURS[name], pd.DataFrame({"start_ns": part.starts, "end_ns": part.ends}))
        for name, part in rank.parts
    ]
    return Lane(f"rank {rank.rank}", tuple(bars))


def stragglers(analysis: GroupAnalysis) -> go.Figure | None:
    """How late the latest ranks were, by cause; what a rank did less of than the middle one is left out of the bars."""
    found = [r for r in rank_tables.by_lateness(analysis.ranks) if r.lateness and r.lateness.late_ns > 0][
        : rank_tables.LATEST
    ][::-1]
    if not found:
        return None
    figure = go.Figure()
    for cause, colour in CAUSE_COLOURS.items():
        values = [max(r.lateness.because.get(cause, 0), 0) for r in found if r.lateness]
        if any(values):
            figure.add_bar(
                y=[f"rank {r.place.rank}" for r in found], x=np.round(np.array(values) / 1e6, 6), orientation="h", name=cause, marker_color=colour,
                hovertemplate=f"%{{y}}, {cause}: %{{x:.3f}} ms more<extra></extra>",
            )  # fmt: skip
    figure.update_layout(
        barmode="stack", xaxis_title="ms more than the middle rank, where it came behind it", height=130 + 28 * len(found),
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "traceorder": "normal"},
    )  # fmt: skip
    return figure


def heat(analysis: GroupAnalysis, key: str, colour: str) -> go.Figure:
    """Rank x window, in percent of the window."""
    labels, cells = rows_of(analysis, key)
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


def rows_of(analysis: GroupAnalysis, key: str) -> tuple[list[str], np.ndarray]:
    """Labels and shares [rows, columns] of a heat map: every rank, or the latest ones and bands of the others."""
    width = min(len(_shares(r, key)) for r in analysis.ranks)
    values = {r.place.rank: _narrowed(_shares(r, key)[:width]) for r in analysis.ranks}
    if len(values) <= ROWS:
        return [f"rank {rank}" for rank in values], np.stack(list(values.values()))
    own = [r.place.rank for r in rank_tables.by_lateness(analysis.ranks)[:OWN_ROWS]]
    others = np.array_split(np.array([rank for rank in values if rank not in own]), ROWS - OWN_ROWS)
    labels = [f"rank {rank}" for rank in own] + [f"ranks {band[0]} to {band[-1]}" for band in others]
    return labels, np.stack(
        [*(values[r] for r in own), *(np.mean([values[int(r)] for r in band], axis=0) for band in others)]
    )


def _shares(rank: Rank, key: str) -> np.ndarray:
    """One share a window, or a slice of the trace where there is one window."""
    if rank.slices:
        return np.array([getattr(s, f"{key}_ratio") for s in rank.slices])
    found = []
    for w in rank.windows:
        waiting = w.exposed_waiting_ns or 0
        busy = w.span_ns - w.ledger.exposed_comm_ns - w.ledger.idle_ns
        part = {"waiting": waiting, "moving": w.ledger.exposed_comm_ns - waiting, "busy": busy}[key]
        found.append(part / w.span_ns if w.span_ns else 0.0)
    return np.array(found)


def _narrowed(values: np.ndarray) -> np.ndarray:
    """At most COLUMNS of them, as means of neighbours."""
    if len(values) <= COLUMNS:
        return values
    return np.array([part.mean() for part in np.array_split(values, COLUMNS)])


def _columns(analysis: GroupAnalysis, count: int) -> tuple[list[float], str]:
    """The columns' positions, and what they are."""
    first = analysis.ranks[0]
    if first.slices:
        return [round(100 * (i + 0.5) / count, 2) for i in range(count)], "part of the trace, %"
    numbers = [w.instance if w.instance is not None else i for i, w in enumerate(first.windows)]
    picked = [
        float(part[0])
        for part in np.array_split(np.array(numbers[: max(count, 1)] if len(numbers) <= COLUMNS else numbers), count)
    ]
    return picked, first.windows[0].range or "window"
