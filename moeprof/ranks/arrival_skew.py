"""Arrival skew: which rank arrives last at each collective, how long the others wait, and what that rank did instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moeprof.analysis.intervals import Times
from moeprof.ranks.alignment import Alignment
from moeprof.ranks.matching import Match
from moeprof.ranks.model import CAUSES, EARLIER
from moeprof.ranks.summary import RankFacts


@dataclass(frozen=True)
class Arrivals:
    """One match on the common clock; times in ns.

    A rank's collective kernel waits until the last rank has arrived (or until it ends), then moves: waits + moving =
    duration.

    Args:
        waits, durations: [members, matched].
        behind: [members, matched], how much later than the middle rank each member arrives.
        skew: [matched] like the rest, from the first arrival to the last.
        last, middle: places among the members.
        late: of the last rank against the middle one.
        certain: whether the skew is beyond ``uncertainty_ns``, that of the clocks.
        together: whether there is a moment at which all ranks are in the collective.
        middle_did: [7, matched], what the middle rank did before, by CAUSES and EARLIER.
        because: what the last rank did more than the middle one; sums to ``late``.
        moving: from the last arrival to the last end.
        shift: [members], the offsets.
    """

    match: Match
    waits: Times
    durations: Times
    behind: Times
    skew: Times
    last: Times
    middle: Times
    late: Times
    certain: np.ndarray
    together: np.ndarray
    middle_did: Times
    because: Times
    moving: Times
    shift: Times
    uncertainty_ns: int

    @property
    def elapsed(self) -> Times:
        """From the first arrival to the last end: skew + moving."""
        return self.skew + self.moving


def arrivals(ranks: Sequence[RankFacts], match: Match, alignment: Alignment) -> Arrivals | None:
    """The arrivals of a match; None where it was refused, or a member's clock is not known."""
    offsets = [alignment.offsets[m] for m in match.members]
    if not match.rows.size or any(offset is None for offset in offsets):
        return None
    sides = [ranks[m].collectives for m in match.members]
    shift = np.array(offsets, dtype=np.int64)[:, None]

    def of(name: str) -> Times:
        return np.stack([getattr(side, name)[rows] for side, rows in zip(sides, match.rows, strict=True)])

    starts, ends, left = of("starts") + shift, of("ends") + shift, of("left") + shift
    uncertainty = alignment.uncertainty_ns
    latest, durations = starts.max(axis=0), ends - starts
    order = np.argsort(starts, axis=0, kind="stable")
    last, middle = order[-1], order[(len(order) - 1) // 2]
    columns = np.arange(starts.shape[1])
    skew = latest - starts.min(axis=0)
    last_did, middle_did = [left[last, columns]], [left[middle, columns]]
    for cause in range(len(CAUSES)):  # one at a time: a thousand ranks with ten thousand collectives are 80 MB each
        did = np.stack([side.before[cause][rows] for side, rows in zip(sides, match.rows, strict=True)])
        last_did.insert(cause, did[last, columns])
        middle_did.insert(cause, did[middle, columns])
    return Arrivals(
        match,
        waits=np.clip(latest - starts, 0, durations),
        durations=durations,
        behind=starts - starts[middle, columns],
        skew=skew,
        last=last,
        middle=middle,
        late=latest - starts[middle, columns],
        certain=skew > uncertainty,
        together=latest <= ends.min(axis=0) + uncertainty,
        middle_did=np.stack(middle_did),
        because=np.stack(last_did) - np.stack(middle_did),
        moving=np.maximum(ends.max(axis=0) - latest, 0),
        shift=shift[:, 0],
        uncertainty_ns=uncertainty,
    )


@dataclass(frozen=True)
class Late:
    """One member's lateness at one match; see model.Lateness.

    ``rank`` and ``others``: (compute ns, thread blocks) of the member and of the middle ranks, at the collectives where it was
    behind. Blocks are -1 where a launch shape is not known.
    """

    last: int
    late_ns: int
    because: dict[str, int]
    rank: tuple[int, int]
    others: tuple[int, int]


def lateness(ranks: Sequence[RankFacts], arrival: Arrivals, member: int) -> Late:
    """How often the member was last, and how far behind the middle rank in all, where by more than the clocks' uncertainty."""
    side, rows = ranks[arrival.match.members[member]].collectives, arrival.match.rows[member]
    did = np.concatenate([side.before[:, rows], (side.left[rows] + arrival.shift[member])[None]])
    behind = arrival.behind[member] > arrival.uncertainty_ns
    sums = (did - arrival.middle_did)[:, behind].sum(axis=1)
    causes = {name: int(ns) for name, ns in zip((*CAUSES, EARLIER), sums, strict=True) if ns}
    return Late(
        int(((arrival.last == member) & arrival.certain).sum()),
        int(arrival.behind[member][behind].sum()),
        causes,
        (int(did[0, behind].sum()), _summed(side.blocks[rows][behind])),
        (int(arrival.middle_did[0, behind].sum()), _summed(_of_middle(ranks, arrival)[behind])),
    )


def _of_middle(ranks: Sequence[RankFacts], arrival: Arrivals) -> Times:
    """Thread blocks that the middle rank of each collective launched before it."""
    blocks = np.empty(len(arrival.middle), dtype=np.int64)
    for member in np.unique(arrival.middle):
        chosen = arrival.middle == member
        side = ranks[arrival.match.members[int(member)]].collectives
        blocks[chosen] = side.blocks[arrival.match.rows[int(member), chosen]]
    return blocks


def _summed(blocks: Times) -> int:
    return -1 if (blocks < 0).any() else int(blocks.sum())
