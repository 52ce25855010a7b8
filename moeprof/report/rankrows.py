"""GroupAnalysis -> tables of text, bounded: few ranks all of them, many ranks the latest and the spread."""

from __future__ import annotations

from collections import Counter

import numpy as np

from moeprof.ranks.analyze import label
from moeprof.ranks.model import Collective, GroupAnalysis, Rank
from moeprof.report import format as fmt
from moeprof.report.tables import Table

RATES = ("link GB/s, declared", "of ceiling")
MOST_ROWS = 16  # ranks that are listed one by one
MOST_SENTENCES = 3
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
        "best",
        "of ceiling",
        "skew median",
        "90 %",
        "most",
        "waiting",
        "moving",
    )
    return Table("Collectives across ranks", header, tuple(_collective(c) for c in analysis.collectives))


def _collective(found: Collective) -> tuple[str, ...]:
    return (
        label(found), f"{len(found.ranks)}" + (f" of {found.group_size}" if found.group_size else ""),
        f"{found.matched} ({fmt.percent(found.coverage_ratio)})", fmt.size(found.bytes), fmt.rate(found.bus_gb_per_s), fmt.rate(found.bus_gb_per_s_max),
        fmt.percent(found.of_ceiling), fmt.us(found.skew_median_ns), fmt.us(found.skew_p90_ns), fmt.us(found.skew_max_ns),
        fmt.ms(found.waiting_ns), fmt.ms(found.moving_ns),
    )  # fmt: skip


def classes(analysis: GroupAnalysis) -> Table:
    """Hidden and exposed communication by class: of few ranks each rank, of many the spread."""
    sums = _sums(analysis)
    if len(analysis.ranks) <= MOST_ROWS:
        rates = _rates(analysis)
        rows = [
            (name, str(rank), fmt.number(count), fmt.ms(hidden + exposed), fmt.ms(hidden), fmt.ms(exposed), fmt.percent(hidden / (hidden + exposed) if hidden + exposed else None), *rates.get(rank, ()))
            for (rank, name), (count, hidden, exposed) in sorted(sums.items(), key=lambda item: (item[0][1], item[0][0]))
        ]  # fmt: skip
        header = ("class", "rank", "count", "busy", "hidden", "exposed", "of it hidden", *(RATES if rates else ()))
        return Table("Communication by class and rank", header, tuple(rows))
    names = sorted({name for _, name in sums})
    return Table(
        "Communication by class: the spread over ranks",
        ("class", "ranks", "count", "hidden: least", "median", "most", "exposed: least", "median", "most"),
        tuple(_spread_of(name, [counts for (_, other), counts in sums.items() if other == name]) for name in names),
    )


def declared_gb_per_s(analysis: GroupAnalysis) -> dict[int, float]:
    """By rank: the bytes that it sends over the link, as the workload declares them, over the time in which its communication
    runs, waiting included. Empty where nothing is declared, or several classes share the time."""
    sums = _sums(analysis)
    if analysis.declared_bytes is None or len({name for _, name in sums}) != 1:
        return {}
    windows = {rank.place.rank: len(rank.windows) for rank in analysis.ranks}
    busy = {rank: hidden + exposed for (rank, _), (_, hidden, exposed) in sums.items()}
    return {rank: analysis.declared_bytes * windows[rank] / ns for rank, ns in busy.items() if ns}


def _rates(analysis: GroupAnalysis) -> dict[int, tuple[str, str]]:
    """What stands in the columns RATES, by rank."""
    ceiling = analysis.link_ceiling_gb_per_s
    found = declared_gb_per_s(analysis)
    return {
        rank: (fmt.number(round(rate)), fmt.percent(rate / ceiling if ceiling else None))
        for rank, rate in found.items()
    }


def _sums(analysis: GroupAnalysis) -> dict[tuple[int, str], tuple[int, int, int]]:
    """(rank, class) -> count, hidden and exposed ns."""
    return {(rank.place.rank, name): counts for rank in analysis.ranks for name, counts in _classes(rank).items()}


def _classes(rank: Rank) -> dict[str, tuple[int, int, int]]:
    """Class -> count, hidden and exposed ns, over the rank's windows."""
    found: dict[str, tuple[int, int, int]] = {}
    for part in (part for window in rank.windows for part in window.communication):
        count, hidden, exposed = found.get(part.name, (0, 0, 0))
        found[part.name] = (count + part.count, hidden + part.hidden_ns, exposed + part.exposed_ns)
    return found


def _spread_of(name: str, counts: list[tuple[int, int, int]]) -> tuple[str, ...]:
    times = (fmt.ms(float(np.percentile([c[part] for c in counts], q))) for part in (1, 2) for q in (0, 50, 100))
    return (name, fmt.number(len(counts)), fmt.number(sum(c[0] for c in counts)), *times)


def stragglers(analysis: GroupAnalysis) -> Table:
    """The ranks that are late by more than chance, each with its cause and the evidence."""
    rows = [
        (
            str(s.rank), f"{s.last} of {s.of}", fmt.ms(s.late_ns), s.cause, fmt.ms(s.of_it_ns), fmt.times(s.compute_ratio), fmt.times(s.work_ratio),
            fmt.times(s.load_ratio), fmt.times(s.clock_ratio),
        )
        for s in analysis.stragglers[:MOST_ROWS]
    ]  # fmt: skip
    header = ("rank", "last", "behind", "cause", "of it", "compute", "thread blocks", "rows", "SM clock")
    more = len(analysis.stragglers) - len(rows)
    return Table(f"Stragglers{f' ({more} more in --json)' if more else ''}", header, tuple(rows))


def critical(analysis: GroupAnalysis) -> Table:
    """The ranks that decided when windows ended, the most often first."""
    counts = Counter((c.rank, c.why) for c in analysis.critical)
    rows = []
    for (rank, why), n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_ROWS]:
        mine = [c for c in analysis.critical if (c.rank, c.why) == (rank, why)]
        late = [c.late_ns for c in mine if c.late_ns is not None]
        causes = Counter(c.cause for c in mine if c.cause).most_common(1)
        rows.append(
            (str(rank), f"{n} of {len(analysis.critical)}", why, fmt.ms(sum(late)) if late else fmt.DASH, causes[0][0] if causes else fmt.DASH)
        )  # fmt: skip
    header = ("rank", "windows", "why", "late by, in all", "mostly")
    return Table("Critical rank of each window", header, tuple(rows))


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
    for straggler in analysis.stragglers[:MOST_SENTENCES]:
        found.append(
            f"Rank {straggler.rank} is a straggler: last at {straggler.last} of {straggler.of} collectives, {fmt.ms(straggler.late_ns)} behind the middle rank in all, by {straggler.cause}."
        )
    if not analysis.stragglers and any(r.lateness for r in analysis.ranks):
        found.append("No rank is late by more than chance.")
    return found
