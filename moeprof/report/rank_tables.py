"""GroupAnalysis -> tables of text, bounded: few ranks all of them, many ranks the latest and the spread."""

from __future__ import annotations

from moeprof import units
from moeprof.ranks import totals
from moeprof.ranks.analyze import label
from moeprof.ranks.model import Collective, GroupAnalysis, Rank
from moeprof.ranks.totals import ClassTotal
from moeprof.report.page import Table
from moeprof.storage import manifest as manifests
from moeprof.storage.manifest import Manifest, VariantRecord

RATES = ("link GB/s, declared", "of ceiling")
MOST_ROWS = 16  # ranks that are listed one by one
LATEST, QUICKEST = 8, 4  # of more: those that arrive late by most, those that wait longest for others
COLUMNS = (
    ("span", "span_ns"), ("compute", "compute_ns"), ("exposed comm", "exposed_comm_ns"), ("waiting, exposed", "exposed_waiting_ns"),
    ("exposed copy", "exposed_copy_ns"), ("idle", "idle_ns"),
)  # fmt: skip
OPTIONAL = ("idle", "exposed copy", "span", "GPU", "windows")  # of the ranks on a narrow screen; the last goes first
SPREAD = (("least", 0), ("10 %", 10), ("median", 50), ("90 %", 90), ("most", 100))
EXTREMES = {"least": 0, "median": 50, "most": 100}  # percentiles


def ranks(analysis: GroupAnalysis) -> Table:
    """The ranks: totals over their windows, how often each arrived last, and why."""
    shown = listed(analysis.ranks)
    caption = (
        "Ranks"
        if len(shown) == len(analysis.ranks)
        else f"Ranks: {len(shown)} of {len(analysis.ranks)}, the latest first, then those that wait longest (--json has all)"
    )
    header = ("rank", "GPU", "windows", *(name for name, _ in COLUMNS), "last", "behind", "mostly")
    return Table(caption, header, tuple(_rank(rank) for rank in shown), optional=OPTIONAL)


def listed(group: tuple[Rank, ...]) -> tuple[Rank, ...]:
    """Few ranks in order; of many the latest, and those that wait longest."""
    if len(group) <= MOST_ROWS:
        return group
    late = totals.by_lateness(group)[:LATEST]
    waiting = sorted((r for r in group if r not in late), key=lambda r: (-r.total("exposed_waiting_ns"), r.place.rank))
    return (*late, *waiting[:QUICKEST])


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
    """Percentiles over the ranks."""
    percents = [percent for _, percent in SPREAD]
    columns = [totals.part_percentiles(analysis.ranks, part, percents) for _, part in COLUMNS]
    rows = [
        (name, *(units.ms(ns) for ns in row)) for (name, _), row in zip(SPREAD, zip(*columns, strict=True), strict=True)
    ]
    return Table(f"Spread over {len(analysis.ranks)} ranks", ("", *(name for name, _ in COLUMNS)), tuple(rows))


def collectives(analysis: GroupAnalysis) -> Table:
    """The collectives that were matched across ranks: bandwidth, skew, waiting and moving."""
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


def _collective(collective: Collective) -> tuple[str, ...]:
    return (
        label(collective), f"{len(collective.ranks)}" + (f" of {collective.group_size}" if collective.group_size else ""),
        f"{collective.matched} ({units.percent(collective.coverage_ratio)})", units.size(collective.bytes), units.rate(collective.bus_gb_per_s), units.rate(collective.bus_gb_per_s_max),
        units.percent(collective.of_ceiling), units.us(collective.skew_median_ns), units.us(collective.skew_p90_ns), units.us(collective.skew_max_ns),
        units.ms(collective.waiting_ns), units.ms(collective.moving_ns),
    )  # fmt: skip


def classes(analysis: GroupAnalysis) -> Table:
    """Hidden and exposed communication by class: of few ranks each rank, of many the spread."""
    by_rank = {rank.place.rank: totals.class_totals(rank) for rank in analysis.ranks}
    names = sorted({name for by_class in by_rank.values() for name in by_class})
    if len(analysis.ranks) <= MOST_ROWS:
        rates = _rates(analysis)
        rows = [
            (
                name, str(rank), units.number(total.count), units.ms(total.busy_ns), units.ms(total.hidden_ns), units.ms(total.exposed_ns),
                units.percent(total.hidden_ratio), *rates.get(rank, ()),
            )
            for name in names for rank, by_class in sorted(by_rank.items()) if (total := by_class.get(name)) is not None
        ]  # fmt: skip
        header = ("class", "rank", "count", "busy", "hidden", "exposed", "hidden share", *(RATES if rates else ()))
        return Table("Communication by class and rank", header, tuple(rows))
    return Table(
        "Communication by class: the spread over ranks",
        ("class", "ranks", "count", *(f"{part}: {name}" for part in ("hidden", "exposed") for name in EXTREMES)),
        tuple(
            _spread_of(name, [by_class[name] for by_class in by_rank.values() if name in by_class]) for name in names
        ),
    )


