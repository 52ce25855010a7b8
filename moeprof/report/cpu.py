"""What a page of a capture on a CPU claims: a verdict says where it holds, and a GPU technique has none there."""

from __future__ import annotations

from dataclasses import replace

from moeprof.compare.variants import Comparison
from moeprof.loaded.capture import Capture
from moeprof.report.narrative.narrative import Narrative
from moeprof.report.page import Facts, Page, Paragraph, Section
from moeprof.units import DASH

FUNCTIONAL = "functional-check"  # a note of a capture
CLAIM = "functional check: speed means nothing here"


def is_functional(capture: Capture) -> bool:
    """Whether a GPU technique ran on a CPU, so that its times say nothing."""
    return any(note.id == FUNCTIONAL for note in capture.manifest.notes)


def without_verdicts(comparison: Comparison) -> Comparison:
    """The comparison without what would judge the speed."""
    rows = tuple(replace(row, verdict=None, efficiency=None, limit_ratio=None) for row in comparison.rows)
    return replace(comparison, rows=rows, waterfall=(), limit=None, roof=None, counted=None)


def functional(comparison: Comparison) -> Narrative:
    """The sentences of a functional check: which variants gave the right result."""
    proven = [row.name for row in comparison.rows if row.proof_ok]
    wrong = [row.name for row in comparison.rows if row.proof_ok is False]
    results = [f"the result of {', '.join(proven)} is right"] if proven else ["no variant is proven"]
    results += [f"the result of {', '.join(wrong)} is wrong"] if wrong else []
    reason = "This technique overlaps work on a GPU, and a CPU has no engines that could overlap it"
    return Narrative(f"{CLAIM.capitalize()}; {'; '.join(results)}. {reason}.", (), ())


def without_answer(page: Page) -> Page:
    """The page without the lines that say what is slow, why, and what is left."""

    def bare(section: Section) -> Section:
        blocks = tuple(block for block in section.above if section.id != "verdict" or not isinstance(block, Facts))
        return replace(section, above=blocks)

    return replace(page, sections=tuple(map(bare, page.sections)))


def marked(page: Page, captures: tuple[Capture, ...]) -> Page:
    """The page; where a capture ran on a CPU, the word of its verdict says so."""
    if not any(capture.manifest.device == "cpu" for capture in captures):
        return page
    return replace(page, sections=tuple(map(_marked, page.sections)))


def _marked(section: Section) -> Section:
    above = tuple(
        replace(block, text=f"{block.text} (CPU)")
        if isinstance(block, Paragraph) and block.role == "word" and block.text not in ("", DASH)
        else block
        for block in section.above
    )
    return replace(section, above=above, parts=tuple(map(_marked, section.parts)))
