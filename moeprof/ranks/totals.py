"""GroupAnalysis -> sums and percentiles over windows and ranks: what tables and sentences report of a group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from moeprof.ranks.model import Critical, GroupAnalysis, Rank
from moeprof.storage.manifest import VariantRecord

WAITING = "exposed_waiting_ns"  # known only for ranks with matched collectives


@dataclass(frozen=True)
class ClassTotal:
    """The communication of one class over the windows of a rank; times in ns."""

    count: int = 0
    hidden_ns: int = 0
    exposed_ns: int = 0

    @property
    def busy_ns(self) -> int:
        """Hidden and exposed time."""
        return self.hidden_ns + self.exposed_ns

    @property
    def hidden_ratio(self) -> float | None:
        """The hidden share of the busy time; None without busy time."""
        return self.hidden_ns / self.busy_ns if self.busy_ns else None


@dataclass(frozen=True)
class CriticalTotal:
    """A rank that decided ``windows`` windows for the reason ``why``; ``late_ns`` and ``cause`` are None if not known."""

    rank: int
    why: str
    windows: int
    late_ns: int | None
    cause: str | None  # of most of these windows


def by_lateness(ranks: Iterable[Rank]) -> list[Rank]:
    """The ranks, the one that is furthest behind first; equal ones by number."""
    return sorted(ranks, key=lambda r: (-(r.lateness.late_ns if r.lateness else 0), r.place.rank))


def percentiles(values: Sequence[float], percents: Sequence[float]) -> tuple[float | None, ...]:
    """The percentiles by linear interpolation, None for each without values."""
    return tuple(float(np.percentile(values, percent)) if values else None for percent in percents)


def part_percentiles(ranks: Iterable[Rank], part: str, percents: Sequence[float]) -> tuple[float | None, ...]:
    """Percentiles over ranks of ``Rank.total(part)``, in ns. Ranks without matched collectives have no waiting time."""
    return percentiles([r.total(part) for r in ranks if part != WAITING or r.waits_known], percents)


def class_totals(rank: Rank) -> dict[str, ClassTotal]:
    """The communication of the rank by class, over its windows."""
    totals: dict[str, ClassTotal] = {}
    for part in (part for window in rank.windows for part in window.communication):
        t = totals.get(part.name, ClassTotal())
        totals[part.name] = ClassTotal(
            t.count + part.count, t.hidden_ns + part.hidden_ns, t.exposed_ns + part.exposed_ns
        )
    return totals


def declared_gb_per_s(analysis: GroupAnalysis) -> dict[int, float]:
    """By rank: declared bytes over the link, over the time in which its communication runs, waiting included.

    Empty if the workload declares nothing, or if several classes share the time.
    """
    totals = {rank.place.rank: class_totals(rank) for rank in analysis.ranks}
    classes = {name for by_class in totals.values() for name in by_class}
    if analysis.declared_bytes is None or len(classes) != 1:
        return {}
    windows = {rank.place.rank: len(rank.windows) for rank in analysis.ranks}
    busy = {rank: total.busy_ns for rank, by_class in totals.items() for total in by_class.values()}
    return {rank: analysis.declared_bytes * windows[rank] / ns for rank, ns in busy.items() if ns}


@dataclass(frozen=True)
class DeclaredRate:
    """``declared_gb_per_s`` of one rank; ``of_ceiling`` is None where the link's ceiling is not known."""

    gb_per_s: float
    of_ceiling: float | None


def declared_rates(analysis: GroupAnalysis) -> dict[int, DeclaredRate]:
    """By rank: the rate of its declared bytes, and its share of the link's ceiling."""
    ceiling = analysis.link_ceiling_gb_per_s
    return {
        rank: DeclaredRate(rate, rate / ceiling if ceiling else None)
        for rank, rate in declared_gb_per_s(analysis).items()
    }


def waiting_ratio(ranks: Sequence[Rank]) -> float | None:
    """The share of all ranks' time in which a collective waits and nothing computes; None if no collective was matched."""
    span = sum(r.total("span_ns") for r in ranks)
    if not span or not any(r.waits_known for r in ranks):
        return None
    return sum(r.total(WAITING) for r in ranks) / span


def critical_totals(decisions: Sequence[Critical]) -> tuple[CriticalTotal, ...]:
    """The critical ranks by rank and reason, the most windows first."""
    counts = Counter((c.rank, c.why) for c in decisions)
    totals = []
    for (rank, why), windows in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        decided = [c for c in decisions if (c.rank, c.why) == (rank, why)]
        late = [c.late_ns for c in decided if c.late_ns is not None]
        causes = Counter(c.cause for c in decided if c.cause).most_common(1)
        totals.append(CriticalTotal(rank, why, windows, sum(late) if late else None, causes[0][0] if causes else None))
    return tuple(totals)


def median_time_ns(record: VariantRecord, rank: int) -> float | None:
    """The median clean time of one rank over the rounds that count; None if it was not timed."""
    times_ns = [r.ranks_ns[rank] for r in record.used if rank < len(r.ranks_ns)]
    return median(times_ns) if times_ns else None
