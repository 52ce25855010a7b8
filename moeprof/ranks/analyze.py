"""Facts of many ranks -> GroupAnalysis: matched collectives, waiting and moving time, stragglers, critical ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moeprof.analysis.intervals import EMPTY, Union, intersection_ns, minus, union
from moeprof.notes import Note, note
from moeprof.ranks.alignment import Alignment, align
from moeprof.ranks.arrival_skew import Arrivals, arrivals, lateness
from moeprof.ranks.bandwidth import described
from moeprof.ranks.critical import critical, load_skew
from moeprof.ranks.matching import Match, matches
from moeprof.ranks.model import CAUSES, EARLIER, Clocks, Collective, GroupAnalysis, Lateness, Rank, RankWindow, Slice
from moeprof.ranks.stragglers import stragglers
from moeprof.ranks.summary import RankFacts

LEAST_TOGETHER = 0.9  # of matched collectives that must have a moment common to all ranks; below it a note says so


@dataclass(frozen=True)
class Joined:
    """A group on one clock: ``ranks`` in order, its matches, the clocks, and the arrivals of each match that has them."""

    ranks: Sequence[RankFacts]
    matched: tuple[Match, ...]
    alignment: Alignment
    arrived: tuple[Arrivals | None, ...]

    @staticmethod
    def of(ranks: Sequence[RankFacts]) -> Joined:
        """The group of these ranks."""
        matched = matches(ranks)
        alignment = align(ranks, matched)
        return Joined(ranks, matched, alignment, tuple(arrivals(ranks, match, alignment) for match in matched))

    def arrivals_of(self, place: int) -> list[tuple[Arrivals, int]]:
        """The arrivals that the rank at ``place`` takes part in, with its place among their members."""
        return [(a, a.match.members.index(place)) for a in self.arrived if a is not None and place in a.match.members]

    def waits(self, place: int) -> tuple[Union, Union]:
        """All time of the rank's matched collectives, and the waiting part of it, in its own clock."""
        arrivals = self.arrivals_of(place)
        if not arrivals:
            return EMPTY, EMPTY
        side = self.ranks[place].collectives
        rows = np.concatenate([a.match.rows[member] for a, member in arrivals])
        starts = side.starts[rows]
        waited = np.concatenate([a.waits[member] for a, member in arrivals])
        return union(starts, side.ends[rows]), union(starts, starts + waited)


def analyse_ranks(
    source: str,
    facts: Sequence[RankFacts],
    link_ceiling_gb_per_s: float | None = None,
    series: Mapping[str, Sequence[float]] | None = None,
    clocks_mhz: Mapping[int, float] | None = None,
) -> GroupAnalysis:
    """All numbers of the group.

    Args:
        series: loads of experts or ranks, to compare with the ranks' compute time.
        clocks_mhz: the SM clocks by rank.
    """
    joined = Joined.of(sorted(facts, key=lambda rank: rank.place.rank))
    ranks = tuple(_rank(joined, place) for place in range(len(joined.ranks)))
    collectives = tuple(
        described(joined.ranks, match, arrival, link_ceiling_gb_per_s)
        for match, arrival in zip(joined.matched, joined.arrived, strict=True)
    )
    load = load_skew(ranks, series or {})
    return GroupAnalysis(
        source=source,
        ranks=ranks,
        collectives=collectives,
        clocks=joined.alignment.clocks,
        critical=critical(joined.ranks, ranks, [a for a in joined.arrived if a is not None]),
        stragglers=stragglers(ranks, load, clocks_mhz),
        load=load,
        notes=_notes(joined, collectives),
        link_ceiling_gb_per_s=link_ceiling_gb_per_s,
        of_ranks=max((r.place.world_size for r in joined.ranks if r.place.world_size), default=None),
    )


def _rank(joined: Joined, place: int) -> Rank:
    rank, arrivals = joined.ranks[place], joined.arrivals_of(place)
    matched, waiting = joined.waits(place)
    windows = tuple(_waited(w, matched, waiting, rank.hidden) for w in rank.windows) if arrivals else rank.windows
    return Rank(
        rank.place, windows, rank.kernels, joined.alignment.offsets[place], joined.alignment.residuals[place],
        _lateness(joined.ranks, arrivals) if arrivals else None, _slices(rank, waiting) if len(windows) == 1 else (),
    )  # fmt: skip


def _waited(window: RankWindow, matched: Union, waiting: Union, hidden: Union) -> RankWindow:
    inside = waiting.clip(window.start_ns, window.end_ns)
    return replace(
        window,
        waiting_ns=inside.total_ns,
        exposed_waiting_ns=inside.total_ns - intersection_ns(inside, hidden),
        moving_ns=matched.clip(window.start_ns, window.end_ns).total_ns - inside.total_ns,
    )


