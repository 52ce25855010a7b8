"""Comparison -> plotly figures: waterfall, ledgers, overlap and link, launches. Axes in ms; theme is the page's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from moeprof import units
from moeprof.analysis.model import Window
from moeprof.analysis.waterfall import Bar
from moeprof.compare.row import Row
from moeprof.compare.variants import Comparison
from moeprof.report.figures.style import COLOURS, FASTER, IDLE, INSIDE, LEDGER, SLOWER, TOTAL

BAR_HEIGHT = 44  # pixels a horizontal bar
STEP_HEIGHT = 34  # pixels a step of a waterfall
WORTH_A_BAR = 0.01  # of the largest change
CUT = 0.35  # of the highest level: an axis over levels that all lie above does not begin at zero
ROOM = 0.18  # of the drawn span, for the texts beside the bars


def waterfall(comparison: Comparison) -> go.Figure | None:
    """From the baseline's traced iteration to the optimized one's, category by category."""
    before, after = comparison.row(comparison.baseline), comparison.row(comparison.optimized)
    if (
        not comparison.waterfall
        or before is None
        or after is None
        or before.traced_ns is None
        or after.traced_ns is None
    ):
        return None
    return steps(
        (before.name, before.traced_ns), comparison.waterfall, (after.name, after.traced_ns), "ms per iteration"
    )


def steps(before: tuple[str, int], bars: Sequence[Bar], after: tuple[str, int], axis: str) -> go.Figure:
    """A walk from one total to the other, a bar a change; ``before`` and ``after`` are (name, ns).

    Changes below WORTH_A_BAR of the largest share one bar. Where the changes are small beside the totals the axis is cut: it
    does not begin at zero, and says so.
    """
    changes = _changes(bars)
    level, bases, levels = before[1], [], [before[1], after[1]]
    for _, delta in changes:
        bases.append(min(level, level + delta))
        level += delta
        levels.append(level)
    low, high = min(levels), max(levels)
    start = low - ROOM * (high - low) if low > CUT * high else 0.0
    labels = [before[0], *(label for label, _ in changes), after[0]]
    colours = [TOTAL, *(FASTER if delta < 0 else SLOWER for _, delta in changes), TOTAL]
    lengths = [before[1] - start, *(abs(delta) for _, delta in changes), after[1] - start]
    texts = [units.ms(before[1]), *(units.signed_ms(delta) for _, delta in changes), units.ms(after[1])]
    figure = go.Figure(
        go.Bar(
            y=labels, x=milliseconds(lengths), base=milliseconds([start, *bases, start]), orientation="h", marker_color=colours, text=texts,
            textposition="outside", hovertemplate="%{y}: %{text}<extra></extra>", cliponaxis=False, showlegend=False,
        )
    )  # fmt: skip
    end = high + ROOM * max(high - start, 1)
    figure.update_layout(
        xaxis_title=f"{axis}, axis cut" if start else axis,
        xaxis_range=milliseconds([start, end]),
        bargap=0.3,
        height=70 + STEP_HEIGHT * len(labels),
        margin={"t": 12, "b": 40, "r": 64},
    )
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def _changes(bars: Sequence[Bar]) -> list[tuple[str, int]]:
    """The changes that are worth a bar, and the sum of the others, where it is not zero."""
    least = WORTH_A_BAR * max((abs(b.delta_ns) for b in bars), default=0)
    changes = [(b.label, b.delta_ns) for b in bars if b.delta_ns and abs(b.delta_ns) >= least]
    rest = sum(b.delta_ns for b in bars) - sum(delta for _, delta in changes)
    return changes + ([("all other changes", rest)] if rest else [])


def ledgers(comparison: Comparison) -> go.Figure | None:
    """One stacked bar per variant: every nanosecond of its iteration under one owner."""
    rows = [r for r in comparison.rows if r.ledger is not None and r.idle is not None]
    return stacked([(r.name, r, 1) for r in rows]) if rows else None


def stacked(bars: Sequence[tuple[str, Row | Window, int]]) -> go.Figure:
    """Ledgers as bars, the first on top: a name, what has a ledger with its idle split, and how many iterations that is."""
    names, figure = [name for name, _, _ in bars][::-1], go.Figure()
    for part, keys in (("ledger", LEDGER), ("idle", IDLE)):
        for label, key, colour in keys:
            values = [getattr(getattr(measured, part), key) / iterations for _, measured, iterations in bars][::-1]
            if any(values):
                figure.add_bar(
                    y=names, x=milliseconds(values), orientation="h", name=label, marker_color=colour,
                    hovertemplate=f"%{{y}}, {label}: %{{x:.3f}} ms<extra></extra>",
                )  # fmt: skip
    figure.update_layout(
        barmode="stack", xaxis_title="ms per iteration", height=150 + BAR_HEIGHT * len(bars), **legend()
    )
    return figure


def overlap(comparison: Comparison) -> go.Figure | None:
    """Copies beside compute and exposed, a bar a variant."""
    rows = [r for r in comparison.rows if r.copies][::-1]
    if not rows:
        return None
    hidden, exposed = [r.hidden_copy_ns for r in rows], [r.exposed_copy_ns for r in rows]
    names = [r.name for r in rows]
    figure = go.Figure()
    figure.add_bar(
        y=names, x=milliseconds(hidden), orientation="h", name="copy beside compute", marker_color=COLOURS["compute"],
        text=[units.percent(r.hidden_ratio) for r in rows], textposition="inside", insidetextanchor="middle", insidetextfont_color=INSIDE,
        hovertemplate="%{y}: %{x:.3f} ms hidden<extra></extra>",
    )  # fmt: skip
    figure.add_bar(
        y=names, x=milliseconds(exposed), orientation="h", name="exposed copy", marker_color=COLOURS["copy"],
        hovertemplate="%{y}: %{x:.3f} ms exposed<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        barmode="stack", xaxis_title="ms of copies per iteration", height=150 + BAR_HEIGHT * len(rows), **legend()
    )
    return figure


def work(comparison: Comparison, colours: Mapping[str, str]) -> go.Figure | None:
    """Useful TFLOP/s of each variant against the limit and the yardstick."""
    rows = [r for r in comparison.rows if r.work is not None][::-1]
    if not rows or comparison.roof is None:
        return None
    top = comparison.roof.flops / comparison.roof.ideal_ns / 1e3
    figure = go.Figure(
        go.Bar(
            y=[r.name for r in rows], x=[float(f"{r.work.tflop_per_s:.6g}") for r in rows if r.work], orientation="h", marker_color=[colours[r.name] for r in rows],
            text=[units.rate(r.work.tflop_per_s) for r in rows if r.work], textposition="auto", showlegend=False,
            hovertemplate="%{y}: %{text} TFLOP/s<extra></extra>",
        )
    )  # fmt: skip
    marks = [(top, "limit", SLOWER)]
    if comparison.roof.yardstick_tflop_per_s:
        marks.append((comparison.roof.yardstick_tflop_per_s, "yardstick", TOTAL))
    for place, (value, label, colour) in enumerate(marks):
        figure.add_vline(
            x=float(f"{value:.6g}"), line_dash="dash", line_color=colour, annotation_text=f"{label} {units.rate(value)}",
            annotation_position=("top right", "bottom left")[place],
        )  # fmt: skip
    figure.update_layout(
        xaxis_title="TFLOP/s on useful FLOPs",
        height=150 + BAR_HEIGHT * len(rows),
        xaxis_rangemode="tozero",
        margin={"t": 36, "r": 110},
    )
    return figure


def series(name: str, lists: dict[str, tuple[float, ...]], colours: Mapping[str, str]) -> go.Figure:
    """A list of figures as bars, the largest first; variants whose lists agree share their bars and the first one's colour."""
    shared: dict[tuple[float, ...], list[str]] = {}
    for variant, values in lists.items():
        shared.setdefault(tuple(sorted(values, reverse=True)), []).append(variant)
    figure = go.Figure()
    for values, names in shared.items():
        figure.add_bar(
            x=list(range(1, len(values) + 1)), y=list(values), name=", ".join(names), marker_color=colours[names[0]],
            hovertemplate="rank %{x}: %{y}<extra></extra>", showlegend=True,
        )  # fmt: skip
    mean = sum(next(iter(shared))) / max(len(next(iter(shared))), 1)
    figure.add_hline(
        y=round(mean, 3),
        line_dash="dash",
        line_color=TOTAL,
        annotation_text=f"mean {mean:,.1f}",
        annotation_position="top right",
    )
    figure.update_layout(xaxis_title="rank", yaxis_title=name, barmode="group", height=300, **legend())
    return figure


