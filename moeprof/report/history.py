"""The page of a history: values with intervals, levels, change points, and where captures are unlike."""

from __future__ import annotations

import plotly.graph_objects as go

from moeprof import units
from moeprof.gate.history import Entry, History, levels, long_enough
from moeprof.gate.rule import Expectation
from moeprof.report.figures.style import COLOURS, FASTER, SLOWER, TOTAL
from moeprof.report.page import Bullets, Item, Page, Section, Table, section
from moeprof.storage.json import encode

LESS_IS_WORSE = ("of_limit", "tflop_per_s", "gb_per_s", "copy_overlap")
NOTE = (
    "Each point is one capture, its bar the 95 % interval of its clean times, or all its traced iterations. A thick line is the level "
    "(median) between changes; an upright line marks a change, found by E-divisive with a permutation test at 5 % (docs/reference/gate.md). At a "
    "dotted line the captures are unlike: nothing is compared over it."
)


def number(value: float | None) -> str:
    """Four digits that matter."""
    return units.DASH if value is None else Expectation("<", 0, "").written(value)


def said(entry: Entry, unit: str) -> str:
    """The change with its size, or what breaks the history, or why there is no value."""
    parts = [f"UNLIKE: {', '.join(str(n.evidence['what']) for n in entry.breaks)}"] if entry.breaks else []
    if entry.change is not None:
        change = entry.change
        how = "exact" if change.p is None else f"p = {change.p:.3f}"
        ratio = "" if change.ratio is None else f" ({change.ratio - 1:+.1%})"
        parts.append(f"CHANGE: {number(change.before)} to {number(change.after)} {unit}".strip() + f"{ratio}, {how}")
    return "; ".join([*parts, *([entry.missing] if entry.missing else [])])


def table(history: History) -> Table:
    """All captures, one a row."""
    rows = [
        (
            str(place), e.capture, units.moment(e.created), e.git or units.DASH, e.gpu or units.DASH, number(e.value.value if e.value else None),
            f"{number(e.value.low)} to {number(e.value.high)}" if e.value else units.DASH, e.verdict or units.DASH, said(e, history.unit),
        )
        for place, e in enumerate(history.entries, start=1)
    ]  # fmt: skip
    heading = f"{history.metric}, {history.unit}" if history.unit else history.metric
    header = ("no.", "capture", "made", "git", "GPU", heading, "interval", "against the one before", "what changed")
    return Table(f"{history.workload}/{history.variant}", header, tuple(rows), plain=True, detail="summary")


def title(history: History) -> str:
    """What the history shows, in a sentence."""
    changes = [(place, e) for place, e in enumerate(history.entries, start=1) if e.change is not None]
    breaks = sum(bool(e.breaks) for e in history.entries)
    tail = f"; the captures are unlike at {breaks} place{'s' * (breaks > 1)}" if breaks else ""
    count = f"{len(history.entries)} capture{'s' * (len(history.entries) != 1)}"
    if not changes and history.notes and not long_enough(history):
        return f"{history.metric} of {history.variant}: {count}, too few to look for changes{tail}"
    if not changes:
        return f"{history.metric} of {history.variant}: no change found in {count}{tail}"
    where = ", ".join(f"{place} ({e.capture})" for place, e in changes[:4]) + (" and more" if len(changes) > 4 else "")
    return f"{history.metric} of {history.variant}: {len(changes)} change{'s' * (len(changes) > 1)} in {count}, at {where}{tail}"


def page(history: History) -> Page:
    """The history as one section, where the captures are unlike, and the notes."""
    breaks = [f"{place}: {n.text}" for place, e in enumerate(history.entries, start=1) for n in e.breaks]
    sections = (
        section("history", title(history), NOTE, figure(history), (table(history),)),
        *_listed("unlike", "Where the captures are unlike", [Item(text) for text in breaks], "notes warning"),
        *_listed("notes", "Notes", [Item(text, detail="summary") for text in history.notes], "notes"),
    )
    lead = f"The history of {history.metric} over captures, in the order in which they were made."
    return Page(f"{history.workload}/{history.variant}", lead, sections, title(history), encode(history))


def _listed(id: str, heading: str, items: list[Item], style: str) -> tuple[Section, ...]:
    return (Section(id, heading, below=(Bullets(tuple(items)),), style=style),) if items else ()


def figure(history: History) -> go.Figure | None:
    """Points with intervals, the level of each segment, changes and breaks."""
    points = [(x, e, e.value) for x, e in enumerate(history.entries, start=1) if e.value is not None]
    if not points:
        return None
    drawn = go.Figure()
    for level in levels(history):
        ends = [level.first - 0.4, level.last + 0.4]
        drawn.add_scatter(x=ends, y=[level.value, level.value], mode="lines", line={"color": TOTAL, "width": 4}, opacity=0.45, showlegend=False, hoverinfo="skip")  # fmt: skip
    drawn.add_scatter(
        x=[x for x, _, _ in points], y=[v.value for _, _, v in points], mode="markers", marker={"size": 8, "color": COLOURS["compute"]}, showlegend=False,
        error_y={"type": "data", "symmetric": False, "array": [v.high - v.value for _, _, v in points], "arrayminus": [v.value - v.low for _, _, v in points]},
        text=[f"{e.capture}<br>{units.moment(e.created)}<br>git {e.git or units.DASH}" for _, e, _ in points], hovertemplate="%{text}<br>%{y}<extra></extra>",
    )  # fmt: skip
    for x, entry, _ in points:
        _mark(drawn, x, entry, history.metric)
    unit = f"{history.metric}, {history.unit}" if history.unit else history.metric
    drawn.update_layout(xaxis_title="capture, in order", yaxis_title=unit, height=420, margin_t=60)
    drawn.update_xaxes(
        tickmode="array",
        tickvals=[x for x, _, _ in points][:: max(1, len(points) // 20)],
        range=[0.3, len(history.entries) + 0.7],
    )
    return drawn


def _mark(drawn: go.Figure, x: int, entry: Entry, metric: str) -> None:
    """An upright line before a capture with which something changed."""
    if entry.change is not None:
        grown = entry.change.after > entry.change.before
        colour = SLOWER if grown != (metric in LESS_IS_WORSE) else FASTER
        ratio = entry.change.ratio
        text = f"{entry.change.after - entry.change.before:+g}" if ratio is None else f"{ratio - 1:+.1%}"
        drawn.add_vline(
            x=x - 0.5,
            line={"color": colour, "width": 2},
            annotation={"text": text, "yref": "paper", "y": 1.08, "showarrow": False},
        )
    elif entry.breaks:
        what = ", ".join(str(n.evidence["what"]) for n in entry.breaks[:2]) + (" ..." if len(entry.breaks) > 2 else "")
        drawn.add_vline(x=x - 0.5, line={"color": TOTAL, "width": 1, "dash": "dot"}, annotation={"text": f"other {what}", "yref": "paper", "y": 1.08, "showarrow": False})  # fmt: skip
