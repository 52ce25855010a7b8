"""The page of a group of ranks: lanes of some ranks, heat maps of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moeprof import units
from moeprof.ranks.heat import Heat, heat
from moeprof.ranks.lanes import drawn_window
from moeprof.ranks.model import GroupAnalysis
from moeprof.ranks.slices import JointWindow
from moeprof.report import rank_tables
from moeprof.report.figures import ranks as figures
from moeprof.report.figures.style import COLOURS, SLOWER
from moeprof.report.figures.timeline_ranks import timeline_of_ranks
from moeprof.report.glossary import occurring
from moeprof.report.narrative.ranks import sentences
from moeprof.report.page import Drawing, Page, Section, Table, glossary, notes, section, verdict

SHARES = (
    ("waiting", "Waiting for other ranks", SLOWER, "Share of each window in which a collective waits for the last rank and nothing computes. The late rank is pale where the others are dark."),
    ("moving", "Exposed communication that moves", COLOURS["communication"], "Share of each window in which a collective moves data (or was not matched) and nothing computes."),
    ("busy", "Busy", COLOURS["compute"], "Share of each window in which the GPU computes or copies."),
)  # fmt: skip

TERMS = (
    ("arrival", "The start of a rank's communication kernel."),
    ("skew", "Time from the first rank's arrival at a collective to the last rank's arrival."),
    ("waiting, moving", "A kernel of a collective waits until the last rank has arrived. After that it moves data. The whole collective moves from the last arrival to the last end."),
    ("bus bandwidth", "Bytes over the moving time, times the factor of nccl-tests: 2(n-1)/n for an all-reduce, (n-1)/n for an all-to-all. It compares with the link's own speed for any number of ranks."),
    ("hidden, exposed", "Hidden communication runs while compute kernels of the same GPU run. The rest is exposed."),
    ("middle rank", "The rank with the median arrival at a collective. Late ranks are measured against it."),
    ("behind", "How much later than the middle rank a rank arrived, summed over the collectives where it was later. Its causes sum exactly: what the rank did longer than the middle rank since the previous collective."),
    ("straggler", "A rank that is behind by more than 1 % of its time and by more than three times the median of the others."),
    ("critical rank", "The rank that decides when a window ends: the sum of its late arrivals is the largest."),
)  # fmt: skip


def page(groups: Sequence[tuple[GroupAnalysis, JointWindow | None]]) -> Page:
    """One group, or all variants of a capture; a group without a drawn window has no timeline."""
    analyses = [analysis for analysis, _ in groups]
    many = len(analyses) > 1
    spoken = (_prefix(a, many) + sentence for a in analyses for sentence in sentences(a))
    sections = (
        verdict(spoken, wide=True),
        *(
            s
            for n, (analysis, drawn) in enumerate(groups)
            for s in _sections(analysis, drawn, f"-{n}" if n else "", _prefix(analysis, many))
        ),
        notes(n for analysis in analyses for n in analysis.notes),
    )
    terms = occurring(TERMS, sections)
    source = analyses[0].source if many or not analyses[0].variant else f"{analyses[0].source}, {analyses[0].variant}"
    return Page(
        source,
        "Many ranks of one program, side by side: who waits for whom, and why.",
        (*sections, *((glossary(terms),) if terms else ())),
    )


def _prefix(analysis: GroupAnalysis, many: bool) -> str:
    """Which of several groups is meant."""
    return f"{analysis.variant}: " if many and analysis.variant else ""


def _sections(analysis: GroupAnalysis, drawn: JointWindow | None, suffix: str, where: str) -> list[Section]:
    sections = [_ranks(analysis), _lanes(analysis, drawn, f"timeline{suffix}"), *_heats(analysis), _communication(analysis), _collectives(analysis), _load(analysis)]  # fmt: skip
    return [replace(s, id=s.id + suffix, title=where + s.title) for s in sections if s is not None]


def _ranks(analysis: GroupAnalysis) -> Section:
    note = "Sums over each rank's windows. Last: the collectives at which it arrived last. Behind: its total delay behind the middle rank. Mostly: the largest cause of the delay."
    many = (rank_tables.spread(analysis),) if len(analysis.ranks) > rank_tables.MOST_ROWS else ()
    shown = (rank_tables.stragglers(analysis), rank_tables.ranks(analysis), *many)
    return section("ranks", "Who is late, and why", note, figures.stragglers(analysis), shown, "summary")


def _lanes(analysis: GroupAnalysis, drawn: JointWindow | None, id: str) -> Section | None:
    """The window of each rank; without it only the critical ranks."""
    table = rank_tables.critical(analysis)
    if drawn is None:
        note = "The rank that the others waited for most. If no rank waited, the one that ends last."
        return (
            section("critical", "Which rank decided each window", note, None, (table,), "summary")
            if table.rows
            else None
        )
    count = len(drawn.trace.devices)
    whose = (
        f"{count} of {len(analysis.ranks)} ranks, the latest and those that wait most,"
        if count < len(analysis.ranks)
        else "every rank"
    )
    note = f"Window {drawn_window(analysis)} of {whose} on one clock. A collective waits until the last rank has arrived. Then it moves data."
    figure = Drawing(timeline_of_ranks(drawn, analysis, id), True)
    return section("lanes", "One window of each rank", note, figure, (table,), "summary")


def _heats(analysis: GroupAnalysis) -> list[Section]:
    known = any(r.waits_known for r in analysis.ranks)
    return [
        _heat(analysis, key, title, colour, note) for key, title, colour, note in SHARES if key != "waiting" or known
    ]


def _heat(analysis: GroupAnalysis, key: str, title: str, colour: str, note: str) -> Section:
    shares = heat(analysis, key, figures.BOUNDS)
    figure = figures.heat(analysis, shares, key, colour)
    return section(key, title, note + _rows_note(analysis), figure, (_shares(shares, title),))


def _communication(analysis: GroupAnalysis) -> Section | None:
    table = rank_tables.classes(analysis)
    note = "Hidden communication runs while compute kernels of the same GPU run: |N ∩ K|. The rest is exposed."
    return (
        section("communication", "Hidden and exposed communication", note, None, (table,), "summary")
        if table.rows
        else None
    )


def _collectives(analysis: GroupAnalysis) -> Section | None:
    table, ceiling = rank_tables.collectives(analysis), analysis.link_ceiling_gb_per_s
    note = "Matched by order within kind, communicator and stream. Bus bandwidth is defined as in nccl-tests, over the time from the last arrival to the last end: median and best."
    note += f" The link's ceiling: {units.rate(ceiling)} GB/s." if ceiling else " The link's ceiling is not known."
    return section("collectives", "Collectives across ranks", note, None, (table,), "summary") if table.rows else None


def _load(analysis: GroupAnalysis) -> Section | None:
    note = "Does the load of the experts on a rank explain its compute time?"
    return (
        section("load", "Load and time", note, None, (rank_tables.loads(analysis),), "summary")
        if analysis.load
        else None
    )


def _rows_note(analysis: GroupAnalysis) -> str:
    rows, single = figures.BOUNDS.rows, figures.BOUNDS.single
    if len(analysis.ranks) <= rows:
        return ""
    return f" The {single} latest ranks have a row each at the top; the others share {rows - single} bands, drawn as their mean."


def _shares(shares: Heat, title: str) -> Table:
    """The rows of a heat map: their least, mean and largest share."""
    rows = [
        (label, *map(units.percent, spread))
        for label, spread in zip(figures.labels_of(shares), shares.spread, strict=True)
    ]
    return Table(f"{title}, share of a window", ("ranks", "least", "mean", "most"), tuple(rows))