def _rates(analysis: GroupAnalysis) -> dict[int, tuple[str, str]]:
    """The cells of the columns RATES, by rank."""
    return {
        rank: (units.number(rate.gb_per_s, 0), units.percent(rate.of_ceiling))
        for rank, rate in totals.declared_rates(analysis).items()
    }


def _spread_of(name: str, class_totals: list[ClassTotal]) -> tuple[str, ...]:
    percents = tuple(EXTREMES.values())
    hidden = totals.percentiles([total.hidden_ns for total in class_totals], percents)
    exposed = totals.percentiles([total.exposed_ns for total in class_totals], percents)
    count = sum(total.count for total in class_totals)
    return (name, units.number(len(class_totals)), units.number(count), *map(units.ms, (*hidden, *exposed)))


def stragglers(analysis: GroupAnalysis) -> Table:
    """The ranks that are late by more than chance, each with its cause and the evidence."""
    rows = [
        (
            str(s.rank), f"{s.last} of {s.of}", units.ms(s.late_ns), s.cause, units.ms(s.of_it_ns), units.times(s.compute_ratio), units.times(s.work_ratio),
            units.times(s.load_ratio), units.times(s.clock_ratio),
        )
        for s in analysis.stragglers[:MOST_ROWS]
    ]  # fmt: skip
    header = ("rank", "last", "behind", "cause", "by cause", "compute", "thread blocks", "rows", "SM clock")
    more = len(analysis.stragglers) - len(rows)
    return Table(f"Stragglers{f' ({more} more in --json)' if more else ''}", header, tuple(rows))


def critical(analysis: GroupAnalysis) -> Table:
    """The ranks that decided when windows ended, the most often first."""
    rows = [
        (str(t.rank), f"{t.windows} of {len(analysis.critical)}", t.why, units.ms(t.late_ns), t.cause or units.DASH)
        for t in totals.critical_totals(analysis.critical)[:MOST_ROWS]
    ]
    header = ("rank", "windows", "why", "total delay", "mostly")
    return Table("Critical rank of each window", header, tuple(rows))


def loads(analysis: GroupAnalysis) -> Table:
    """Load of experts against compute time."""
    rows = [
        (s.name, f"{s.load_max_over_mean:.2f}", f"{s.compute_max_over_mean:.2f}", units.DASH if s.correlation is None else f"{s.correlation:.2f}")
        for s in analysis.load
    ]  # fmt: skip
    return Table("Load of ranks", ("series", "load, max / mean", "compute, max / mean", "correlation"), tuple(rows))


def timed(manifest: Manifest) -> Table:
    """The ranks of a capture: device, own time, proof and state, a row per rank of each variant; empty without ranks."""
    header = ("variant", "rank", "host", "GPU", "clock offset", "own time", "proof error", "state")
    rows = tuple(_timed(record, rank) for record in manifest.variants for rank in record.ranks)
    return Table("Ranks: an iteration counts as long as its slowest rank", header, rows)


def _timed(record: VariantRecord, rank: manifests.Rank) -> tuple[str, ...]:
    error = rank.proof.error if rank.proof is not None else None
    return (
        record.name, str(rank.rank), str(rank.host), units.DASH if rank.device_index is None else str(rank.device_index),
        _clock(rank), units.ms(totals.median_time_ns(record, rank.rank)), units.DASH if error is None else f"{error:.1e}",
        rank.status if rank.status == "ok" else f"FAILED: {rank.reason}",
    )  # fmt: skip


def _clock(rank: manifests.Rank) -> str:
    """The offset of its host's clock, with its uncertainty where there are several hosts."""
    if rank.clock_offset_ns is None:
        return units.DASH
    doubt = f" ± {rank.clock_uncertainty_ns}" if rank.clock_uncertainty_ns else ""
    return f"{rank.clock_offset_ns}{doubt} ns"
