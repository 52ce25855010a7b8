"""Comparison -> Narrative: the sentences of a report, in the order in which a reader needs them."""

from __future__ import annotations

from dataclasses import dataclass

from moeprof.compare.variants import Comparison
from moeprof.report.narrative import sentences
from moeprof.report.narrative.summary import summary


@dataclass(frozen=True)
class Narrative:
    """The verdict in one ``sentence``, the ``reasons`` of each variant, the ``closing`` paragraph, sentence by sentence, and the ``lesson``
    of the workload as far as the capture confirms it."""

    sentence: str
    reasons: tuple[str, ...]
    closing: tuple[str, ...]
    lesson: str = ""


def narrate(comparison: Comparison, shows: str = "") -> Narrative:
    """The sentences about a comparison; every number in them is in a table of the same report. ``shows``: what the workload teaches."""
    lesson = sentences.lesson(comparison, shows)
    return Narrative(sentences.sentence(comparison), sentences.reasons(comparison), summary(comparison), lesson)
