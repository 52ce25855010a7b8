"""The closing paragraph: every number of it stands in a table above it, and every kind of capture gets true words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from builders import counted_captures
from builders.sample_captures import recorded
from pages import pair as made_pair
from pages import printed, rendered
from pages import told as narrative
from quoted import numbers, strangers

from moeprof.compare import captures
from moeprof.loaded.capture import Capture
from moeprof.notes import note
from moeprof.report import html, text
from moeprof.report.narrative.narrative import Narrative, narrate
from moeprof.report.page import Page

TABLES = ("Variants", "Waterfall", "Ledger", "Work of", "Points of", "Counted:")  # raw samples would hold any number


def cells(page: str) -> str:
    """The text of the tables that the paragraph draws on; all of them stand before it."""
    before = page.split('<section id="words">', maxsplit=1)[0]
    tables = [
        t
        for t in re.findall(r"<table.*?</table>", before, flags=re.S)
        if re.search(rf"<caption>({'|'.join(TABLES)})", t)
    ]
    return " | ".join(
        re.sub(r"<[^>]+>", " ", cell)
        for t in tables
        for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", t, flags=re.S)
    )


def timed(capture: Capture, variant: int, scale: float, rounds: int = 8) -> Capture:
    """One variant takes ``scale`` times as long, in some rounds."""
    record = capture.variants[variant].record
    slower = tuple(replace(r, times_ns=tuple(round(scale * t) for t in r.times_ns)) for r in record.rounds[:rounds])
    changed = replace(capture.variants[variant], record=replace(record, rounds=slower))
    return replace(capture, variants=tuple(changed if i == variant else v for i, v in enumerate(capture.variants)))


def swapped(capture: Capture) -> Capture:
    return replace(capture, manifest=replace(capture.manifest, baseline="graph", optimized="baseline"))


def without(capture: Capture, *what: str) -> Capture:
    variants = tuple(recorded(v, **dict.fromkeys(what)) for v in capture.variants)
    return replace(capture, variants=variants)


def alone(capture: Capture) -> Capture:
    return replace(capture, variants=capture.variants[:1])


def on_a_cpu(capture: Capture) -> Capture:
    bare = without(capture, "counters")
    return replace(bare, manifest=replace(bare.manifest, device="cpu", notes=(note("no-gpu", what="it"),)))


def numbered(capture: Capture) -> Capture:
    """A summary with a number that no table holds."""
    last = capture.variants[2]
    return replace(
        capture, variants=(*capture.variants[:2], replace(last, record=replace(last.record, summary="37 streams")))
    )


STORY = counted_captures.made(*counted_captures.story())
PLAIN = counted_captures.plain()
CASES: dict[str, tuple[Capture, tuple[str, ...]]] = {
    "the sample": (PLAIN, ("It takes 17.43 ms per iteration", "exposed copies falls from", "nearly equal", "of the best possible speed, which the transfer sets", "Only less work")),
    "with counters": (STORY, ("The counter that changed most is DRAM bytes of the counted kernels: from 5.2 GB to 880.0 MB", "FLOP/byte: it is compute-bound", "of the best possible speed; ")),
    "slower": (swapped(PLAIN), ("It is slower", "0.59 times the speed", "time in exposed copies rises from 5.691 ms to 17.03 ms")),
    "unclear": (timed(PLAIN, 2, 1.0, rounds=3), ("Whether it is faster is unclear", "17.43 ms against 29.35 ms")),
    "the same": (replace(PLAIN, manifest=replace(PLAIN.manifest, baseline="overlap")), ("The time does not change",)),
    "no counters": (without(PLAIN, "counters"), ("There are no hardware counters of both sides",)),
    "no trace": (without(PLAIN, "trace", "iterations"), ("There is no trace of both variants", "Without a limit or a trace it is not known")),
    "nothing but times": (without(PLAIN, "trace", "iterations", "counters"), ("There is no trace", "There are no hardware counters of both sides")),
    "one variant": (alone(PLAIN), ("There is only one variant", "baseline takes 29.35 ms per iteration")),
    "no gpu": (on_a_cpu(PLAIN), ("Everything ran on the CPU",)),
    "a number in a summary": (numbered(PLAIN), ("graph does the same work in a different way",)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_capture_gets_its_words_and_no_number_of_its_own(name: str) -> None:
    capture, words = CASES[name]
    paragraph = " ".join(narrative(capture).closing)
    for word in words:
        assert word in paragraph, paragraph
    page = rendered(capture)
    assert strangers(paragraph, cells(page)) == []
    assert re.sub(r"&#39;", "'", page).count(paragraph) == 1 and page.index('id="words"') > page.index(
        'id="environment"'
    )
    above, closing = printed(capture).split("Summary\n")
    assert re.sub(r"\s+", " ", closing).strip() == paragraph and strangers(paragraph, above, unit_in_header=True) == []
    assert len(numbers(paragraph)) >= 1


def test_it_repeats_no_sentence_of_the_report() -> None:
    for capture, _ in CASES.values():
        words = narrative(capture)
        assert words.closing and words.sentence
        clauses = {s.strip() for t in (words.sentence, *words.reasons) for s in re.split(r"[;:.] ", t)}
        assert not clauses & {s.strip() for t in words.closing for s in re.split(r"[;:.] ", t)} - {""}


def pair(change: Callable[[Capture], Capture]) -> tuple[Page, Narrative]:
    before, after = STORY, change(STORY)
    return made_pair(before, after), narrate(captures.compare(before, after))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda s: timed(s, 2, 0.5), "Capture B ran the same workload with the same parameters"),
        (lambda s: replace(timed(s, 2, 2.0), manifest=replace(s.manifest, params={**s.manifest.params, "tokens": 1})),
         "Capture B differs from A in more than the code (parameter tokens)"),
    ],
)  # fmt: skip
def test_two_captures(change: Callable[[Capture], Capture], word: str) -> None:
    page, words = pair(change)
    paragraph = " ".join(words.closing)
    assert word in paragraph and "A: graph takes" in paragraph
    assert strangers(paragraph, cells(html.render(page))) == []
    assert strangers(paragraph, text.render(page).split("Summary\n")[0], unit_in_header=True) == []


def test_a_failed_proof_is_said(traces: Path) -> None:
    real = counted_captures.real(traces)
    wrong = real.variants[2]
    assert wrong.record.proof is not None
    record = replace(wrong.record, proof=replace(wrong.record.proof, ok=False, reason="differs"))
    words = narrative(replace(real, variants=(*real.variants[:2], replace(wrong, record=record))))
    assert words.closing[-1].startswith("A variant failed its proof")


def test_nothing_that_ran_is_said() -> None:
    nothing = without(alone(PLAIN), "trace", "iterations", "counters")
    bare = replace(nothing.variants[0], record=replace(nothing.variants[0].record, rounds=()))
    assert narrative(replace(nothing, variants=(bare,))).closing == ("Nothing ran that could be timed or traced.",)


def test_a_number_that_no_table_holds_is_found_by_this_test() -> None:
    assert strangers("it takes 29.36 ms", cells(rendered(PLAIN))) == [("29.36", "ms")]
    assert strangers("it takes 29.35 %", "29.35 ms") == [("29.35", "%")] and strangers("1.68 times", "1.68×") == []
