"""A group of ranks for the terminal and as a page: lanes of few ranks, heat maps of many.

A heat map has at most ROWS rows and COLUMNS columns: the latest ranks keep a row each, the others share bands, so that a
straggler among 1,024 ranks is seen. A page of any number of ranks stays below 8 MB, most of it plotly.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from rich.console import Group, RenderableType
from rich.text import Text

from moeprof.ranks.lanes import COMPUTE, MOVING, OTHER, UNMATCHED, WAITING, RankLane, drawn_window
from moeprof.ranks.model import CAUSES, EARLIER, GroupAnalysis, Rank
from moeprof.report import format as fmt
from moeprof.report import rankrows
from moeprof.report.figures.style import COLOURS, SLOWER
from moeprof.report.figures.timeline import Lane, timeline
from moeprof.report.html import Section, filled, section
from moeprof.report.tables import Table
from moeprof.report.text import rendered, rich_table

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
SHARES = (
    ("waiting", "Waiting for other ranks", SLOWER, "Share of each window in which a collective of the rank waits for the last rank to arrive and nothing computes. The rank that is waited for is pale where the others are dark."),
    ("moving", "Exposed communication that moves", COLOURS["communication"], "Share of each window in which a collective moves data (or was not matched) and nothing computes."),
    ("busy", "Busy", COLOURS["compute"], "Share of each window in which the GPU computes or copies."),
)  # fmt: skip

TERMS = (
    ("arrival", "The start of a rank's communication kernel."),
    ("skew", "From the first rank's arrival at a collective to the last one's."),
    ("waiting, moving", "A kernel of a collective waits until the last rank has arrived; from then on it moves. The collective as a whole moves from the last arrival to the last end."),
    ("bus bandwidth", "Bytes over the moving time, times what nccl-tests sets for the kind: 2(n-1)/n for an all-reduce, (n-1)/n for an all-to-all. It is comparable with the link's own speed for any number of ranks."),
    ("hidden, exposed", "Communication under which compute kernels of the same GPU run, and the rest."),
    ("middle rank", "The rank whose arrival at a collective is the median: against it a late one is measured."),
    ("behind", "How much later than the middle rank a rank arrived, summed where it arrived later. It splits exactly by what the rank did more than the middle one since the collective before."),
    ("straggler", "A rank that is behind by more than 1 % of its time and by more than three times the median of the others."),
    ("critical rank", "The rank that decides when a window ends: the one whose late arrivals add up to most."),
)  # fmt: skip


def text(analysis: GroupAnalysis) -> str:
    """The short form, bounded whatever the number of ranks."""
    head = f"{analysis.source}" + (f", {analysis.variant}" if analysis.variant else "")
    parts: list[RenderableType] = [Text(head, style="bold"), *(Text(s) for s in rankrows.sentences(analysis))]
    many = len(analysis.ranks) > rankrows.MOST_ROWS
    tables = (
        rankrows.stragglers(analysis), rankrows.ranks(analysis), *((rankrows.spread(analysis),) if many else ()), rankrows.collectives(analysis), rankrows.classes(analysis),
        rankrows.critical(analysis), rankrows.loads(analysis),
    )  # fmt: skip
    parts += [rich_table(t) for t in tables if t.rows]
    parts += [Text(f"{n.severity}: {n.text}") for n in analysis.notes]
    return rendered(Group(*parts))


def render(pages: tuple[tuple[GroupAnalysis, tuple[RankLane, ...]], ...]) -> str:
    """The page of one group, or of the variants of a capture one under the other."""
    sections = [
        s
        for number, (analysis, lanes) in enumerate(pages)
        for s in _sections(analysis, lanes, f"-{number}" if number else "")
    ]
    sentences = [
        (f"{analysis.variant}: " if analysis.variant else "") + sentence
        for analysis, _ in pages for sentence in rankrows.sentences(analysis)
    ]  # fmt: skip
    notes = [n for analysis, _ in pages for n in analysis.notes]
    return filled(
        "ranks.html.j2", title=pages[0][0].source, sentences=sentences, sections=sections, notes=notes, terms=TERMS
    )


def _sections(analysis: GroupAnalysis, lanes: tuple[RankLane, ...], suffix: str) -> list[Section]:
    where = f"{analysis.variant}: " if analysis.variant else ""
    found = [_ranks(analysis), _lanes(analysis, lanes), *_heats(analysis), _communication(analysis), _collectives(analysis), _load(analysis)]  # fmt: skip
    return [replace(s, id=s.id + suffix, title=where + s.title) for s in found if s is not None]


def _ranks(analysis: GroupAnalysis) -> Section:
    note = "Sums over each rank's windows. Last: at how many collectives it arrived last; behind: how far behind the middle rank, in all, where it came behind; mostly: what it did longer."
    many = (rankrows.spread(analysis),) if len(analysis.ranks) > rankrows.MOST_ROWS else ()
    shown = (rankrows.stragglers(analysis), rankrows.ranks(analysis), *many)
    return section("ranks", "Who is late, and why", note, stragglers(analysis), shown)


def _lanes(analysis: GroupAnalysis, lanes: tuple[RankLane, ...]) -> Section | None:
    """The window of each rank; without lanes the critical ranks alone."""
    found = rankrows.critical(analysis)
    if not lanes:
        note = "The rank that the others waited for most; where nobody waited, the one that ends last."
        return section("critical", "Which rank decided each window", note, None, (found,)) if found.rows else None
    several = len(lanes) < len(analysis.ranks)
    whose = (
        f"{len(lanes)} of {len(analysis.ranks)} ranks, the latest and those that wait most,"
        if several
        else "every rank"
    )
    note = f"Window {drawn_window(analysis)} of {whose} on one clock. A collective waits until the last rank has arrived, then moves."
    return section("lanes", "One window of each rank", note, timeline([_lane(lane) for lane in lanes]), (found,))


def _heats(analysis: GroupAnalysis) -> list[Section]:
    known = any(r.waits_known for r in analysis.ranks)
    return [
        section(
            key, title, note + _rows_note(analysis), heat(analysis, key, colour), (heat_table(analysis, key, title),)
        )
        for key, title, colour, note in SHARES
        if key != "waiting" or known
    ]


def _communication(analysis: GroupAnalysis) -> Section | None:
    found = rankrows.classes(analysis)
    note = "Hidden is what runs under compute kernels of the same GPU: |N ∩ K|; exposed is the rest."
    return section("communication", "Hidden and exposed communication", note, None, (found,)) if found.rows else None


def _collectives(analysis: GroupAnalysis) -> Section | None:
    found, ceiling = rankrows.collectives(analysis), analysis.link_ceiling_gb_per_s
    note = "Matched by order within kind, communicator and stream. Bus bandwidth as nccl-tests defines it, over the time from the last arrival to the last end; its median and its best."
    note += f" The link's ceiling: {fmt.rate(ceiling)} GB/s." if ceiling else " The link's ceiling is not known."
    return section("collectives", "Collectives across ranks", note, None, (found,)) if found.rows else None


def _load(analysis: GroupAnalysis) -> Section | None:
    note = "Does the load of the experts on a rank explain its compute time?"
    return section("load", "Load and time", note, None, (rankrows.loads(analysis),)) if analysis.load else None


def _rows_note(analysis: GroupAnalysis) -> str:
    if len(analysis.ranks) <= ROWS:
        return ""
    return f" The {OWN_ROWS} latest ranks have a row each at the top; the others share {ROWS - OWN_ROWS} bands, drawn as their mean."


def _lane(lane: RankLane) -> Lane:
    bars = [
        (name, LANE_COLOURS[name], pd.DataFrame({"start_ns": part.starts, "end_ns": part.ends}))
        for name, part in lane.parts
    ]
    return Lane(f"rank {lane.rank}", tuple(bars))


def stragglers(analysis: GroupAnalysis) -> go.Figure | None:
    """How late the latest ranks were, by cause; what a rank did less of than the middle one is left out of the bars."""
    found = [r for r in rankrows.by_lateness(analysis.ranks) if r.lateness and r.lateness.late_ns > 0][
        : rankrows.LATEST
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


def heat_table(analysis: GroupAnalysis, key: str, title: str) -> Table:
    """The rows of a heat map: their least, mean and largest share."""
    labels, cells = rows_of(analysis, key)
    rows = [
        (label, *(fmt.percent(float(f(row))) for f in (np.min, np.mean, np.max)))
        for label, row in zip(labels, cells, strict=True)
    ]
    return Table(f"{title}, share of a window", ("ranks", "least", "mean", "most"), tuple(rows))


def rows_of(analysis: GroupAnalysis, key: str) -> tuple[list[str], np.ndarray]:
    """Labels and shares [rows, columns] of a heat map: every rank, or the latest ones and bands of the others."""
    width = min(len(_shares(r, key)) for r in analysis.ranks)
    values = {r.place.rank: _narrowed(_shares(r, key)[:width]) for r in analysis.ranks}
    if len(values) <= ROWS:
        return [f"rank {rank}" for rank in values], np.stack(list(values.values()))
    own = [r.place.rank for r in rankrows.by_lateness(analysis.ranks)[:OWN_ROWS]]
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
