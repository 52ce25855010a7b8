"""One window of each rank on the common clock, as bars: for few ranks, to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moeprof.analysis.intervals import EMPTY, Union, both, minus
from moeprof.ranks.analyze import Joined
from moeprof.ranks.critical import shared_windows
from moeprof.ranks.model import GroupAnalysis
from moeprof.ranks.summary import RankFacts


@dataclass(frozen=True)
class RankLane:
    """The bars of one rank, in ns from the first start of the window on any rank: what, and when."""

    rank: int
    parts: tuple[tuple[str, Union], ...]


COMPUTE, OTHER, MOVING, WAITING, UNMATCHED = (
    "compute",
    "copies",
    "collective moves",
    "collective waits",
    "communication",
)


def drawn_window(analysis: GroupAnalysis) -> int:
    """The window to draw: the one whose critical rank took a median time."""
    spans = [c.span_ns for c in analysis.critical]
    return int(np.argsort(spans, kind="stable")[(len(spans) - 1) // 2]) if spans else 0


@dataclass(frozen=True)
class DrawnWindow:
    """The drawn window of one rank, in ns by its own clock; ``shift_ns`` brings its times onto the joint axis, which begins
    with the first start of the window on any rank."""

    start_ns: int
    end_ns: int
    shift_ns: int


def windows(facts: Sequence[RankFacts], analysis: GroupAnalysis) -> dict[int, DrawnWindow]:
    """The drawn window by rank; empty where the clocks cannot be compared or the ranks have no window in common."""
    ordered = sorted(facts, key=lambda rank: rank.place.rank)
    offsets = [rank.aligned_by_ns for rank in analysis.ranks if rank.aligned_by_ns is not None]
    shared = shared_windows(analysis.ranks)
    if len(offsets) < len(analysis.ranks) or not shared.size:
        return {}
    row = shared[drawn_window(analysis)]
    chosen = [rank.windows[int(at)] for rank, at in zip(ordered, row, strict=True)]
    zero = min(window.start_ns + offset for window, offset in zip(chosen, offsets, strict=True))
    return {
        rank.place.rank: DrawnWindow(window.start_ns, window.end_ns, offset - zero)
        for rank, window, offset in zip(ordered, chosen, offsets, strict=True)
    }


def lanes(facts: Sequence[RankFacts], analysis: GroupAnalysis) -> tuple[RankLane, ...]:
    """A lane for each rank whose facts keep bars; none where the clocks cannot be compared."""
    ordered = sorted(facts, key=lambda rank: rank.place.rank)
    drawn = windows(ordered, analysis)
    if not drawn:
        return ()
    joined = Joined.of(ordered)
    return tuple(
        RankLane(f.place.rank, _parts(f, joined.waits(place), w.start_ns, w.end_ns, w.shift_ns))
        for place, f in enumerate(ordered)
        if f.owners and (w := drawn[f.place.rank])
    )


def _parts(
    rank: RankFacts, waits: tuple[Union, Union], start: int, end: int, shift: int
) -> tuple[tuple[str, Union], ...]:
    """Compute, other work, and communication in three: what moves, what waits, what was not matched."""
    compute, comm, busy = rank.owners
    matched, waiting = waits
    parts = (
        (COMPUTE, compute),
        (OTHER, minus(busy, both(compute, comm)) if len(busy.starts) else EMPTY),
        (MOVING, minus(matched, waiting)),
        (WAITING, waiting),
        (UNMATCHED, minus(comm, matched)),
    )
    clipped = ((name, bars.clip(start, end)) for name, bars in parts)
    return tuple((name, Union(bars.starts + shift, bars.ends + shift)) for name, bars in clipped if len(bars.starts))
