"""The critical rank of each iteration, and whether the load of experts explains the ranks' times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from moeprof.analysis.intervals import Times
from moeprof.ranks.arrival_skew import Arrivals
from moeprof.ranks.model import CAUSES, EARLIER, Critical, LoadSkew, Rank, RankWindow
from moeprof.ranks.summary import RankFacts


def critical(facts: Sequence[RankFacts], ranks: Sequence[Rank], arrived: Sequence[Arrivals]) -> tuple[Critical, ...]:
    """The critical rank of each window that all ranks have (by its number, or its place if it has none)."""
    shared = shared_windows(ranks)
    if len(ranks) < 2 or not shared.size:
        return ()
    late = np.zeros((len(shared), len(ranks)), dtype=np.int64)
    because = np.zeros((len(shared), len(ranks), len(CAUSES) + 1), dtype=np.int64)
    for arrival in arrived:
        place = np.array(arrival.match.members)[arrival.last]
        window = _windows(facts, arrival, place, shared)
        chosen = arrival.certain & (window >= 0)
        np.add.at(late, (window[chosen], place[chosen]), arrival.late[chosen])
        np.add.at(because, (window[chosen], place[chosen]), arrival.because.T[chosen])
    return tuple(_critical(ranks, shared[at], late[at], because[at]) for at in range(len(shared)))


def shared_windows(ranks: Sequence[Rank]) -> Times:
    """[windows, ranks]: where each rank has the windows that all have."""
    numbers = [[w.instance for w in rank.windows] for rank in ranks]
    if any(None in instances or len(set(instances)) < len(instances) for instances in numbers):
        count = min((len(instances) for instances in numbers), default=0)
        return np.tile(np.arange(count)[:, None], (1, len(ranks)))
    common = set(numbers[0]).intersection(*numbers[1:]) if numbers else set()
    places = [{number: at for at, number in enumerate(instances)} for instances in numbers]
    return np.array(
        [[instances[n] for instances in places] for n in numbers[0] if n in common], dtype=np.int64
    ).reshape(-1, len(ranks))


def _windows(ranks: Sequence[RankFacts], arrival: Arrivals, place: Times, shared: Times) -> Times:
    """The row of ``shared`` in which the last rank's kernel of each collective starts, by its clock; -1 where in none."""
    window = np.full(len(place), -1, dtype=np.int64)
    for member in np.unique(arrival.last):
        chosen, last_rank = arrival.last == member, arrival.match.members[int(member)]
        rank = ranks[last_rank]
        starts = np.array([w.start_ns for w in rank.windows], dtype=np.int64)
        ends = np.array([w.end_ns for w in rank.windows], dtype=np.int64)
        begun = rank.collectives.starts[arrival.match.rows[int(member), chosen]]
        at = np.searchsorted(starts, begun, side="right") - 1
        row_of = np.full(len(starts) + 1, -1, dtype=np.int64)  # the last entry is for those before the first window
        row_of[shared[:, last_rank]] = np.arange(len(shared))
        window[chosen] = np.where(begun < ends[at], row_of[at], -1)
    return window


def _critical(ranks: Sequence[Rank], places: Times, late: Times, because: Times) -> Critical:
    windows = [rank.windows[int(at)] for rank, at in zip(ranks, places, strict=True)]
    if late.max() > 0:
        place = int(late.argmax())
        cause = (*CAUSES, EARLIER)[int(because[place].argmax())]
        return _chosen(ranks, windows, place, "waited for", int(late[place]), cause)
    offsets = [rank.aligned_by_ns for rank in ranks]
    if None in offsets:
        return _chosen(ranks, windows, int(np.argmax([w.span_ns for w in windows])), "longest", None, None)
    ends = [w.end_ns + (offset or 0) for w, offset in zip(windows, offsets, strict=True)]
    return _chosen(ranks, windows, int(np.argmax(ends)), "ends last", None, None)


def _chosen(
    ranks: Sequence[Rank], windows: Sequence[RankWindow], place: int, why: str, late_ns: int | None, cause: str | None
) -> Critical:
    window = windows[place]
    return Critical(window.instance, ranks[place].place.rank, why, late_ns, cause, window.span_ns)


def load_skew(ranks: Sequence[Rank], series: Mapping[str, Sequence[float]]) -> tuple[LoadSkew, ...]:
    """Each series that is a number per rank, or experts laid out rank after rank (a whole number of them each)."""
    compute = np.array([rank.total("compute_ns") for rank in ranks], dtype=np.float64)
    skews = (_skew(name, values, compute) for name, values in series.items())
    return tuple(skew for skew in skews if skew is not None)


def _skew(name: str, values: Sequence[float], compute: np.ndarray) -> LoadSkew | None:
    if len(compute) < 2 or not len(values) or len(values) % len(compute):
        return None
    load = np.asarray(values, dtype=np.float64).reshape(len(compute), -1).sum(axis=1)
    if load.mean() <= 0 or compute.mean() <= 0:
        return None
    varies = load.std() > 0 and compute.std() > 0
    return LoadSkew(
        name, tuple(float(v) for v in load), float(load.max() / load.mean()), float(compute.max() / compute.mean()),
        float(np.corrcoef(load, compute)[0, 1]) if varies else None,
    )  # fmt: skip
