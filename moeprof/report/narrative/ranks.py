"""A group of ranks in sentences: what matters most."""

from __future__ import annotations

from moeprof.ranks.model import GroupAnalysis
from moeprof.units import ms, percent

MOST_STRAGGLERS = 3  # that are named


def sentences(analysis: GroupAnalysis) -> list[str]:
    """The ranks and their clocks, the waiting, the stragglers."""
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
            f"Ranks spend {percent(waited / span)} of their time in collectives that wait for another rank while nothing computes."
        )
    for straggler in analysis.stragglers[:MOST_STRAGGLERS]:
        found.append(
            f"Rank {straggler.rank} is a straggler: last at {straggler.last} of {straggler.of} collectives, {ms(straggler.late_ns)} behind the middle rank in total, caused by {straggler.cause}."
        )
    if not analysis.stragglers and any(r.lateness for r in analysis.ranks):
        found.append("No rank is late by more than chance.")
    return found
