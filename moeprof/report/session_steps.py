"""The steps of a session under the roofline, and what each changed against the step that it started from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from moeprof import units
from moeprof.compare.steps import Missing, StepComparison
from moeprof.kernels.roofline import Ceiling
from moeprof.report.figures import bars
from moeprof.report.figures.roofline import Mark, add_arrow, add_marks, apart, canvas, named
from moeprof.report.figures.style import FASTER, SLOWER, TOTAL
from moeprof.report.page import Section, Table, section
from moeprof.report.traces import kernel_table, waterfall_table
from moeprof.session.log import Session, Try

MAX_KERNELS = 12
COLOUR = {"kept": FASTER, "reverted": SLOWER, "open": TOTAL}


def marks(session: Session) -> list[Mark]:
    """One mark a trial that recorded useful FLOP/s and declared byte/s, in the order of the steps."""
    tried: list[tuple[str, str, str, Try | None]] = [("0", "start", "kept", session.base)]
    for step in session.steps:
        state = "open" if step.decision is None else "kept" if step.decision.kept else "reverted"
        tried.append((str(step.number), step.prediction.text, state, step.trial))
    found = []
    for number, text, state, trial in tried:
        done, moved = (None if trial is None else trial.values.get(metric) for metric in ("tflop_per_s", "gb_per_s"))
        if done and moved:
            found.append(
                Mark(state, 1e3 * done / moved, 1e12 * done, f"step {number}, {text}", COLOUR[state], "circle", number)
            )
    return found


def under_the_roof(found: Sequence[Mark], ceilings: Sequence[Ceiling], tables: tuple[Table, ...]) -> Section:
    """The steps in order; arrows follow what was kept."""
    drawn = canvas(ceilings, found, "useful FLOP for a declared byte")
    add_marks(drawn, apart(found))
    path = [m for m in found if m.series == "kept"]
    for one, other in pairwise(path):
        add_arrow(drawn, (one.x, one.y), (other.x, other.y), other.y >= one.y)
    note = (
        "Useful FLOPs and declared bytes over the clean time, as each step recorded them: a better step goes up, and aside only where it "
        "declares other work. Numbers are steps, 0 the start; arrows follow what was kept. "
    )
    note += (
        f"Ceilings: {'; '.join(map(named, ceilings))}."
        if ceilings
        else "No capture with measured ceilings is left, so no roof is drawn."
    )
    best = max(found, key=lambda m: m.y)
    title = f"Under the roofline: step {best.label} reaches {units.rate(best.y / 1e12)} TFLOP/s"
    return section("roofline", title, note, drawn, tables)


def comparison(step: StepComparison) -> Section:
    """Where the time of a step went against the step that it started from, and its kernels; or why that is not known."""
    other = f"step {step.against}" if step.against else "the start"
    name = f"step-{step.number}-diff"
    if step.missing is not None:
        return Section(name, f"Not compared with {other}: {_reason(step.missing, other)}")
    title = f"Traced against {other}: {units.signed_ms(step.after_ns - step.before_ns)} per iteration"
    note = "The traced iteration of median length of each. The steps sum exactly. Kernels are matched by name, then by launch shape and place."
    before, after = (other, step.before_ns), (f"step {step.number}", step.after_ns)
    figure = bars.steps(before, step.waterfall, after, "ms per iteration")
    left = len(step.kernels) - MAX_KERNELS
    caption = "Kernels of one iteration, the largest change first" + (f"; {left} more are left out" if left > 0 else "")
    shown = (
        waterfall_table("Where the time went", before, step.waterfall, after),
        kernel_table(caption, ("before", "after"), step.kernels[:MAX_KERNELS]),
    )
    return section(name, title, note, figure, shown)


def _reason(missing: Missing, other: str) -> str:
    if missing.what == "trace":
        return f"{'its own capture' if missing.side == 'after' else f'the capture of {other}'} contains no trace of the variant"
    which = "its own capture" if missing.side == "after" else "the capture that it started from"
    return f"{which} is gone or cannot be read"