def _lateness(ranks: Sequence[RankFacts], arrivals: Sequence[tuple[Arrivals, int]]) -> Lateness:
    """The lateness of a rank, summed over all collectives that it takes part in."""
    parts = [lateness(ranks, a, member) for a, member in arrivals]
    because = {cause: sum(part.because.get(cause, 0) for part in parts) for cause in (*CAUSES, EARLIER)}
    rank, median_rank = (np.array([getattr(part, side) for part in parts]) for side in ("rank", "others"))
    blocks_known = bool((rank[:, 1] >= 0).all() and (median_rank[:, 1] >= 0).all())
    return Lateness(
        sum(part.last for part in parts),
        sum(a.match.rows.shape[1] for a, _ in arrivals),
        sum(part.late_ns for part in parts),
        {cause: ns for cause, ns in because.items() if ns},
        _ratio(int(rank[:, 0].sum()), int(median_rank[:, 0].sum())),
        _ratio(int(rank[:, 1].sum()), int(median_rank[:, 1].sum())) if blocks_known else None,
    )


def _ratio(rank: int, median_rank: int) -> float | None:
    return rank / median_rank if median_rank > 0 else None


def _slices(rank: RankFacts, waiting: Union) -> tuple[Slice, ...]:
    """The parts of a trace that has no iterations."""
    length = np.maximum(np.diff(rank.edges), 1)
    compute, working, busy = (np.diff(rank.reached[i]) for i in (0, 1, -1))
    waited = minus(waiting, rank.hidden).covered(rank.edges[:-1], rank.edges[1:])
    parts = (busy - working + compute, working - compute - waited, waited, np.diff(rank.edges) - busy)
    rows = zip(*(np.round(part / length, 4) for part in parts), strict=True)
    return tuple(Slice(*(float(share) for share in row)) for row in rows)


def _notes(joined: Joined, collectives: Sequence[Collective]) -> tuple[Note, ...]:
    clocks = joined.alignment.clocks
    ways = sorted({rank.place.derived for rank in joined.ranks if rank.place.derived})
    notes = [note("rank-derived", how="; ".join(ways[:4]))] if ways else []
    if clocks.method == "none" and len(joined.ranks) > 1:
        notes.append(note("rank-no-clock", why=clocks.text))
    elif clocks.residual_ns is not None:
        notes.append(note("rank-clock", text=clocks.text, residual_us=clocks.residual_ns / 1e3))
    notes += _clock_notes(clocks)
    stray = sum(rank.place.stray_kernels for rank in joined.ranks)
    notes += [note("rank-stray", count=stray)] if stray else []
    notes += _unsized(collectives)
    for match, arrival, collective in zip(joined.matched, joined.arrived, collectives, strict=True):
        notes += _doubts(label(collective), match, arrival)
    return tuple(notes)


def _clock_notes(clocks: Clocks) -> list[Note]:
    """How well the ends of collectives confirm measured clocks."""
    if clocks.uncertainty_ns is None:
        return []
    most_us = clocks.uncertainty_ns / 1e3
    if clocks.residual_ns is not None and clocks.residual_ns > clocks.uncertainty_ns:
        return [note("rank-clock-off", uncertainty_us=most_us, residual_us=clocks.residual_ns / 1e3)]
    return [note("rank-clock-within", uncertainty_us=most_us)]


def _doubts(what: str, match: Match, arrival: Arrivals | None) -> list[Note]:
    notes = [note("rank-refused", what=what, why=match.refused)] if match.refused else []
    if arrival is not None and len(arrival.together) and arrival.together.mean() < LEAST_TOGETHER:
        notes.append(note("rank-doubt", what=what, share_percent=100 * float(arrival.together.mean())))
    if match.group_size is not None and len(match.members) < match.group_size:
        notes.append(note("rank-absent", what=what, present=len(match.members), size=match.group_size))
    return notes


def _unsized(collectives: Sequence[Collective]) -> list[Note]:
    """Why there is no bus bandwidth, once for each reason."""
    reasons = dict.fromkeys(c.no_bandwidth for c in collectives if c.no_bandwidth)
    kinds = {why: ", ".join(sorted({c.kind for c in collectives if c.no_bandwidth == why})) for why in reasons}
    return [note("rank-no-bandwidth", what=what, why=why) for why, what in kinds.items()]


def label(collective: Collective) -> str:
    """AllReduce of group 0 [0, 1], or SendRecv (all-to-all), stream 0."""
    kind = f"{collective.kind} (all-to-all)" if collective.exchange else collective.kind
    return f"{kind} of group {collective.group}" if collective.group else f"{kind}, stream {collective.lane}"
