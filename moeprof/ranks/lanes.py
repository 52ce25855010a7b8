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


def lanes(facts: Sequence[RankFacts], analysis: GroupAnalysis) -> tuple[RankLane, ...]:
    """A lane for each rank whose facts keep bars; none where the clocks cannot be compared."""
    ordered = sorted(facts, key=lambda rank: rank.place.rank)
    offsets = [rank.aligned_by_ns for rank in analysis.ranks]
    shared = shared_windows(analysis.ranks)
    if None in offsets or not shared.size:
        return ()
    joined, row = Joined.of(ordered), shared[drawn_window(analysis)]
    known = [o for o in offsets if o is not None]
    windows = [rank.windows[int(at)] for rank, at in zip(ordered, row, strict=True)]
    zero = min(window.start_ns + offset for window, offset in zip(windows, known, strict=True))
    return tuple(
        RankLane(f.place.rank, _parts(f, joined.waits(place), w.start_ns, w.end_ns, offset - zero))
        for place, (f, w, offset) in enumerate(zip(ordered, windows, known, strict=True))
        if f.owners
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
