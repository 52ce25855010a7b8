"""Which rank each iteration waited for, and whether the load of experts explains the time of ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from moeprof.metrics.arrivals import Arrivals
from moeprof.metrics.group import CAUSES, EARLIER, Critical, LoadSkew, Rank
from moeprof.metrics.intervals import Times
from moeprof.metrics.rankfacts import RankFacts


def critical(found: Sequence[RankFacts], ranks: Sequence[Rank], arrived: Sequence[Arrivals]) -> tuple[Critical, ...]:
    """One for each window that all ranks have (by its number, or its place where it has none)."""
    count = min((len(rank.windows) for rank in ranks), default=0)
    if len(ranks) < 2 or not count:
        return ()
    late = np.zeros((count, len(ranks)), dtype=np.int64)
    because = np.zeros((count, len(ranks), len(CAUSES) + 1), dtype=np.int64)
    for arrival in arrived:
        window = _windows(found, arrival)
        chosen = arrival.told & (window >= 0) & (window < count)
        place = np.array(arrival.match.members)[arrival.last]
        np.add.at(late, (window[chosen], place[chosen]), arrival.late[chosen])
        np.add.at(because, (window[chosen], place[chosen]), arrival.because.T[chosen])
    return tuple(_critical(ranks, at, late[at], because[at]) for at in range(count))


def _windows(found: Sequence[RankFacts], arrival: Arrivals) -> Times:
    """The window in which the last rank's kernel of each collective starts, by that rank's clock; -1 before the first."""
    window = np.empty(len(arrival.last), dtype=np.int64)
    for member in np.unique(arrival.last):
        rank, mine = found[arrival.match.members[int(member)]], arrival.last == member
        starts = np.array([w.start_ns for w in rank.windows], dtype=np.int64)
        begun = rank.collectives.starts[arrival.match.rows[int(member), mine]]
        window[mine] = np.searchsorted(starts, begun, side="right") - 1
    return window


def _critical(ranks: Sequence[Rank], at: int, late: Times, because: Times) -> Critical:
    spans = [rank.windows[at].span_ns for rank in ranks]
    place = int(late.argmax()) if late.max() > 0 else int(np.argmax(spans))
    window = ranks[place].windows[at]
    cause = (*CAUSES, EARLIER)[int(because[place].argmax())] if late.max() > 0 else None
    return Critical(
        window.instance, ranks[place].place.rank, int(late[place]) if late.max() > 0 else None, cause, window.span_ns
    )


def load_skew(ranks: Sequence[Rank], series: Mapping[str, Sequence[float]]) -> tuple[LoadSkew, ...]:
    """Each series that is a number a rank, or experts laid out rank after rank (a whole number of them each)."""
    found = []
    compute = np.array([rank.total("compute_ns") for rank in ranks], dtype=np.float64)
    for name, values in series.items():
        if len(ranks) < 2 or not len(values) or len(values) % len(ranks):
            continue
        load = np.asarray(values, dtype=np.float64).reshape(len(ranks), -1).sum(axis=1)
        if load.mean() > 0 and compute.mean() > 0:
            varies = load.std() > 0 and compute.std() > 0
            found.append(
                LoadSkew(
                    name, tuple(float(v) for v in load), float(load.max() / load.mean()), float(compute.max() / compute.mean()),
                    float(np.corrcoef(load, compute)[0, 1]) if varies else None,
                )
            )  # fmt: skip
    return tuple(found)
