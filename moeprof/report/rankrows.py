"""GroupAnalysis -> tables of text, bounded: few ranks all of them, many ranks the latest and the spread."""

from __future__ import annotations

from collections import Counter

import numpy as np

from moeprof.metrics.group import Collective, GroupAnalysis, Rank
from moeprof.metrics.ranks import label
from moeprof.report import format as fmt
from moeprof.report.tables import Table

MOST_ROWS = 16  # ranks that are listed one by one
LATEST, QUICKEST = 8, 4  # of more: those that arrive late by most, those that wait longest for others
COLUMNS = (
    ("span", "span_ns"), ("compute", "compute_ns"), ("exposed comm", "exposed_comm_ns"), ("of it waiting", "exposed_waiting_ns"),
    ("exposed copy", "exposed_copy_ns"), ("idle", "idle_ns"),
)  # fmt: skip
SPREAD = (("least", 0), ("10 %", 10), ("median", 50), ("90 %", 90), ("most", 100))


def ranks(analysis: GroupAnalysis) -> Table:
    """The ranks: totals over their windows, how often each was last to arrive, and why."""
    shown = listed(analysis.ranks)
    caption = (
        "Ranks"
        if len(shown) == len(analysis.ranks)
        else f"Ranks: {len(shown)} of {len(analysis.ranks)}, the latest first, then those that wait longest (--json has all)"
    )
    header = ("rank", "GPU", "windows", *(name for name, _ in COLUMNS), "last", "behind", "mostly")
    return Table(caption, header, tuple(_rank(rank) for rank in shown))


def listed(found: tuple[Rank, ...]) -> tuple[Rank, ...]:
    """Few ranks in order; of many the latest, and those that wait longest."""
    if len(found) <= MOST_ROWS:
        return found
    late = by_lateness(found)[:LATEST]
    waiting = sorted((r for r in found if r not in late), key=lambda r: (-r.total("exposed_waiting_ns"), r.place.rank))
    return (*late, *waiting[:QUICKEST])


def by_lateness(found: tuple[Rank, ...]) -> list[Rank]:
    """The ranks, the one that makes the others wait most first."""
    return sorted(found, key=lambda r: (-(r.lateness.late_ns if r.lateness else 0), r.place.rank))


def _rank(rank: Rank) -> tuple[str, ...]:
    late = rank.lateness
    return (
        str(rank.place.rank), fmt.number(rank.place.device), fmt.number(len(rank.windows)), *(_total(rank, part) for _, part in COLUMNS),
        fmt.DASH if late is None else f"{late.last} of {late.of}", fmt.DASH if late is None else fmt.ms(late.late_ns),
        (late.cause if late else None) or fmt.DASH,
    )  # fmt: skip


def _total(rank: Rank, part: str) -> str:
    return fmt.DASH if part == "exposed_waiting_ns" and not rank.waits_known else fmt.ms(rank.total(part))


def spread(analysis: GroupAnalysis) -> Table:
    """Percentiles over the ranks; of interest where they are many."""
    rows = []
    for name, quantile in SPREAD:
        cells = []
        for _, part in COLUMNS:
            values = [r.total(part) for r in analysis.ranks if part != "exposed_waiting_ns" or r.waits_known]
            cells.append(fmt.ms(float(np.percentile(values, quantile))) if values else fmt.DASH)
        rows.append((name, *cells))
    return Table(f"Spread over {len(analysis.ranks)} ranks", ("", *(name for name, _ in COLUMNS)), tuple(rows))


def collectives(analysis: GroupAnalysis) -> Table:
    """What was matched across ranks, and how it moves."""
    header = (
        "collective",
        "ranks",
        "matched",
        "bytes",
        "bus GB/s",
        "of ceiling",
        "skew median",
        "90 %",
        "most",
        "waiting",
        "moving",
        "remark",
    )
    return Table("Collectives across ranks", header, tuple(_collective(c) for c in analysis.collectives))


