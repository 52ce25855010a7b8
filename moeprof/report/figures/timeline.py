"""One figure: a representative iteration of each variant on a shared axis, streams as lanes, NVTX above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from moeprof import units
from moeprof.analysis.intervals import union
from moeprof.analysis.model import Window
from moeprof.loaded.capture import Capture, CapturedVariant, representative
from moeprof.report.figures.style import COLOURS, COMPUTE_SHADES, KINDS, RANGE, TOTAL
from moeprof.trace import Trace
from moeprof.trace.classify import BLOCKING

MAX_EVENTS = (
    150_000  # above this a lane is an exact busy-fraction heat map (research: scattergl stays fluid up to here)
)
HEAT_CELLS = 2000
FAMILIES = 5  # kernel names that get a shade of their own in a lane
LANE_WIDTH = 16  # pixels of a bar


@dataclass(frozen=True)
class Lane:
    """One row of the figure: bars of one variant and stream, one colour a family."""

    label: str
    families: tuple[tuple[str, str, pd.DataFrame], ...]  # name, colour, rows with start_ns and end_ns


def lanes_of(study: Capture) -> list[Lane]:
    """The lanes of every variant that was traced, in order."""
    lanes: list[Lane] = []
    for variant in study.variants:
        window = representative(variant)
        if window is not None and variant.trace is not None:
            lanes += _lanes(variant, variant.trace, window)
    return lanes


def is_heavy(lanes: list[Lane]) -> bool:
    """Whether so many bars are to be drawn that they are reduced to busy fractions."""
    return sum(len(rows) for lane in lanes for _, _, rows in lane.families) > MAX_EVENTS


def timeline(lanes: list[Lane]) -> go.Figure:
    """The figure of at least one lane."""
    figure = go.Figure()
    seen: set[str] = set()
    heavy = is_heavy(lanes)
    for y, lane in enumerate(lanes):
        for name, colour, rows in lane.families:
            _add(figure, rows, y, name, colour, heavy, name not in seen)
            seen.add(name)
    figure.update_layout(
        height=130 + 30 * len(lanes),
        xaxis_title="µs from the start of the iteration",
        hovermode="closest",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        dragmode="zoom",
    )
    figure.update_xaxes(tickformat=",d")
    labels = [lane.label for lane in lanes]
    figure.update_yaxes(
        tickvals=list(range(len(lanes))),
        ticktext=labels,
        autorange="reversed",
        zeroline=False,
        fixedrange=True,
        showgrid=False,
    )
    return figure


def _lanes(variant: CapturedVariant, trace: Trace, window: Window) -> list[Lane]:
    name = variant.record.name
    ops = _inside(trace.ops[trace.ops["device"] == window.device], window)
    lanes = [_nvtx(name, window)]
    calls = _inside(trace.calls, window)
    if len(calls):
        blocking = calls["kind"].isin(BLOCKING)
        parts = (
            ("CUDA calls of the host", TOTAL, calls[~blocking]),
            ("synchronising calls", COLOURS["dependency"], calls[blocking]),
        )
        lanes.append(Lane(f"{name} · CUDA calls", tuple(part for part in parts if len(part[2]))))
    for stream, rows in ops.groupby("stream", sort=True):
        lanes.append(Lane(f"{name} · stream {stream}", tuple(_families(rows))))
    return lanes


def _nvtx(name: str, window: Window) -> Lane:
    """The iteration's range, projected on the GPU."""
    whole = pd.DataFrame({"start_ns": [0], "end_ns": [window.span_ns]})
    return Lane(f"{name} · NVTX {window.range} {window.instance}", (("NVTX range, projected", RANGE, whole),))


def _inside(rows: pd.DataFrame, window: Window) -> pd.DataFrame:
    """Rows that overlap the window, clipped to it, times from its start."""
    mine = rows[(rows["start_ns"] < window.end_ns) & (rows["end_ns"] > window.start_ns)]
    return mine.assign(
        start_ns=mine["start_ns"].clip(lower=window.start_ns) - window.start_ns,
        end_ns=mine["end_ns"].clip(upper=window.end_ns) - window.start_ns,
    )


def _families(rows: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Kernels by name (the longest ones first, the rest together), everything else by kind."""
    kernels = rows[rows["kind"] == "kernel"]
    spent = (kernels["end_ns"] - kernels["start_ns"]).groupby(kernels["name"].astype(str)).sum()
    top = list(spent.sort_values(ascending=False, kind="stable").index[:FAMILIES])
    found = [(units.short_kernel(n), COMPUTE_SHADES[i], kernels[kernels["name"] == n]) for i, n in enumerate(top)]
    rest = kernels[~kernels["name"].isin(top)]
    if len(rest):
        found.append(("other kernels", COMPUTE_SHADES[-1], rest))
    for kind, mine in rows[rows["kind"] != "kernel"].groupby(rows["kind"].astype(str), sort=True):
        for label, part in mine.groupby(mine["name"].astype(str), sort=True):
            text = f"copy {label}" if kind in ("copy", "migration") else units.short_kernel(str(label))
            found.append((text, KINDS[str(kind)], part))
    return found


def _add(figure: go.Figure, rows: pd.DataFrame, y: int, name: str, colour: str, heavy: bool, legend: bool) -> None:
    """A family's bars as one line with gaps, or as a strip of busy fractions where there are too many."""
    starts, ends = rows["start_ns"].to_numpy(), rows["end_ns"].to_numpy()
    if heavy:
        cells, level = _busy_fraction(starts, ends)
        figure.add_heatmap(
            x=cells,
            y=[y],
            z=[level],
            zmin=0,
            zmax=1,
            colorscale=[[0, "rgba(0,0,0,0)"], [1, colour]],
            showscale=False,
            name=name,
        )
        return
    x = np.column_stack([starts / 1e3, ends / 1e3, np.full(len(starts), np.nan)]).ravel()
    lane = np.full(len(x), float(y))
    figure.add_scattergl(
        x=x, y=lane, mode="lines", line={"color": colour, "width": LANE_WIDTH}, name=name, legendgroup=name, showlegend=legend,
        hovertemplate="%{x:.2f} µs<extra>%{fullData.name}</extra>", connectgaps=False,
    )  # fmt: skip


def _busy_fraction(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The exact share of each of HEAT_CELLS equal cells in which the family runs."""
    merged = union(starts, ends)
    edges = np.linspace(0, int(ends.max()), HEAT_CELLS + 1).astype(np.int64)
    covered = merged.covered(edges[:-1], edges[1:])
    return (edges[:-1] + edges[1:]) / 2e3, covered / np.maximum(np.diff(edges), 1)
