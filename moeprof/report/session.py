"""The page of a session: each prediction, its measurement, and the decision."""

from __future__ import annotations

from dataclasses import replace

import plotly.graph_objects as go

from moeprof import units
from moeprof.compare.steps import SessionComparison
from moeprof.gate import metrics
from moeprof.gate.rule import expectation
from moeprof.report import session_steps
from moeprof.report import text as text_of
from moeprof.report.figures.style import FASTER, SLOWER, TOTAL
from moeprof.report.page import Block, Listing, Page, Paragraph, Section, Table, section
from moeprof.report.page import unlike as unlike_section
from moeprof.report.text_layout import wrap
from moeprof.session import log as ledger
from moeprof.session.log import Session, Step, Try

TIME = "step_time"
SHOWN = (("of_limit", units.percent), ("tflop_per_s", units.rate), ("gb_per_s", lambda v: units.number(v, 0)))


def state(step: Step) -> str:
    """The state of a step in one word."""
    if step.trial is None:
        return "predicted"
    if step.decision is None:
        return "tried"
    return "kept" if step.decision.kept else "reverted"


def outcome(step: Step) -> str:
    """Whether the prediction held, and the measured change."""
    trial = step.trial
    if trial is None:
        return units.DASH
    wanted = expectation(step.prediction.expect)
    if trial.held is None or trial.after is None:
        return "unknown: the capture does not contain the metric"
    change = wanted.measured(trial.before, trial.after)
    return f"{'held' if trial.held else 'MISSED'}: {wanted.written(change)}, expected {step.prediction.expect}"


def steps(session: Session) -> Table:
    """All steps, one per row."""
    rows = (
        [("start", "before any change", units.DASH, units.DASH, units.digits(_time(session.base)), units.DASH)]
        if session.base
        else []
    )
    for step in session.steps:
        unit = metrics.unit(step.prediction.metric)
        change = units.DASH
        if step.trial is not None:
            change = f"{units.digits(step.trial.before)} to {units.digits(step.trial.after)} {unit}".strip()
        rows.append(
            (
                str(step.number),
                step.prediction.text,
                f"{step.prediction.metric}: {change}",
                outcome(step),
                units.digits(_time(step.trial)),
                state(step),
            )
        )
    header = ("step", "prediction", "metric", "outcome", "time, ms", "state")
    return Table("Steps", header, tuple(rows), plain=True, detail="summary")


def _time(trial: Try | None) -> float | None:
    return None if trial is None else trial.values.get(TIME)


def log(session: Session) -> str:
    """The session for the terminal, and its next command."""
    last = session.steps[-1].trial if session.steps else None
    lines = [text_of.render(page(session))]
    if last is not None and last.verdict:
        lines += _wrapped(f"Step {session.steps[-1].number} against the last kept step: {last.verdict}")
    return "\n".join([*lines, *_wrapped(f"Next: {ledger.expected(session)}")])


def _wrapped(sentence: str) -> list[str]:
    return wrap(sentence, text_of.width(), "  ", "")


def unlike(session: Session) -> list[tuple[Step, str]]:
    """The differences between a step's capture and the last kept one, besides the change."""
    return [(step, text) for step in session.steps if step.trial is not None for text in step.trial.unlike]


def show(step: Step) -> str:
    """One step in full: its page, and the change as the version control system has it."""
    change = "" if step.trial is None else step.trial.change or "No change of tracked files."
    return "\n".join(text for text in (text_of.render(step_page(step)), change) if text)


def step_page(step: Step) -> Page:
    """One step by itself: what its capture is unlike in, prediction, decision, values."""
    trial = step.trial
    differing = () if trial is None else trial.unlike
    tables = () if trial is None else (_measured(trial),)
    body = Section(f"step-{step.number}", above=_told(step), tables=tuple(t for t in tables if t.rows))
    return Page(_headline(step), "", (*unlike_section("Its capture is unlike the last kept one", differing), body))


def _headline(step: Step) -> str:
    return f"Step {step.number}, {state(step)}: {step.prediction.text}"


def _told(step: Step) -> tuple[Paragraph, ...]:
    """Prediction and outcome, why it was decided so, the verdict, the capture."""
    trial = step.trial
    texts = [(f"Expected {step.prediction.metric} {step.prediction.expect}. {outcome(step)}.", "how")]
    if step.decision is not None and step.decision.why:
        texts.append((f"Why {state(step)}: {step.decision.why}", "plain"))
    if trial is not None and trial.verdict:
        texts.append((f"{trial.verdict}.", "plain"))
    if trial is not None:
        texts.append((f"Capture {trial.capture}, at {trial.git or 'no commit'}.", "how"))
    return tuple(Paragraph(text, "how" if role == "how" else "plain", detail="summary") for text, role in texts)


def _measured(trial: Try) -> Table:
    """Every metric that the capture of a step has."""
    rows = [
        (name, units.digits(value), metrics.unit(name) or units.DASH)
        for name, value in trial.values.items()
        if value is not None
    ]
    return Table("Values", ("metric", "value", "unit"), tuple(rows), detail="summary")


