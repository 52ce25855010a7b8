"""One key's collectives in numbers: skew, waiting, moving, and bus bandwidth against the link's ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moeprof.analysis.intervals import Times
from moeprof.ranks.arrival_skew import Arrivals
from moeprof.ranks.collective import SEND_RECV, bus_factor, bus_gb_per_s
from moeprof.ranks.matching import Match
from moeprof.ranks.model import Arrival, Collective
from moeprof.ranks.summary import RankFacts

NO_SIZES = (
    "the trace does not contain message sizes (nsys needs the payloads of NCCL's NVTX ranges, torch.profiler the arguments that "
    "newer torch writes beside NCCL's kernels)"
)


@dataclass(frozen=True)
class Sizes:
    """What the matched collectives move.

    Args:
        bytes: [matched], of the whole array, by the rank with most of it; -1 where it is not known.
        ranks: of the group.
        exchange: sends and receives with several peers, which is an all-to-all.
    """

    bytes: Times
    ranks: int
    exchange: bool

    def factor(self, kind: str) -> float | None:
        """The factor from message bytes to bus bandwidth; None where the kind has none."""
        return bus_factor("AllToAll" if self.exchange else kind, self.ranks)


def described(
    ranks: Sequence[RankFacts], match: Match, arrival: Arrivals | None, ceiling_gb_per_s: float | None
) -> Collective:
    """The row of a match."""
    sizes, total = sizes_of(ranks, match), sum(match.counts)
    row = Collective(
        kind=match.key.kind,
        group=match.key.group,
        lane=match.key.lane,
        ranks=tuple(ranks[m].place.rank for m in match.members),
        group_size=match.group_size,
        least=min(match.counts),
        most=max(match.counts),
        matched=match.rows.shape[1],
        coverage_ratio=match.rows.size / total if total else 0.0,
        refused=match.refused,
        bytes=int(sizes.bytes.clip(0).sum()) or None,
        exchange=sizes.exchange,
    )
    if arrival is None:
        return replace(row, no_bandwidth="not matched across ranks")
    return _measured(row, _rows(ranks, arrival, sizes), arrival, sizes, ceiling_gb_per_s)


def sizes_of(facts: Sequence[RankFacts], match: Match) -> Sizes:
    """The sizes of a match, over its members."""
    ranks = match.group_size or len(match.members)
    largest, peers = np.full(match.rows.shape[1], -1, dtype=np.int64), -1
    for member, rows in zip(match.members, match.rows, strict=True):
        side = facts[member].collectives
        share = np.where(side.per_rank[rows] > 0, ranks, 1)
        largest = np.maximum(largest, np.where(side.bytes[rows] > 0, side.bytes[rows] * share, -1))
        peers = max(peers, int(side.peers[rows].max(initial=-1)))
    return Sizes(largest, ranks, match.key.kind == SEND_RECV and peers > 1)


def _measured(
    row: Collective, rows: tuple[Arrival, ...], arrival: Arrivals, sizes: Sizes, ceiling_gb_per_s: float | None
) -> Collective:
    rates = [r.bus_gb_per_s for r in rows if r.bus_gb_per_s is not None]
    bus = float(np.median(rates)) if rates else None
    return replace(
        row,
        bus_gb_per_s=bus,
        bus_gb_per_s_max=max(rates, default=None),
        no_bandwidth="" if rates else _why_none(row.kind, sizes),
        of_ceiling=bus / ceiling_gb_per_s if bus is not None and ceiling_gb_per_s else None,
        skew_median_ns=int(np.median(arrival.skew)),
        skew_p90_ns=int(np.percentile(arrival.skew, 90)),
        skew_max_ns=int(arrival.skew.max()),
        waiting_ns=int(arrival.waits.sum()),
        moving_ns=int((arrival.durations - arrival.waits).sum()),
        arrivals=rows,
    )


def _why_none(kind: str, sizes: Sizes) -> str:
    if not (sizes.bytes > 0).any():
        return NO_SIZES
    if sizes.factor(kind) is None:
        return f"not defined for {kind} of {sizes.ranks} ranks"
    return "nothing moves after the last arrival"


def _rows(ranks: Sequence[RankFacts], arrival: Arrivals, sizes: Sizes) -> tuple[Arrival, ...]:
    places = [ranks[m].place.rank for m in arrival.match.members]
    factor = sizes.factor(arrival.match.key.kind)
    columns = (arrival.skew, arrival.last, arrival.certain, arrival.late, arrival.moving, arrival.together, sizes.bytes)
    return tuple(
        Arrival(
            index, int(skew), places[int(last)] if known else None, int(late), int(moving), bool(together),
            int(size) if size > 0 else None, bus_gb_per_s(factor, int(size), int(moving)),
        )
        for index, (skew, last, known, late, moving, together, size) in enumerate(zip(*columns, strict=True))
    )  # fmt: skip
