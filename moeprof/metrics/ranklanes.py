"""One window of each rank on the common clock, as bars: for few ranks, to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moeprof.metrics.group import GroupAnalysis
from moeprof.metrics.intervals import EMPTY, Union, both, minus
from moeprof.metrics.rankfacts import RankFacts
from moeprof.metrics.ranks import Joined


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
    """Which window is drawn: the one whose critical rank took a median time."""
    spans = [c.span_ns for c in analysis.critical]
    return int(np.argsort(spans, kind="stable")[(len(spans) - 1) // 2]) if spans else 0


def lanes(found: Sequence[RankFacts], analysis: GroupAnalysis) -> tuple[RankLane, ...]:
    """One lane a rank; empty where the facts keep no bars (many ranks) or the clocks cannot be compared."""
    ordered = sorted(found, key=lambda rank: rank.place.rank)
    at = drawn_window(analysis)
    offsets = [rank.aligned_by_ns for rank in analysis.ranks]
    if (
        any(o is None for o in offsets)
        or not all(f.owners for f in ordered)
        or any(len(f.windows) <= at for f in ordered)
    ):
        return ()
    joined = Joined.of(ordered)
    zero = min(f.windows[at].start_ns + (o or 0) for f, o in zip(ordered, offsets, strict=True))
    return tuple(
        RankLane(
            f.place.rank, _parts(f, joined.waits(place), f.windows[at].start_ns, f.windows[at].end_ns, (o or 0) - zero)
        )
        for place, (f, o) in enumerate(zip(ordered, offsets, strict=True))
    )


def _parts(
    rank: RankFacts, waits: tuple[Union, Union], start: int, end: int, shift: int
) -> tuple[tuple[str, Union], ...]:
    """Compute, other work, and communication in three: what moves, what waits, what was not matched."""
    compute, comm, busy = rank.owners
    matched, waiting = waits
    found = (
        (COMPUTE, compute),
        (OTHER, minus(busy, both(compute, comm)) if len(busy.starts) else EMPTY),
        (MOVING, minus(matched, waiting)),
        (WAITING, waiting),
        (UNMATCHED, minus(comm, matched)),
    )
    clipped = ((name, bars.clip(start, end)) for name, bars in found)
    return tuple((name, Union(bars.starts + shift, bars.ends + shift)) for name, bars in clipped if len(bars.starts))