def _points(session: Session, metric: str) -> list[tuple[int, str, float, bool]]:
    """(step, prediction, value, kept) of every trial with the metric. A step without a decision counts as kept."""
    tried: list[tuple[int, str, Try | None, bool]] = [(0, "start", session.base, True)]
    tried += [(s.number, s.prediction.text, s.trial, s.decision is None or s.decision.kept) for s in session.steps]
    values = [(n, text, trial.values.get(metric), is_kept) for n, text, trial, is_kept in tried if trial is not None]
    return [(n, text, value, is_kept) for n, text, value, is_kept in values if value is not None]


def trajectory(
    session: Session, metric: str = TIME, axis: str = "ms per iteration, clean", scale: float = 1.0
) -> go.Figure | None:
    """A metric after each step, times ``scale``, with reverted steps beside the path; None if no trial contains it."""
    points = _points(session, metric)
    if not points:
        return None
    figure = go.Figure()
    for name, on_path, colour, mode in (
        ("kept", True, FASTER, "lines+markers"),
        ("reverted", False, SLOWER, "markers"),
    ):
        marks = [(n, text, value) for n, text, value, is_kept in points if is_kept == on_path]
        if marks:
            figure.add_scatter(
                x=[n for n, _, _ in marks], y=[float(f"{scale * v:.6g}") for _, _, v in marks], text=[text for _, text, _ in marks], mode=mode, name=name,
                line={"color": TOTAL, "shape": "hv"}, marker={"size": 11, "color": colour}, hovertemplate=f"step %{{x}}: %{{text}}<br>%{{y}} {axis}<extra></extra>",
            )  # fmt: skip
    figure.update_layout(
        xaxis_title="step", yaxis_title=axis, yaxis_rangemode="tozero", height=340, xaxis_dtick=_apart(points[-1][0])
    )
    return figure


def _apart(last: int) -> int:
    """Steps between two ticks, so that at most twenty are drawn."""
    return max(1, -(-last // 20))


def page(session: Session, comparison: SessionComparison | None = None) -> Page:
    """The page; ``comparison`` contains the steps whose captures still exist."""
    comparison = comparison or SessionComparison()
    start = session.start
    lead = f"Investigation of {start.workload}/{start.variant}, started {units.moment(start.at)}."
    compared = {step.number: session_steps.comparison(step) for step in comparison.steps}
    differing = (f"Step {step.number}: {text}" for step, text in unlike(session))
    sections = (
        Section("result", above=(Paragraph(result(session), "sentence", detail="summary"),), style="verdict"),
        *_sections(session, comparison),
        *unlike_section("Captures of this session are unlike", differing),
        *_left_out(comparison.left_out),
        *(_step(step, compared.get(step.number)) for step in session.steps),
    )
    return Page(start.question, lead, sections)


def result(session: Session) -> str:
    """How far the time came, in how many steps, and how many predictions held."""
    held = f"{session.held} of {session.judged} predictions held."
    times = [t for t in (_time(session.base), _time(session.reference)) if t is not None]
    if len(times) < 2:
        return held
    tried = sum(s.trial is not None for s in session.steps)
    return f"From {units.digits(times[0])} to {units.digits(times[1])} ms per iteration in {tried} step{'s' * (tried != 1)}. {held}"


def _left_out(count: int) -> tuple[Section, ...]:
    text = f"Each comparison reads two traces: the first {count} tried steps are left out."
    return (Section("left-out", above=(Paragraph(text, "how"),)),) if count else ()


def _step(step: Step, compared: Section | None) -> Section:
    """One step: prediction, outcome, decision, comparison and change."""
    trial = step.trial
    change: tuple[Block, ...] = (Listing(trial.change, "The change"),) if trial is not None and trial.change else ()
    return Section(
        f"step-{step.number}",
        _headline(step),
        above=tuple(replace(paragraph, detail="page") for paragraph in _told(step)),
        parts=() if compared is None or trial is None else (compared,),
        below=change,
    )


def _sections(session: Session, comparison: SessionComparison) -> list[Section]:
    """The time after each step, the fraction of the limit, and the roofline."""
    title = "Time after each step"
    note = "Clean times of each step's capture. A reverted step is beside the path. The next step starts from the last kept one."
    sections = [section("trajectory", title, note, trajectory(session), (steps(session),))]
    limit = trajectory(session, "of_limit", "% of the limit", 100.0)
    if limit is not None:
        sections.append(
            section(
                "of-limit",
                "Fraction of the limit",
                "The best possible time over the clean time, after each step.",
                limit,
                (values(session),),
            )
        )
    points = session_steps.marks(session)
    if points:
        sections.append(
            session_steps.under_the_roof(points, comparison.ceilings, () if limit is not None else (values(session),))
        )
    return sections


def values(session: Session) -> Table:
    """Each trial's fraction of the limit and useful work."""
    tried = [("start", session.base)] if session.base else []
    tried += [(f"step {s.number}", s.trial) for s in session.steps if s.trial is not None]
    rows = [
        (name, *(units.DASH if value is None else show(value) for value, show in ((trial.values.get(metric), how) for metric, how in SHOWN)))
        for name, trial in tried if trial is not None
    ]  # fmt: skip
    return Table("Work of each step", ("step", "of the limit", "TFLOP/s, useful", "GB/s, declared"), tuple(rows))