def title_of_work(comparison: Comparison) -> str:
    """The finding that the work figure shows."""
    rows = [r for r in comparison.rows if r.work is not None]
    best = max(rows, key=lambda r: r.work.tflop_per_s if r.work else 0.0, default=None)
    if best is None or best.work is None:
        return "What each variant does"
    share = f", {units.percent(best.limit_ratio)} of the limit" if best.limit_ratio is not None else ""
    return f"{best.name} reaches {units.rate(best.work.tflop_per_s)} TFLOP/s on useful FLOPs{share}"


def link(comparison: Comparison, ceiling: float | None) -> go.Figure | None:
    """Copy throughput of each variant against the measured ceiling of the link."""
    rows = [r for r in comparison.rows if r.link_gb_per_s][::-1]
    if not rows:
        return None
    figure = go.Figure(
        go.Bar(
            y=[r.name for r in rows], x=[r.link_gb_per_s for r in rows], orientation="h", marker_color=COLOURS["copy"],
            text=[f"{r.link_gb_per_s:.1f} GB/s" for r in rows], textposition="inside", insidetextanchor="middle", insidetextfont_color=INSIDE, showlegend=False,
            hovertemplate="%{y}: %{x:.2f} GB/s<extra></extra>",
        )
    )  # fmt: skip
    if ceiling:
        figure.add_vline(
            x=ceiling,
            line_dash="dash",
            line_color=TOTAL,
            annotation_text=f"measured ceiling {ceiling:.1f} GB/s",
            annotation_position="top",
        )
    figure.update_layout(
        xaxis_title="GB/s while copying",
        height=150 + BAR_HEIGHT * len(rows),
        xaxis_rangemode="tozero",
        margin={"t": 36},
    )
    return figure


