"""Clean timing: the verdicts with their reasons, the rounds, every sample. Disturbed rounds are marked."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from moeprof import units
from moeprof.compare.row import Row
from moeprof.compare.variants import Comparison
from moeprof.loaded.capture import Capture
from moeprof.report.figures.bars import legend, milliseconds
from moeprof.report.figures.style import SHADES, SLOWER
from moeprof.report.page import Table
from moeprof.stats.estimates import Verdict
from moeprof.storage.manifest import Round, VariantRecord


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
            middle = sorted(r.times_ns)[len(r.times_ns) // 2] if r.times_ns else None
            place = (name, str(r.index + 1), str(r.position + 1), str(len(r.times_ns)), units.ms(middle))
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


def samples(capture: Capture) -> go.Figure | None:
    """Every clean sample, round by round: the raw material of the verdict. Crosses are rounds that do not count."""
    timed = phases(capture)
    if not timed:
        return None
    figure = go.Figure()
    for place, (name, _, rounds) in enumerate(timed):
        shift = (place - (len(timed) - 1) / 2) * 0.8 / max(len(timed), 3)
        for used in (True, False):
            chosen = [r for r in rounds if r.used is used]
            if chosen:
                figure.add_scatter(**_marks(name, chosen, shift, SHADES[place % len(SHADES)] if used else SLOWER, used))
    figure.update_layout(
        xaxis_title="round", yaxis_title="ms per iteration, no profiler", yaxis_rangemode="tozero", height=320, **legend()
    )  # fmt: skip
    figure.update_xaxes(dtick=1 if max(r.index for _, _, rounds in timed for r in rounds) < 20 else 5)
    return figure


def _marks(name: str, rounds: list[Round], shift: float, colour: str, used: bool) -> dict[str, Any]:
    x = np.concatenate([np.full(len(r.times_ns), r.index + 1) for r in rounds])
    jitter = (np.arange(len(x)) % 7 - 3) * 0.03 + shift
    why = [", ".join(r.disturbed) or "another variant's turn was disturbed" for r in rounds for _ in r.times_ns]
    reason = "" if used else "<br>does not count: %{text}"
    return {
        "x": np.round(x + jitter, 4), "y": milliseconds([t for r in rounds for t in r.times_ns]), "mode": "markers",
        "name": name if used else f"{name}, disturbed", "text": None if used else why,
        "marker": {"size": 5 if used else 8, "opacity": 0.65, "color": colour, "symbol": "circle" if used else "x"},
        "hovertemplate": "round %{x:.0f}: %{y:.3f} ms" + reason + "<extra>%{fullData.name}</extra>",
    }  # fmt: skip


def title(capture: Capture) -> str:
    """What the figure shows, with the rounds that do not count."""
    rounds = [r for _, _, phase in phases(capture) for r in phase]
    total, out = len({r.index for r in rounds}), len({r.index for r in rounds if not r.used})
    return "Every clean sample" + (f": {out} of {total} rounds were disturbed and do not count" if out else "")
