"""One key's collectives in numbers: skew, waiting, moving, and bus bandwidth against the link's ceiling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moeprof.metrics.arrivals import Arrivals
from moeprof.metrics.collective import bus_factor, bus_gb_per_s
from moeprof.metrics.group import Arrival, Collective
from moeprof.metrics.intervals import Times
from moeprof.metrics.matching import Match
from moeprof.metrics.rankfacts import RankFacts

OF_MOVING, OF_KERNEL = "moving time", "kernel time, waiting included"


def described(
    found: Sequence[RankFacts], match: Match, arrival: Arrivals | None, ceiling_gb_per_s: float | None
) -> Collective:
    """The row of a match."""
    ranks = match.group_size or len(match.members)
    bus, of, reason = _bandwidth(found, match, arrival, ranks)
    rows = () if arrival is None else _rows(found, arrival, ranks)
    total, coverage = sum(match.counts), match.rows.size
    skew = None if arrival is None else arrival.skew
    sizes = [int(s) for s in _sizes(found, match) if s > 0]
    return Collective(
        kind=match.key.kind,
        group=match.key.group,
        lane=match.key.lane,
        ranks=tuple(found[m].place.rank for m in match.members),
        group_size=match.group_size,
        least=min(match.counts),
        most=max(match.counts),
        matched=match.rows.shape[1],
        coverage_ratio=coverage / total if total else 0.0,
        refused=match.refused,
        bytes=sum(sizes) if sizes else None,
        bus_gb_per_s=bus,
        bus_of=of if bus is not None else "",
        no_bandwidth=reason,
        of_ceiling=bus / ceiling_gb_per_s if bus is not None and ceiling_gb_per_s else None,
        skew_median_ns=None if skew is None else int(np.median(skew)),
        skew_p90_ns=None if skew is None else int(np.percentile(skew, 90)),
        skew_max_ns=None if skew is None else int(skew.max()),
        waiting_ns=None if arrival is None else int(arrival.waits.sum()),
        moving_ns=None if arrival is None else int((arrival.durations - arrival.waits).sum()),
        arrivals=rows,
    )


def _sizes(found: Sequence[RankFacts], match: Match) -> Times:
    """Bytes of the first member's collectives, as far as they are told: all, or those that were matched."""
    side = found[match.members[0]].collectives
    rows = match.rows[0] if match.rows.size else np.flatnonzero(side.key == side.keys.index(match.key))
    return side.bytes[rows]


def _bandwidth(
    found: Sequence[RankFacts], match: Match, arrival: Arrivals | None, ranks: int
) -> tuple[float | None, str, str]:
    """Median bus bandwidth, of what time, and why there is none."""
    sizes = _sizes(found, match)
    if not (sizes > 0).any():
        return None, "", "the trace does not tell message sizes"
    if bus_factor(match.key.kind, ranks) is None:
        return None, "", f"no bus bandwidth is defined for {match.key.kind} of {ranks} ranks"
    if arrival is not None:
        times, of = arrival.moving, OF_MOVING
    else:
        side = found[match.members[0]].collectives
        mine = side.key == side.keys.index(match.key)
        times, of = side.ends[mine] - side.starts[mine], OF_KERNEL
    each = [bus_gb_per_s(match.key.kind, ranks, int(s), int(t)) for s, t in zip(sizes, times, strict=True) if s > 0]
    rates = [rate for rate in each if rate is not None]
    return (float(np.median(rates)), of, "") if rates else (None, "", "its kernels take no time")


def _rows(found: Sequence[RankFacts], arrival: Arrivals, ranks: int) -> tuple[Arrival, ...]:
    match = arrival.match
    places = [found[m].place.rank for m in match.members]
    sizes = _sizes(found, match)
    return tuple(
        Arrival(
            index, int(skew), places[int(last)] if told else None, int(late), int(moving), bool(together),
            int(size) if size > 0 else None, bus_gb_per_s(match.key.kind, ranks, int(size) if size > 0 else None, int(moving)),
        )
        for index, (skew, last, told, late, moving, together, size) in enumerate(
            zip(arrival.skew, arrival.last, arrival.told, arrival.late, arrival.moving, arrival.together, sizes, strict=True)
        )
    )  # fmt: skip