def _collective(found: Collective) -> tuple[str, ...]:
    remark = found.refused or (
        f"no bandwidth: {found.no_bandwidth}" if found.no_bandwidth else f"bandwidth of {found.bus_of}"
    )
    return (
        label(found), f"{len(found.ranks)}" + (f" of {found.group_size}" if found.group_size else ""),
        f"{found.matched} ({fmt.percent(found.coverage_ratio)})", fmt.size(found.bytes), fmt.rate(found.bus_gb_per_s),
        fmt.percent(found.of_ceiling), fmt.us(found.skew_median_ns), fmt.us(found.skew_p90_ns), fmt.us(found.skew_max_ns),
        fmt.ms(found.waiting_ns), fmt.ms(found.moving_ns), remark,
    )  # fmt: skip


def classes(analysis: GroupAnalysis) -> Table:
    """Exposed and hidden communication by class: the spread over ranks."""
    sums: dict[str, list[tuple[int, int, int]]] = {}
    for rank in analysis.ranks:
        for name in sorted({c.name for w in rank.windows for c in w.communication}):
            mine = [c for w in rank.windows for c in w.communication if c.name == name]
            sums.setdefault(name, []).append(
                (sum(c.count for c in mine), sum(c.hidden_ns for c in mine), sum(c.exposed_ns for c in mine))
            )
    rows = [
        (
            name, fmt.number(len(found)), fmt.number(sum(f[0] for f in found)),
            *(fmt.ms(float(np.percentile([f[i] for f in found], q))) for i in (1, 2) for q in (0, 50, 100)),
        )
        for name, found in sorted(sums.items())
    ]  # fmt: skip
    header = ("class", "ranks", "count", "hidden: least", "median", "most", "exposed: least", "median", "most")
    return Table("Communication by class, a rank", header, tuple(rows))


def critical(analysis: GroupAnalysis) -> Table:
    """The ranks that iterations waited for, the most often first."""
    counts = Counter(c.rank for c in analysis.critical)
    late = {rank: sum(c.late_ns or 0 for c in analysis.critical if c.rank == rank) for rank in counts}
    why = {rank: Counter(c.cause for c in analysis.critical if c.rank == rank and c.cause) for rank in counts}
    rows = [
        (str(rank), f"{n} of {len(analysis.critical)}", fmt.ms(late[rank]), why[rank].most_common(1)[0][0] if why[rank] else "the longest window")
        for rank, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_ROWS]
    ]  # fmt: skip
    return Table("Critical rank of each window", ("rank", "windows", "late by", "mostly"), tuple(rows))


def loads(analysis: GroupAnalysis) -> Table:
    """Load of experts against compute time."""
    rows = [
        (s.name, f"{s.load_max_over_mean:.2f}", f"{s.compute_max_over_mean:.2f}", fmt.DASH if s.correlation is None else f"{s.correlation:.2f}")
        for s in analysis.load
    ]  # fmt: skip
    return Table("Load of ranks", ("series", "load, max / mean", "compute, max / mean", "correlation"), tuple(rows))


def sentences(analysis: GroupAnalysis) -> list[str]:
    """What matters most, in words."""
    found = [
        f"{len(analysis.ranks)} ranks"
        + (f" of {analysis.of_ranks}" if analysis.of_ranks else "")
        + f"; {analysis.clocks.text}."
    ]
    span, waited = (
        sum(r.total("span_ns") for r in analysis.ranks),
        sum(r.total("exposed_waiting_ns") for r in analysis.ranks),
    )
    if any(r.waits_known for r in analysis.ranks) and span:
        found.append(
            f"Ranks spend {fmt.percent(waited / span)} of their time in collectives that wait for another rank, with nothing computing beneath."
        )
    latest = by_lateness(analysis.ranks)[0] if analysis.ranks else None
    if latest is not None and latest.lateness is not None and latest.lateness.late_ns:
        late = latest.lateness
        found.append(
            f"Rank {latest.place.rank} was the last to arrive at {late.last} of {late.of} collectives and came {fmt.ms(late.late_ns)} behind the middle rank in all, mostly by {late.cause or 'nothing that was seen'}."
        )
    return found
