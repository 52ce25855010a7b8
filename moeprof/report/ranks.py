"""The page of a group of ranks: lanes of few ranks, heat maps of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moeprof import units
from moeprof.ranks.lanes import RankLane, drawn_window
from moeprof.ranks.model import GroupAnalysis
from moeprof.report import rank_tables
from moeprof.report.figures import ranks as figures
from moeprof.report.figures.style import COLOURS, SLOWER
from moeprof.report.figures.timeline import timeline
from moeprof.report.narrative.ranks import sentences
from moeprof.report.page import Page, Section, Table, glossary, notes, section, verdict

SHARES = (
    ("waiting", "Waiting for other ranks", SLOWER, "Share of each window in which a collective of the rank waits for the last rank to arrive and nothing computes. The rank that is waited for is pale where the others are dark."),
    ("moving", "Exposed communication that moves", COLOURS["communication"], "Share of each window in which a collective moves data (or was not matched) and nothing computes."),
    ("busy", "Busy", COLOURS["compute"], "Share of each window in which the GPU computes or copies."),
)  # fmt: skip

TERMS = (
    ("arrival", "The start of a rank's communication kernel."),
    ("skew", "From the first rank's arrival at a collective to the last one's."),
    ("waiting, moving", "A kernel of a collective waits until the last rank has arrived; from then on it moves. The collective as a whole moves from the last arrival to the last end."),
    ("bus bandwidth", "Bytes over the moving time, times what nccl-tests sets for the kind: 2(n-1)/n for an all-reduce, (n-1)/n for an all-to-all. It is comparable with the link's own speed for any number of ranks."),
    ("hidden, exposed", "Communication under which compute kernels of the same GPU run, and the rest."),
    ("middle rank", "The rank whose arrival at a collective is the median: against it a late one is measured."),
    ("behind", "How much later than the middle rank a rank arrived, summed where it arrived later. It splits exactly by what the rank did more than the middle one since the collective before."),
    ("straggler", "A rank that is behind by more than 1 % of its time and by more than three times the median of the others."),
    ("critical rank", "The rank that decides when a window ends: the one whose late arrivals add up to most."),
)  # fmt: skip


def page(groups: Sequence[tuple[GroupAnalysis, tuple[RankLane, ...]]]) -> Page:
    """One group, or the variants of a capture one under the other; a group without lanes has no timeline."""
    analyses = [analysis for analysis, _ in groups]
    spoken = ((f"{a.variant}: " if a.variant else "") + sentence for a in analyses for sentence in sentences(a))
    sections = (
        verdict(spoken),
        *(s for n, (analysis, lanes) in enumerate(groups) for s in _sections(analysis, lanes, f"-{n}" if n else "")),
        notes(n for analysis in analyses for n in analysis.notes),
        glossary(TERMS),
    )
    return Page(analyses[0].source, "Many ranks of one program, side by side: who waits for whom, and why.", sections)


def _sections(analysis: GroupAnalysis, lanes: tuple[RankLane, ...], suffix: str) -> list[Section]:
    where = f"{analysis.variant}: " if analysis.variant else ""
    found = [_ranks(analysis), _lanes(analysis, lanes), *_heats(analysis), _communication(analysis), _collectives(analysis), _load(analysis)]  # fmt: skip
    return [replace(s, id=s.id + suffix, title=where + s.title) for s in found if s is not None]


def _ranks(analysis: GroupAnalysis) -> Section:
    note = "Sums over each rank's windows. Last: at how many collectives it arrived last; behind: how far behind the middle rank, in all, where it came behind; mostly: what it did longer."
    many = (rank_tables.spread(analysis),) if len(analysis.ranks) > rank_tables.MOST_ROWS else ()
    shown = (rank_tables.stragglers(analysis), rank_tables.ranks(analysis), *many)
    return section("ranks", "Who is late, and why", note, figures.stragglers(analysis), shown, "summary")


def _lanes(analysis: GroupAnalysis, lanes: tuple[RankLane, ...]) -> Section | None:
    """The window of each rank; without lanes the critical ranks alone."""
    found = rank_tables.critical(analysis)
    if not lanes:
        note = "The rank that the others waited for most; where nobody waited, the one that ends last."
        return (
            section("critical", "Which rank decided each window", note, None, (found,), "summary")
            if found.rows
            else None
        )
    several = len(lanes) < len(analysis.ranks)
    whose = (
        f"{len(lanes)} of {len(analysis.ranks)} ranks, the latest and those that wait most,"
        if several
        else "every rank"
    )
    note = f"Window {drawn_window(analysis)} of {whose} on one clock. A collective waits until the last rank has arrived, then moves."
    return section(
        "lanes", "One window of each rank", note, timeline([figures.lane(rank) for rank in lanes]), (found,), "summary"
    )


def _heats(analysis: GroupAnalysis) -> list[Section]:
    known = any(r.waits_known for r in analysis.ranks)
    return [
        section(
            key,
            title,
            note + _rows_note(analysis),
            figures.heat(analysis, key, colour),
            (_shares(analysis, key, title),),
        )
        for key, title, colour, note in SHARES
        if key != "waiting" or known
    ]


def _communication(analysis: GroupAnalysis) -> Section | None:
    found = rank_tables.classes(analysis)
    note = "Hidden is what runs under compute kernels of the same GPU: |N ∩ K|; exposed is the rest."
    return (
        section("communication", "Hidden and exposed communication", note, None, (found,), "summary")
        if found.rows
        else None
    )


def _collectives(analysis: GroupAnalysis) -> Section | None:
    found, ceiling = rank_tables.collectives(analysis), analysis.link_ceiling_gb_per_s
    note = "Matched by order within kind, communicator and stream. Bus bandwidth as nccl-tests defines it, over the time from the last arrival to the last end; its median and its best."
    note += f" The link's ceiling: {units.rate(ceiling)} GB/s." if ceiling else " The link's ceiling is not known."
    return section("collectives", "Collectives across ranks", note, None, (found,), "summary") if found.rows else None


def _load(analysis: GroupAnalysis) -> Section | None:
    note = "Does the load of the experts on a rank explain its compute time?"
    return (
        section("load", "Load and time", note, None, (rank_tables.loads(analysis),), "summary")
        if analysis.load
        else None
    )


def _rows_note(analysis: GroupAnalysis) -> str:
    if len(analysis.ranks) <= figures.ROWS:
        return ""
    return f" The {figures.OWN_ROWS} latest ranks have a row each at the top; the others share {figures.ROWS - figures.OWN_ROWS} bands, drawn as their mean."


def _shares(analysis: GroupAnalysis, key: str, title: str) -> Table:
    """The rows of a heat map: their least, mean and largest share."""
    labels, cells = figures.rows_of(analysis, key)
    rows = [
        (label, *(units.percent(float(f(row))) for f in (np.min, np.mean, np.max)))
        for label, row in zip(labels, cells, strict=True)
    ]
    return Table(f"{title}, share of a window", ("ranks", "least", "mean", "most"), tuple(rows))
