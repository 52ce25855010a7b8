"""Rank x window shares of a group for a heat map, bounded: the latest ranks by themselves, the others as bands of means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moeprof.ranks.model import GroupAnalysis, Rank
from moeprof.ranks.totals import by_lateness


@dataclass(frozen=True)
class Bounds:
    """The most rows and columns. With more ranks than ``rows``, the ``single`` latest have a row each."""

    rows: int
    single: int
    columns: int


@dataclass(frozen=True)
class Heat:
    """``members[i]`` are the ranks whose mean row ``shares[i]`` contains; ``shares`` [rows, columns] are of a window."""

    members: tuple[tuple[int, ...], ...]
    shares: np.ndarray

    @property
    def spread(self) -> tuple[tuple[float, float, float], ...]:
        """The least, mean and largest share of each row."""
        return tuple((float(row.min()), float(row.mean()), float(row.max())) for row in self.shares)


def heat(analysis: GroupAnalysis, key: str, bounds: Bounds) -> Heat:
    """The shares ``key`` (waiting, moving, busy) of the windows that every rank has."""
    shares = {rank.place.rank: window_shares(rank, key) for rank in analysis.ranks}
    width = min(len(row) for row in shares.values())
    rows = {rank: _narrowed(row[:width], bounds.columns) for rank, row in shares.items()}
    if len(rows) <= bounds.rows:
        return Heat(tuple((rank,) for rank in rows), np.stack(list(rows.values())))
    single = [r.place.rank for r in by_lateness(analysis.ranks)[: bounds.single]]
    bands = np.array_split(np.array([rank for rank in rows if rank not in single]), bounds.rows - bounds.single)
    members = (*((rank,) for rank in single), *(tuple(band.tolist()) for band in bands))
    return Heat(members, np.stack([np.mean([rows[rank] for rank in band], axis=0) for band in members]))


def window_shares(rank: Rank, key: str) -> np.ndarray:
    """One share per window, or one per slice of the trace if the whole trace is one window."""
    if rank.slices:
        return np.array([getattr(s, f"{key}_ratio") for s in rank.slices])
    shares = []
    for w in rank.windows:
        waiting = w.exposed_waiting_ns or 0
        busy = w.span_ns - w.ledger.exposed_comm_ns - w.ledger.idle_ns
        part = {"waiting": waiting, "moving": w.ledger.exposed_comm_ns - waiting, "busy": busy}[key]
        shares.append(part / w.span_ns if w.span_ns else 0.0)
    return np.array(shares)


def _narrowed(values: np.ndarray, columns: int) -> np.ndarray:
    """At most ``columns`` values, as means of neighbours."""
    if len(values) <= columns:
        return values
    return np.array([part.mean() for part in np.array_split(values, columns)])
