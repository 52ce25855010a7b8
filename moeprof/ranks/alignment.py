"""One clock for all ranks: each rank's times plus its offset.

Ranks of one trace, or of one host, share a clock. Between hosts the capture's measured offset is used. Without one, the hosts'
own clocks are used if they agree on the ends of common collectives. Otherwise the offset is estimated from those ends, since
all ranks leave an all-reduce nearly together. The residual, the remaining difference of the ends, is the quality of the
alignment. Measured offsets also have an uncertainty. They are never adjusted to align the ends: that would hide the skew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moeprof.analysis.intervals import Times
from moeprof.ranks.collective import TOGETHER
from moeprof.ranks.matching import Match
from moeprof.ranks.model import Clocks
from moeprof.ranks.summary import RankFacts

# Within a node the ends of a collective differ by a few microseconds (at most 22 us in the recorded pair of H100s). The clocks of
# two hosts under NTP differ by 100 us and more.
AGREE_NS = 30_000
SHARED = ("one trace", "one host")  # methods
PASSES = 3  # of the estimate, each against the median of all ranks


@dataclass(frozen=True)
class Alignment:
    """``offsets`` in ns are added to each rank's times; ``residuals``: one per rank, None without a common collective."""

    clocks: Clocks
    offsets: tuple[int | None, ...]
    residuals: tuple[int | None, ...]

    @property
    def uncertainty_ns(self) -> int:
        """The uncertainty of a difference of times of two ranks; 0 where they share a clock."""
        if self.clocks.method in SHARED:
            return 0
        return max(self.clocks.residual_ns or 0, self.clocks.uncertainty_ns or 0)


@dataclass(frozen=True)
class Ends:
    """Ends [members, matched] of one match, and the clock domain of each member."""

    members: Times
    domains: Times
    ends: Times


def align(ranks: Sequence[RankFacts], matched: Sequence[Match]) -> Alignment:
    """The offsets of all ranks."""
    base, domains = _bases(ranks)
    common = _ends(ranks, matched, base, domains)
    if len(set(domains.tolist())) == 1:
        single = len({rank.place.file for rank in ranks}) == 1
        text = "one trace, one clock" if single else "one host, one clock"
        return _settled(ranks, common, base, "one trace" if single else "one host", text)
    given = [rank.place.clock_offset_ns for rank in ranks]
    utc = all(rank.place.zero_utc_ns is not None for rank in ranks)
    if utc and all(offset is not None for offset in given):
        offsets = base + np.array(given, dtype=np.int64)
        common = [Ends(c.members, c.domains, c.ends + np.array(given, np.int64)[c.members][:, None]) for c in common]
        return _measured(ranks, _settled(ranks, common, offsets, "given", "offsets that the capture measured"), domains)
    if not common:
        text = "different clocks and no collective in common: times of different ranks are not compared"
        return Alignment(Clocks("none", text, None), (None,) * len(ranks), (None,) * len(ranks))
    residuals = _residuals(len(ranks), common)
    if utc and max((r for r in residuals if r is not None), default=AGREE_NS + 1) <= AGREE_NS:
        return _settled(
            ranks, common, base, "own clocks", "the traces' own clocks, which agree on the ends of common collectives"
        )
    return _estimated(ranks, common, base, domains)


def _measured(ranks: Sequence[RankFacts], given: Alignment, domains: Times) -> Alignment:
    """The alignment with its uncertainty: the sum of the two largest ones, of one rank on each clock."""
    uncertainties = [
        max(r.place.clock_uncertainty_ns for r, d in zip(ranks, domains, strict=True) if d == clock)
        for clock in np.unique(domains)
    ]
    most = sum(sorted(uncertainties)[-2:])
    if not most:
        return given
    text = f"{given.clocks.text}, to within {most / 1e3:.1f} us"
    return replace(given, clocks=replace(given.clocks, text=text, uncertainty_ns=most))


