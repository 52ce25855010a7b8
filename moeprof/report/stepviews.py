"""The steps of a session under the roofline, and what each changed against the step that it started from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from moeprof.compare.kernels import Kernel
from moeprof.compare.steps import StepDiff
from moeprof.kernels.roofline import Ceiling
from moeprof.report import format as fmt
from moeprof.report.figures import bars
from moeprof.report.figures.roofline import Mark, add_arrow, add_marks, apart, canvas, named
from moeprof.report.figures.style import FASTER, SLOWER, TOTAL
from moeprof.report.html import Section, section
from moeprof.report.tables import Table
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
    title = f"Under the roofline: step {best.label} reaches {fmt.rate(best.y / 1e12)} TFLOP/s"
    return section("roofline", title, note, drawn, tables)


def difference(found: StepDiff) -> Section:
    """Where the time of a step went against the step that it started from, and its kernels; or why that is not known."""
    other = f"step {found.against}" if found.against else "the start"
    name = f"step-{found.number}-diff"
    if found.reason:
        return section(name, f"Not compared with {other}: {found.reason}", "", None, ())
    title = f"Traced against {other}: {fmt.signed_ms(found.after_ns - found.before_ns)} an iteration"
    note = "The traced iteration of median length of each; the steps sum exactly. Kernels are matched by name, then by launch shape and place."
    ends = ((other, found.before_ns), (f"step {found.number}", found.after_ns))
    figure = bars.steps(ends[0], found.waterfall, ends[1], "ms an iteration")
    return section(name, title, note, figure, (_waterfall(found, other), _kernels(found)))


def _waterfall(found: StepDiff, other: str) -> Table:
    rows = [(b.label, fmt.ms(b.before_ns), fmt.ms(b.after_ns), fmt.signed_ms(b.delta_ns)) for b in found.waterfall]
    rows.append(
        ("sum", fmt.ms(found.before_ns), fmt.ms(found.after_ns), fmt.signed_ms(found.after_ns - found.before_ns))
    )
    return Table("Where the time went", ("category", other, f"step {found.number}", "difference"), tuple(rows))


def _kernels(found: StepDiff) -> Table:
    """Kernels of one iteration, the largest change first."""
    rows = [_kernel(k) for k in found.kernels[:MAX_KERNELS]]
    left = len(found.kernels) - len(rows)
    caption = "Kernels of one iteration, the largest change first" + (f"; {left} more are left out" if left > 0 else "")
    return Table(
        caption,
        ("kernel", "status", "count before", "count after", "time before", "time after", "difference"),
        tuple(rows),
    )


def _kernel(k: Kernel) -> tuple[str, ...]:
    name = fmt.short_kernel(k.name) + (f" -> {fmt.short_kernel(k.other)}" if k.other else "")
    return (
        name, k.status, fmt.number(k.count_before), fmt.number(k.count_after), fmt.ms(k.before_ns), fmt.ms(k.after_ns), fmt.signed_ms(k.delta_ns),
    )  # fmt: skip
