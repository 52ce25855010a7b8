"""A group of ranks in sentences: what matters most."""

from __future__ import annotations

from moeprof.ranks.model import GroupAnalysis
from moeprof.ranks.totals import waiting_ratio
from moeprof.units import ms, percent

MOST_STRAGGLERS = 3  # that are named


def sentences(analysis: GroupAnalysis) -> list[str]:
    """The ranks and their clocks, the waiting, the stragglers."""
    lines = [
        f"{len(analysis.ranks)} ranks"
        + (f" of {analysis.of_ranks}" if analysis.of_ranks else "")
        + f"; {analysis.clocks.text}."
    ]
    waiting = waiting_ratio(analysis.ranks)
    if waiting is not None:
        lines.append(
            f"Ranks spend {percent(waiting)} of their time in collectives that wait for another rank while nothing computes."
        )
    compared_with = "the other rank" if len(analysis.ranks) == 2 else "the median rank"
    for straggler in analysis.stragglers[:MOST_STRAGGLERS]:
        lines.append(
            f"Rank {straggler.rank} is a straggler: last at {straggler.last} of {straggler.of} collectives, {ms(straggler.late_ns)} behind {compared_with} in total, caused by {straggler.cause}."
        )
    if not analysis.stragglers and any(r.lateness for r in analysis.ranks):
        lines.append("No rank is late by more than chance.")
    return lines
