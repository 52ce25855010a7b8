"""Clean timing: the verdicts with their reasons, the rounds, every sample. Disturbed rounds are marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from moeprof import units
from moeprof.compare.row import Row
from moeprof.compare.variants import Comparison
from moeprof.loaded.capture import Capture
from moeprof.report.figures.bars import legend, milliseconds
from moeprof.report.figures.style import SLOWER
from moeprof.report.page import Table
from moeprof.stats.estimates import middle
from moeprof.stats.verdict import Verdict
from moeprof.storage.manifest import Round, VariantRecord

CELLS = 200  # steps of the figure's height: of 320 pixels one is 1.2
LEAST_MARK, LEAST_CROSS, MOST_MARK = 4.5, 8.0, 14.0  # pixels


def verdicts(comparison: Comparison) -> Table:
    """The numbers behind each verdict, and what would decide an unclear one."""
    header = (
        "variant", "a typical round", "its interval", "noise", "rounds", "left out", "verdict, because", "what would settle it",
    )  # fmt: skip
    rows = tuple(_verdict(row, row.verdict) for row in comparison.rows if row.verdict is not None)
    return Table("What decided", header, rows, plain=True, detail="summary")


def _verdict(row: Row, verdict: Verdict) -> tuple[str, ...]:
    interval = f"{units.between(verdict.effect)} ({100 * verdict.confidence:.4g} %)" if verdict.effect else units.DASH
    return (
        row.name, units.DASH if verdict.effect is None else f"{verdict.effect.value:.3f}×", interval,
        f"{units.percent(verdict.noise_ratio)} ({verdict.noise_from})", str(verdict.rounds), str(row.left_out),
        f"{verdict.word}: {verdict.reason}", verdict.settle or units.DASH,
    )  # fmt: skip


def phases(capture: Capture) -> list[tuple[str, VariantRecord, tuple[Round, ...]]]:
    """Each variant's rounds under its name, and after the baseline its twin's."""
    timed = []
    for record in (v.record for v in capture.variants):
        timed += [(record.name, record, record.rounds)] if record.rounds else []
        timed += [(f"{record.name}, twin", record, record.twin)] if record.twin else []
    return timed


def times(capture: Capture) -> Table:
    """Rounds of clean timing."""
    rows = []
    for name, _, rounds in phases(capture):
        for r in rounds:
            place = (name, str(r.index + 1), str(r.position + 1), str(len(r.times_ns)), units.ms(middle(r.times_ns)))
            rows.append((*place, *_state(r), _counts(r)))
    header = (
        "variant", "round", "turn", "samples", "median", "SM clock after", "temperature", "power", "held back by", "counts",
    )  # fmt: skip
    return Table("Rounds", header, tuple(rows))


def _state(timed: Round) -> tuple[str, str, str, str]:
    """SM clock, temperature, power, what held the clock back: of several ranks' GPUs each, in the order of the ranks."""
    gpus = timed.gpus
    clocks = [f"{g.sm_clock_mhz} MHz" if g.sm_clock_mhz else units.DASH for g in gpus]
    heat = [f"{g.temperature_c} °C" if g.temperature_c is not None else units.DASH for g in gpus]
    power = [f"{g.power_w:.0f} W" if g.power_w is not None else units.DASH for g in gpus]
    held = [", ".join(g.throttle_reasons) or units.DASH for g in gpus]
    return _each(clocks), _each(heat), _each(power), _each(held)


def _each(values: list[str]) -> str:
    return " / ".join(values) if len(set(values)) > 1 else next(iter(values), units.DASH)


def _counts(timed: Round) -> str:
    if timed.used:
        return "yes"
    return f"no: {', '.join(timed.disturbed)}" if timed.disturbed else "no: another variant's turn was disturbed"


def samples(capture: Capture, colours: Mapping[str, str]) -> go.Figure | None:
    """The clean samples, round by round: the raw material of the verdict. Crosses are rounds that do not count.

    Samples of one round in the same of CELLS equal steps of the figure's height share a mark, which grows with their number.
    ``colours`` are those of the variants; the baseline's twin has open marks in the baseline's colour.
    """
    timed = phases(capture)
    if not timed:
        return None
    longest = max((t for _, _, rounds in timed for r in rounds for t in r.times_ns), default=1)
    figure = go.Figure()
    for place, (name, record, rounds) in enumerate(timed):
        shift = (place - (len(timed) - 1) / 2) * 0.8 / max(len(timed), 3)
        twin = rounds is record.twin
        for used in (True, False):
            chosen = [r for r in rounds if r.used is used]
            if chosen:
                symbol = "x" if not used else "circle-open" if twin else "circle"
                colour = colours[record.name] if used else SLOWER
                marks = [(r, *mark) for r in chosen for mark in _cells(r.times_ns, longest)]
                figure.add_scatter(**_marks(name, marks, shift, colour, symbol))
    figure.update_layout(
        xaxis_title="round", yaxis_title="ms per iteration, no profiler", yaxis_rangemode="tozero", height=320, **legend()
    )  # fmt: skip
    figure.update_xaxes(dtick=1 if max(r.index for _, _, rounds in timed for r in rounds) < 20 else 5)
    return figure


def _cells(times_ns: Sequence[int], longest: int) -> list[tuple[float, int]]:
    """The mean time and the number of the samples in each step of the figure's height that has any."""
    cells: dict[int, list[int]] = {}
    for time in times_ns:
        cells.setdefault(CELLS * time // longest, []).append(time)
    return [(sum(cells[cell]) / len(cells[cell]), len(cells[cell])) for cell in sorted(cells)]


def _marks(name: str, marks: list[tuple[Round, float, int]], shift: float, colour: str, symbol: str) -> dict[str, Any]:
    disturbed = symbol == "x"
    texts = [f"{count} sample{'s' * (count != 1)}" + _why(r) for r, _, count in marks]
    least = LEAST_CROSS if disturbed else LEAST_MARK
    sizes = [round(min(least * count ** (1 / 3), MOST_MARK), 1) for _, _, count in marks]
    return {
        "x": [round(r.index + 1 + shift, 3) for r, _, _ in marks], "y": milliseconds([ns for _, ns, _ in marks]).round(5),
        "mode": "markers", "name": f"{name}, disturbed" if disturbed else name, "text": texts,
        "marker": {"size": sizes, "opacity": 0.75, "color": colour, "symbol": symbol},
        "hovertemplate": "round %{x:.0f}: %{y:.3f} ms, %{text}<extra>%{fullData.name}</extra>",
    }  # fmt: skip


def _why(timed: Round) -> str:
    if timed.used:
        return ""
    return f"<br>does not count: {', '.join(timed.disturbed) or 'another variant was disturbed in this round'}"


def title(capture: Capture) -> str:
    """What the figure shows, with the rounds that do not count."""
    rounds = [r for _, _, phase in phases(capture) for r in phase]
    total, out = len({r.index for r in rounds}), len({r.index for r in rounds if not r.used})
    return "Every clean sample" + (f": {out} of {total} rounds were disturbed and do not count" if out else "")