def _bases(ranks: Sequence[RankFacts]) -> tuple[Times, Times]:
    """Each trace's zero by its own clock, relative to the first rank's, and the number of that clock.

    A clock is a host's where the host and the trace's zero are known, else the trace file's.
    """
    zeros = [rank.place.zero_utc_ns for rank in ranks]
    if all(zero is not None for zero in zeros):
        base = np.array([zero - (zeros[0] or 0) for zero in zeros if zero is not None], dtype=np.int64)
    else:
        base = np.zeros(len(ranks), dtype=np.int64)
    known = all(zero is not None for zero in zeros)
    names = [f"host {r.place.host}" if known and r.place.host else f"file {r.place.file}" for r in ranks]
    order = list(dict.fromkeys(names))
    return base, np.array([order.index(name) for name in names])


def _ends(ranks: Sequence[RankFacts], matched: Sequence[Match], base: Times, domains: Times) -> list[Ends]:
    """The ends of what all ranks leave together; of anything matched, where nothing is of such a kind. The widest first."""
    usable = [m for m in matched if m.rows.size]
    chosen = [m for m in usable if m.key.kind in TOGETHER] or usable
    chosen.sort(key=lambda m: -m.rows.size)
    return [
        Ends(
            np.array(m.members), domains[list(m.members)],
            np.stack([ranks[p].collectives.ends[rows] + base[p] for p, rows in zip(m.members, m.rows, strict=True)]),
        )
        for m in chosen
    ]  # fmt: skip


def _settled(ranks: Sequence[RankFacts], common: list[Ends], offsets: Times, method: str, text: str) -> Alignment:
    """Offsets as they are, with the residual that the ends (moved by them) show."""
    residuals = _residuals(len(ranks), common)
    worst = max((r for r in residuals if r is not None), default=None)
    return Alignment(Clocks(method, text, worst), tuple(int(o) for o in offsets), residuals)


def _residuals(count: int, common: list[Ends]) -> tuple[int | None, ...]:
    """For each rank the median distance of its ends from the median end of each collective."""
    apart: list[list[Times]] = [[] for _ in range(count)]
    for side in common:
        distance = np.abs(side.ends - np.median(side.ends, axis=0))
        for member, row in zip(side.members, distance, strict=True):
            apart[int(member)].append(row)
    return tuple(int(np.median(np.concatenate(rows))) if rows else None for rows in apart)


def _estimated(ranks: Sequence[RankFacts], common: list[Ends], base: Times, domains: Times) -> Alignment:
    """One offset a clock, so that the ends of common collectives meet; clocks that share none keep None."""
    shift = _first_guess(common, int(domains.max()) + 1)
    for _ in range(PASSES):
        shift = _refined(common, shift)
    moved = [Ends(s.members, s.domains, s.ends + np.round(shift[s.domains]).astype(np.int64)[:, None]) for s in common]
    residuals = _residuals(len(ranks), moved)
    offsets = tuple(
        None if np.isnan(shift[d]) else int(b) + round(float(shift[d])) for b, d in zip(base, domains, strict=True)
    )
    worst = max((r for r in residuals if r is not None), default=None)
    text = "offsets estimated from the ends of common collectives, which all ranks leave nearly together"
    return Alignment(Clocks("ends", text, worst), offsets, residuals)


def _first_guess(common: list[Ends], clocks: int) -> np.ndarray:
    """From one clock to those that share a collective with it, and on; a clock that no known one reaches starts anew."""
    shift = np.full(clocks, np.nan)
    left = list(common)
    while left:
        side = next((s for s in left if not np.isnan(shift[s.domains]).all()), left[0])
        left.remove(side)
        if np.isnan(shift[side.domains]).all():
            shift[side.domains[0]] = 0.0
        known = ~np.isnan(shift[side.domains])
        middle = np.median(side.ends[known] + shift[side.domains[known]][:, None], axis=0)
        for clock in np.unique(side.domains[~known]):
            shift[clock] = np.median(middle - side.ends[side.domains == clock])
    return shift


def _refined(common: list[Ends], shift: np.ndarray) -> np.ndarray:
    """Each clock moved by the median distance of its ends from the median ends of all."""
    apart: dict[int, list[np.ndarray]] = {}
    for side in common:
        ends = side.ends + shift[side.domains][:, None]
        distance = np.median(ends, axis=0) - ends
        for clock in np.unique(side.domains):
            apart.setdefault(int(clock), []).append(distance[side.domains == clock].ravel())
    moved = shift.copy()
    for clock, rows in apart.items():
        moved[clock] += np.median(np.concatenate(rows))
    return moved - moved[np.flatnonzero(~np.isnan(moved))[0]]