CALL_WORDS = {
    "launch": ("kernel launches", COLOURS["compute"]), "graph_launch": ("graph launches", COLOURS["graph"]),
    "copy": ("copies", COLOURS["copy"]), "copy_sync": ("blocking copies", COLOURS["migration"]), "event": ("events", COLOURS["communication"]),
    "memset": ("memsets", COLOURS["memset"]), "sync": ("waits for the GPU", COLOURS["host"]), "alloc": ("allocations", COLOURS["dependency"]),
    "other": ("other", COLOURS["edge"]),
}  # fmt: skip


def launches(comparison: Comparison) -> go.Figure | None:
    """Time that the host spends inside CUDA calls in one iteration, by kind of call, beside the device's work."""
    rows = [r for r in comparison.rows if r.launch is not None and r.launch.calls][::-1]
    if not rows:
        return None
    figure = go.Figure()
    for kind, (label, colour) in CALL_WORDS.items():
        values = [sum(c.total_ns for c in r.launch.calls if c.kind == kind) for r in rows if r.launch]
        if any(values):
            figure.add_bar(
                y=[r.name for r in rows], x=milliseconds(values), orientation="h", name=label, marker_color=colour,
                hovertemplate=f"%{{y}}, {label}: %{{x:.3f}} ms<extra></extra>",
            )  # fmt: skip
    work = [r.gpu_work_ns for r in rows if r.gpu_work_ns is not None]
    figure.add_scatter(
        y=[r.name for r in rows], x=milliseconds(work), mode="markers", name="GPU work", marker={"symbol": "line-ns-open", "size": 26, "line": {"width": 3}, "color": SLOWER},
        hovertemplate="%{y}: %{x:.3f} ms of GPU work<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        barmode="stack",
        xaxis_title="ms of host time in CUDA calls per iteration",
        height=150 + BAR_HEIGHT * len(rows),
        **legend(),
    )
    return figure


def milliseconds(values: Any) -> Any:
    """Nanoseconds as milliseconds, to the nanosecond."""
    return np.round(np.asarray(values, dtype=np.float64) / 1e6, 6)


def legend() -> dict[str, Any]:
    """Where a figure has its legend."""
    return {"legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "traceorder": "normal"}}


def title_of_overlap(rows: tuple[Row, ...]) -> str:
    """The finding that the overlap figure shows."""
    best = max((r for r in rows if r.hidden_ratio is not None), key=lambda r: r.hidden_ratio or 0.0, default=None)
    if best is None:
        return "Copies beside compute"
    return f"{best.name} hides {units.percent(best.hidden_ratio)} of its copy time under compute"
