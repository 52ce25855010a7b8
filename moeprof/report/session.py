"""A session for the terminal and as a page: what was expected of each change, what came, and where it led."""

from __future__ import annotations

import plotly.graph_objects as go
from rich.console import Group, RenderableType
from rich.text import Text

from moeprof.compare.steps import Seen
from moeprof.gate import metrics
from moeprof.gate.rule import expectation
from moeprof.report import format as fmt
from moeprof.report import stepviews
from moeprof.report.figures.style import FASTER, SLOWER, TOTAL
from moeprof.report.html import Section, filled, section
from moeprof.report.tables import Table
from moeprof.report.text import rendered, rich_table
from moeprof.session import log as ledger
from moeprof.session.log import Session, Step, Try

TIME = "step_time"
SHOWN = (("of_limit", fmt.percent), ("tflop_per_s", fmt.rate), ("gb_per_s", lambda v: fmt.number(v, 0)))


def state(step: Step) -> str:
    """Where a step stands, in a word or two."""
    if step.trial is None:
        return "predicted"
    if step.decision is None:
        return "tried"
    return "kept" if step.decision.kept else "reverted"


def outcome(step: Step) -> str:
    """Held or missed, and by how much."""
    trial = step.trial
    if trial is None:
        return fmt.DASH
    wanted = expectation(step.prediction.expect)
    if trial.held is None or trial.after is None:
        return "unknown: the capture does not hold the metric"
    found = wanted.measured(trial.before, trial.after)
    return f"{'held' if trial.held else 'MISSED'}: {wanted.said(found)}, expected {step.prediction.expect}"


def _number(value: float | None) -> str:
    return fmt.DASH if value is None else f"{value:.4g}"


def steps(session: Session) -> Table:
    """All steps, one a row."""
    rows = (
        [("start", "where it begins", fmt.DASH, fmt.DASH, _number(_time(session.base)), fmt.DASH)]
        if session.base
        else []
    )
    for step in session.steps:
        unit = metrics.unit(step.prediction.metric)
        change = fmt.DASH
        if step.trial is not None:
            change = f"{_number(step.trial.before)} to {_number(step.trial.after)} {unit}".strip()
        rows.append(
            (
                str(step.number),
                step.prediction.text,
                f"{step.prediction.metric}: {change}",
                outcome(step),
                _number(_time(step.trial)),
                state(step),
            )
        )
    return Table("Steps", ("step", "prediction", "metric", "outcome", "time, ms", "state"), tuple(rows), plain=True)


def _time(trial: Try | None) -> float | None:
    return None if trial is None else trial.values.get(TIME)


def log(session: Session) -> str:
    """The session for the terminal, and what it waits for."""
    parts: list[RenderableType] = [
        Text(session.start.question, style="bold"), Text(f"{session.start.workload}/{session.start.variant}, begun {session.start.at}"),
    ]  # fmt: skip
    parts += [Text(f"step {s.number}: {text}", style="bold yellow") for s, text in unlike(session)]
    if session.base is not None:
        parts.append(rich_table(steps(session)))
    last = session.steps[-1].trial if session.steps else None
    if last is not None and last.verdict:
        parts.append(Text(f"Step {session.steps[-1].number} against what was kept: {last.verdict}"))
    parts.append(Text(f"Next: {ledger.expected(session)}"))
    return rendered(Group(*parts))


def unlike(session: Session) -> list[tuple[Step, str]]:
    """What differed between a step's capture and the one that was kept, besides the change."""
    return [(step, text) for step in session.steps if step.trial is not None for text in step.trial.unlike]


def show(step: Step) -> str:
    """One step whole: prediction, values, decision and the change itself."""
    trial = step.trial
    lines = [
        f"Step {step.number} ({state(step)}): {step.prediction.text}",
        f"Expected {step.prediction.metric} {step.prediction.expect}; {outcome(step)}",
    ]
    if step.decision is not None and step.decision.why:
        lines.append(f"Why {state(step)}: {step.decision.why}")
    if trial is not None:
        lines[:0] = trial.unlike
        lines += [trial.verdict] if trial.verdict else []
        lines.append(f"Capture {trial.capture}, at {trial.git or 'no commit'}")
        lines += [
            f"  {name} {_number(value)} {metrics.unit(name)}".rstrip()
            for name, value in trial.values.items()
            if value is not None
        ]
        lines.append(trial.change or "No change of tracked files.")
    return "\n".join(lines)


