"""GroupAnalysis -> tables of text, bounded: few ranks all of them, many ranks the latest and the spread."""

from __future__ import annotations

from collections import Counter
from statistics import median

import numpy as np

from moeprof import units
from moeprof.ranks.analyze import label
from moeprof.ranks.model import Collective, GroupAnalysis, Rank
from moeprof.report.page import Table
from moeprof.storage import manifest as manifests
from moeprof.storage.manifest import Manifest, VariantRecord

RATES = ("link GB/s, declared", "of ceiling")
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
        str(rank.place.rank), units.number(rank.place.device), units.number(len(rank.windows)), *(_total(rank, part) for _, part in COLUMNS),
        units.DASH if late is None else f"{late.last} of {late.of}", units.DASH if late is None else units.ms(late.late_ns),
        (late.cause if late else None) or units.DASH,
    )  # fmt: skip


def _total(rank: Rank, part: str) -> str:
    return units.DASH if part == "exposed_waiting_ns" and not rank.waits_known else units.ms(rank.total(part))


def spread(analysis: GroupAnalysis) -> Table:
    """Percentiles over the ranks; of interest where they are many."""
    rows = []
    for name, quantile in SPREAD:
        cells = []
        for _, part in COLUMNS:
            values = [r.total(part) for r in analysis.ranks if part != "exposed_waiting_ns" or r.waits_known]
            cells.append(units.ms(float(np.percentile(values, quantile))) if values else units.DASH)
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
        f"{found.matched} ({units.percent(found.coverage_ratio)})", units.size(found.bytes), units.rate(found.bus_gb_per_s), units.rate(found.bus_gb_per_s_max),
        units.percent(found.of_ceiling), units.us(found.skew_median_ns), units.us(found.skew_p90_ns), units.us(found.skew_max_ns),
        units.ms(found.waiting_ns), units.ms(found.moving_ns),
    )  # fmt: skip


def classes(analysis: GroupAnalysis) -> Table:
    """Hidden and exposed communication by class: of few ranks each rank, of many the spread."""
    sums = _sums(analysis)
    if len(analysis.ranks) <= MOST_ROWS:
        rates = _rates(analysis)
        rows = [
            (name, str(rank), units.number(count), units.ms(hidden + exposed), units.ms(hidden), units.ms(exposed), units.percent(hidden / (hidden + exposed) if hidden + exposed else None), *rates.get(rank, ()))
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
        rank: (units.number(round(rate)), units.percent(rate / ceiling if ceiling else None))
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
    times = (units.ms(float(np.percentile([c[part] for c in counts], q))) for part in (1, 2) for q in (0, 50, 100))
    return (name, units.number(len(counts)), units.number(sum(c[0] for c in counts)), *times)


def stragglers(analysis: GroupAnalysis) -> Table:
    """The ranks that are late by more than chance, each with its cause and the evidence."""
    rows = [
        (
            str(s.rank), f"{s.last} of {s.of}", units.ms(s.late_ns), s.cause, units.ms(s.of_it_ns), units.times(s.compute_ratio), units.times(s.work_ratio),
            units.times(s.load_ratio), units.times(s.clock_ratio),
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
            (str(rank), f"{n} of {len(analysis.critical)}", why, units.ms(sum(late)) if late else units.DASH, causes[0][0] if causes else units.DASH)
        )  # fmt: skip
    header = ("rank", "windows", "why", "late by, in all", "mostly")
    return Table("Critical rank of each window", header, tuple(rows))


def loads(analysis: GroupAnalysis) -> Table:
    """Load of experts against compute time."""
    rows = [
        (s.name, f"{s.load_max_over_mean:.2f}", f"{s.compute_max_over_mean:.2f}", units.DASH if s.correlation is None else f"{s.correlation:.2f}")
        for s in analysis.load
    ]  # fmt: skip
    return Table("Load of ranks", ("series", "load, max / mean", "compute, max / mean", "correlation"), tuple(rows))


def timed(manifest: Manifest) -> Table:
    """The ranks of a capture: device, own time, proof and state, a row for each rank of each variant; empty without ranks."""
    header = ("variant", "rank", "host", "GPU", "clock offset", "own time", "proof error", "state")
    rows = tuple(_timed(record, rank) for record in manifest.variants for rank in record.ranks)
    return Table("Ranks: an iteration counts as long as its slowest rank", header, rows)


def _timed(record: VariantRecord, rank: manifests.Rank) -> tuple[str, ...]:
    own = [r.ranks_ns[rank.rank] for r in record.used if rank.rank < len(r.ranks_ns)]
    error = rank.proof.error if rank.proof is not None else None
    return (
        record.name, str(rank.rank), str(rank.host), units.DASH if rank.device_index is None else str(rank.device_index),
        _clock(rank), units.ms(median(own) if own else None), units.DASH if error is None else f"{error:.1e}",
        rank.status if rank.status == "ok" else f"FAILED: {rank.reason}",
    )  # fmt: skip


def _clock(rank: manifests.Rank) -> str:
    """The offset of its host's clock, with its uncertainty where there are several hosts."""
    if rank.clock_offset_ns is None:
        return units.DASH
    doubt = f" ± {rank.clock_uncertainty_ns}" if rank.clock_uncertainty_ns else ""
    return f"{rank.clock_offset_ns}{doubt} ns"
