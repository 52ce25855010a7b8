"""The passes of a loop as markup: one stacked bar each, or a heat map where there are many. Each leads to its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from markupsafe import Markup

from moeprof import units
from moeprof.analysis.model import Pass, Passes
from moeprof.report.figures.style import IDLE, LEDGER

MOST_ROWS = 60  # passes that get a bar each
MOST_CELLS = 600  # of the heat map; above it a cell is the slowest of several passes
HEAT = (1.02, 1.05, 1.1, 1.25, 1.5, 2.0)  # times the median pass: upper bounds of the colours but the last
FAMILIES = {
    "attention": "attention", "gemm": "GEMM", "copy-like": "copy-like", "elementwise": "elementwise", "compute": "other compute", "graph": "CUDA graphs",
    "communication": "communication",
}  # fmt: skip


def css_of(key: str) -> str:
    """The CSS class of a part of the ledger or a cause of idle time, by its field."""
    return f"own-{key.removesuffix('_ns').removeprefix('exposed_')}"


@dataclass(frozen=True)
class Part:
    """A part of a stacked bar: its label, its CSS class, and the field of the ledger, the idle time or the families of compute."""

    label: str
    css: str
    key: str
    of: Literal["ledger", "idle", "compute"]

    def ns(self, of: Pass) -> int:
        """What the part has of a pass."""
        if self.of == "compute":
            return of.compute.get(self.key, 0)
        return int(getattr(of.idle if self.of == "idle" else of.ledger, self.key))


PARTS = (
    *(Part(label, f"fam-{name}", name, "compute") for name, label in FAMILIES.items() if name != "communication"),
    *(Part(label, css_of(key), key, "ledger") for label, key, _ in LEDGER if key != "compute_ns"),
    *(Part(label, css_of(key), key, "idle") for label, key, _ in IDLE),
)


def passes_figure(of: Passes, zero_ns: int) -> Markup:
    """The figure; ``zero_ns``: what the timeline's axis counts from."""
    return _bars(of, zero_ns) if len(of.passes) <= MOST_ROWS else _heat_map(of, zero_ns)


def place(start_ns: int, end_ns: int, zero_ns: int) -> str:
    """The URL fragment that shows [start, end) in the timeline, with a little on both sides."""
    around = max((end_ns - start_ns) // 20, 1)
    low, high = max(start_ns - around - zero_ns, 0), end_ns + around - zero_ns
    return f"#t={low / 1e6:.3f}-{high / 1e6:.3f}"


def legend(parts: Sequence[tuple[str, str]]) -> Markup:
    """A list of (label, CSS class) with their colours."""
    items = (
        Markup('<li><svg viewBox="0 0 1 1" aria-hidden="true"><rect class="{}" width="1" height="1"/></svg>{}</li>').format(css, label)
        for label, css in parts
    )  # fmt: skip
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def _bars(of: Passes, zero_ns: int) -> Markup:
    longest = max(p.span_ns for p in of.passes) or 1
    slowest = of.slow[0].index if of.slow else -1
    shown = [part for part in PARTS if any(part.ns(p) for p in of.passes)]
    rows = []
    for number, pass_ in enumerate(of.passes):
        at, rects = 0.0, []
        for part in shown:
            width = 1000 * part.ns(pass_) / longest
            if width > 0:
                title = f"{part.label}: {units.ms(part.ns(pass_))}"
                rects.append(
                    Markup('<rect class="{}" x="{:.1f}" width="{:.1f}" height="10"><title>{}</title></rect>').format(
                        part.css, at, width, title
                    )
                )
            at += width
        mark = " slowest" if number == slowest else " median" if number == of.median else ""
        word = mark.strip() or ""
        rows.append(
            Markup(
                '<a class="pass{}" href="{}" tabindex="{}"><span>{}{}</span>'
                '<svg viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true">{}</svg><b>{}</b></a>'
            ).format(
                mark, place(pass_.start_ns, pass_.end_ns, zero_ns), 0 if number == max(slowest, 0) else -1, pass_.name,
                Markup(' <i>{}</i>').format(word) if word else "", Markup("").join(rects), units.ms(pass_.span_ns),
            )
        )  # fmt: skip
    names = legend([(part.label, part.css) for part in shown])
    return Markup('<div class="passes" role="group" aria-label="Each leads to its place in the timeline">{}</div>{}').format(
        Markup("").join(rows), names
    )  # fmt: skip


def _heat_map(of: Passes, zero_ns: int) -> Markup:
    """Cells in the order of time, coloured by their slowest pass against the median one."""
    usual = of.passes[of.median].span_ns or 1
    per_cell = -(-len(of.passes) // MOST_CELLS)
    slowest = of.slow[0].index if of.slow else 0
    cells = []
    for first in range(0, len(of.passes), per_cell):
        group = of.passes[first : first + per_cell]
        worst = max(range(len(group)), key=lambda i: (group[i].span_ns, -i))
        shown, ratio = group[worst], group[worst].span_ns / usual
        heat = sum(ratio > bound for bound in HEAT)
        title = f"{shown.name}: {units.ms(shown.span_ns)}, {units.times(ratio)} the median"
        cells.append(
            Markup('<a class="heat-{}" href="{}" tabindex="{}" title="{}" aria-label="{}"></a>').format(
                heat, place(shown.start_ns, shown.end_ns, zero_ns), 0 if first <= slowest < first + per_cell else -1, title, title
            )
        )  # fmt: skip
    bounds = ("up to 1.02", *(f"{a:g} to {b:g}" for a, b in pairwise(HEAT)), f"over {HEAT[-1]:g}")
    names = Markup("").join(
        Markup('<li><i class="heat-{}"></i>{}</li>').format(number, label) for number, label in enumerate(bounds)
    )
    several = (
        Markup("<p class=how>Each cell is the slowest of {} in a row.</p>").format(per_cell) if per_cell > 1 else ""
    )
    return Markup(
        '<div class="heat" role="group" aria-label="In the order of time: each leads to its place in the timeline">{}</div>'
        '{}<ul class="legend" aria-label="Length over the median">{}</ul>'
    ).format(Markup("").join(cells), several, names)