def _points(session: Session, metric: str) -> list[tuple[int, str, float, bool]]:
    """(step, prediction, value, kept) of every trial that holds the metric; a step that waits for its decision counts as kept."""
    tried: list[tuple[int, str, Try | None, bool]] = [(0, "start", session.base, True)]
    tried += [(s.number, s.prediction.text, s.trial, s.decision is None or s.decision.kept) for s in session.steps]
    values = [(n, text, trial.values.get(metric), kept) for n, text, trial, kept in tried if trial is not None]
    return [(n, text, value, kept) for n, text, value, kept in values if value is not None]


def trajectory(
    session: Session, metric: str = TIME, axis: str = "ms an iteration, clean", scale: float = 1.0
) -> go.Figure | None:
    """A metric after each step, times ``scale``; what was reverted stands beside the path. None where no trial holds it."""
    points = _points(session, metric)
    if not points:
        return None
    figure = go.Figure()
    for name, mine, colour, mode in (("kept", True, FASTER, "lines+markers"), ("reverted", False, SLOWER, "markers")):
        some = [(n, text, value) for n, text, value, kept in points if kept == mine]
        if some:
            figure.add_scatter(
                x=[n for n, _, _ in some], y=[float(f"{scale * v:.6g}") for _, _, v in some], text=[text for _, text, _ in some], mode=mode, name=name,
                line={"color": TOTAL, "shape": "hv"}, marker={"size": 11, "color": colour}, hovertemplate=f"step %{{x}}: %{{text}}<br>%{{y}} {axis}<extra></extra>",
            )  # fmt: skip
    figure.update_layout(
        xaxis_title="step", yaxis_title=axis, yaxis_rangemode="tozero", height=340, xaxis_dtick=_apart(points[-1][0])
    )
    return figure


def _apart(last: int) -> int:
    """Steps between two ticks, so that some twenty are drawn."""
    return max(1, -(-last // 20))


def render(session: Session, seen: Seen | None = None) -> str:
    """The page; ``seen`` is what the captures of the steps still show."""
    seen = seen or Seen()
    held = [s for s in session.steps if s.trial is not None and s.trial.held is not None]
    found = {d.number: stepviews.difference(d) for d in seen.diffs}
    return filled(
        "session.html.j2",
        title=session.start.question,
        start=session.start,
        held=sum(bool(s.trial and s.trial.held) for s in held),
        judged=len(held),
        unlike=unlike(session),
        sections=_sections(session, seen),
        left_out=seen.left_out,
        steps=[(s, state(s), outcome(s), found.get(s.number)) for s in session.steps],
    )


def _sections(session: Session, seen: Seen) -> list[Section]:
    """The way of the time, of the fraction of the limit, and under the roofline."""
    times = [t for t in (_time(session.base), _time(session.reference)) if t is not None]
    title = (
        "The way"
        if len(times) < 2
        else f"From {_number(times[0])} to {_number(times[1])} ms in {sum(s.trial is not None for s in session.steps)} steps"
    )
    note = "Clean times of each step's capture. A step that was reverted stands beside the path; the next one starts from what is kept."
    found = [section("trajectory", title, note, trajectory(session), (steps(session),))]
    limit = trajectory(session, "of_limit", "% of the limit", 100.0)
    if limit is not None:
        found.append(
            section(
                "of-limit",
                "How near to the limit",
                "The best possible time over the clean time, step by step.",
                limit,
                (values(session),),
            )
        )
    points = stepviews.marks(session)
    if points:
        found.append(stepviews.under_the_roof(points, seen.ceilings, () if limit is not None else (values(session),)))
    return found


def values(session: Session) -> Table:
    """What each trial reached of its limit and in useful work."""
    tried = [("start", session.base)] if session.base else []
    tried += [(f"step {s.number}", s.trial) for s in session.steps if s.trial is not None]
    rows = [
        (name, *(fmt.DASH if value is None else show(value) for value, show in ((trial.values.get(metric), how) for metric, how in SHOWN)))
        for name, trial in tried if trial is not None
    ]  # fmt: skip
    return Table("What each step reached", ("step", "of the limit", "TFLOP/s, useful", "GB/s, declared"), tuple(rows))
