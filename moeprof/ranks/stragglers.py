"""Stragglers: ranks that are late by more than chance, and why: more work, more rows, a lower clock, a late launch, ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from moeprof.ranks.model import (
    COPIES,
    DEPENDENCY,
    EARLIER,
    LATE_LAUNCH,
    LOWER_CLOCK,
    MORE_ROWS,
    MORE_WORK,
    SLOWER,
    Lateness,
    LoadSkew,
    Rank,
    Straggler,
)

# A rank's lateness of less than a hundredth of its time is not worth a claim. Ranks that jitter alike are late alike, so a
# straggler is late by several times the median of the others.
LEAST_SHARE, OUTLIER = 0.01, 3.0
EXPLAINS = 0.5  # a ratio explains longer compute where it is at least this share of the compute's own excess
GROUPS = {"compute": ("compute",), COPIES: ("copy",), LATE_LAUNCH: ("launch", "sync", "host"), DEPENDENCY: ("dependency",), EARLIER: (EARLIER,)}  # fmt: skip


def stragglers(
    ranks: Sequence[Rank], load: Sequence[LoadSkew], clocks_mhz: Mapping[int, float] | None = None
) -> tuple[Straggler, ...]:
    """The stragglers, the latest first. ``clocks_mhz`` are SM clocks by rank, where the capture has them."""
    late = {r.place.rank: r.lateness.late_ns for r in ranks if r.lateness is not None}
    late_ranks = []
    for rank in ranks:
        others_late_ns = [ns for number, ns in late.items() if number != rank.place.rank]
        if rank.lateness is not None and others_late_ns and _is_outlier(rank, rank.lateness, others_late_ns):
            late_ranks.append(_described(ranks, rank, rank.lateness, load, clocks_mhz or {}))
    return tuple(sorted(late_ranks, key=lambda s: (-s.late_ns, s.rank)))


def _is_outlier(rank: Rank, lateness: Lateness, others_late_ns: Sequence[int]) -> bool:
    enough = lateness.late_ns > LEAST_SHARE * rank.total("span_ns")
    return enough and lateness.late_ns > OUTLIER * float(np.median(others_late_ns))


def _described(
    ranks: Sequence[Rank], rank: Rank, lateness: Lateness, load: Sequence[LoadSkew], clocks_mhz: Mapping[int, float]
) -> Straggler:
    sums = {name: sum(lateness.because.get(cause, 0) for cause in causes) for name, causes in GROUPS.items()}
    largest = max(sums, key=lambda name: sums[name])
    name, rows = _load(ranks, rank, load)
    clock = _against_others(rank.place.rank, clocks_mhz)
    excess = (lateness.compute_ratio or 1.0) - 1.0
    cause = _of_compute(excess, lateness.work_ratio, rows, clock) if largest == "compute" else largest
    return Straggler(
        rank.place.rank, lateness.late_ns, lateness.last, lateness.of, cause, sums[largest], lateness.compute_ratio,
        lateness.work_ratio, name, rows, clock,
    )  # fmt: skip


def _of_compute(excess: float, work: float | None, rows: float | None, clock: float | None) -> str:
    """What explains compute that takes ``excess`` more: rows first, since they explain blocks too."""
    if rows is not None and rows - 1 >= EXPLAINS * excess > 0:
        return MORE_ROWS
    if work is not None and work - 1 >= EXPLAINS * excess > 0:
        return MORE_WORK
    if clock is not None and 1 / clock - 1 >= EXPLAINS * excess > 0:
        return LOWER_CLOCK
    return SLOWER


def _load(ranks: Sequence[Rank], rank: Rank, load: Sequence[LoadSkew]) -> tuple[str | None, float | None]:
    """The load series in which this rank has most against the others' mean."""
    place = next(at for at, r in enumerate(ranks) if r.place.rank == rank.place.rank)
    ratios = [(s.name, _ratio(s.load[place], [v for i, v in enumerate(s.load) if i != place])) for s in load]
    known = [(name, ratio) for name, ratio in ratios if ratio is not None]
    return max(known, key=lambda item: item[1]) if known else (None, None)


def _against_others(rank: int, values: Mapping[int, float]) -> float | None:
    return _ratio(values[rank], [v for r, v in values.items() if r != rank]) if rank in values else None


def _ratio(value: float, others: Sequence[float]) -> float | None:
    mean = float(np.mean(others)) if len(others) else 0.0
    return value / mean if mean > 0 and value > 0 else None
