"""The page of a comparison: the variants of one capture, or the same variants in two captures."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from moeprof import units
from moeprof.compare import steps
from moeprof.compare.row import Row
from moeprof.compare.variants import Comparison
from moeprof.kernels import warp_states
from moeprof.kernels.warp_states import largest_fall, of_study
from moeprof.loaded.capture import Capture
from moeprof.report import counters, json, rank_tables, rounds, tables
from moeprof.report.figures import bars, roofline
from moeprof.report.figures.style import variant_colours
from moeprof.report.figures.timeline_pair import Side, iterations, side_by_side
from moeprof.report.findings import findings
from moeprof.report.glossary import GLOSSARY
from moeprof.report.narrative.narrative import Narrative
from moeprof.report.narrative.summary import three_lines
from moeprof.report.page import (
    Bullets,
    Detail,
    Drawing,
    Fact,
    Facts,
    Item,
    Page,
    Paragraph,
    Section,
    Table,
    glossary,
    notes,
    section,
    unlike,
    verdict,
)
from moeprof.report.traces import kernel_table
from moeprof.storage.manifest import RUN, Manifest

MAX_KERNELS = 14
# section -> its name in the list of contents, where its title is long
NAV = {
    "timelines": "Timelines", "waterfall": "Changes", "findings": "Findings", "kernels": "Kernels", "roofline": "Roofline", "ledgers": "Ledgers",
    "work": "Work", "overlap": "Overlap", "link": "Link", "launch": "Launches", "times": "Samples", "decided": "What decided", "counted": "Counters, both",
    "stalls": "Warp states", "counters": "Counters", "all-kernels": "All kernels", "environment": "Environment",
}  # fmt: skip
WORTH_A_SECTION = 0.02  # of a traced iteration


def one_capture(capture: Capture, comparison: Comparison, narrative: Narrative, waterfall: bool = True) -> Page:
    """The page of one capture: its variants compared, or without the ``waterfall`` what each variant's trace shows."""
    where = _waterfall(comparison) if waterfall else ()
    colours = _colours(comparison)
    shown = (
        *_timelines(comparison, iterations(capture)), *where, *_findings(capture), _variants(comparison, narrative), *_kernels(capture, comparison),
        *_roofline(comparison, colours),
    )  # fmt: skip
    folded = (
        *_ledgers(comparison, not where), *_work(comparison, colours), *_series(comparison, colours), *_overlap(comparison),
        *_link(comparison, capture), *_launches(comparison), *_times(capture, colours), _decided(comparison), *_proofs(comparison), *_ranks(capture),
        *_counted(comparison), *_stalls(capture), *_counters(capture), *_all_kernels(capture),
    )  # fmt: skip
    return _page(comparison, narrative, (capture,), shown, folded)


def two_captures(before: Capture, after: Capture, comparison: Comparison, narrative: Narrative) -> Page:
    """The page of two captures."""
    where = _waterfall(comparison)
    colours = _colours(comparison)
    sides = (*iterations(before, "A: "), *iterations(after, "B: "))
    shown = (
        *_timelines(comparison, sides), *where, _variants(comparison, narrative), *_roofline(comparison, colours),
    )  # fmt: skip
    folded = (
        *_ledgers(comparison, not where), *_overlap(comparison), *_link(comparison, after), *_launches(comparison),
        _decided(comparison), *_proofs(comparison), *_counted(comparison),
    )  # fmt: skip
    return _page(comparison, narrative, (before, after), shown, folded)


def _page(
    comparison: Comparison,
    narrative: Narrative,
    captures: tuple[Capture, ...],
    shown: tuple[Section, ...],
    folded: tuple[Section, ...],
) -> Page:
    """The answer, what it rests on, and folded all the rest; a section without content is left out."""
    manifest = captures[-1].manifest
    sections = tuple(
        replace(s, nav=NAV.get(s.id, s.nav))
        for s in (
            *unlike("These two captures are unlike", (n.text for n in comparison.unlike)),
            _answer(comparison, narrative, manifest),
            *shown,
            *(
                replace(s, folded=True)
                for s in (*folded, *_notes(comparison), _environment(captures), *_summary(narrative))
                if _has_content(s)
            ),
            *_missing(comparison),
            replace(glossary(GLOSSARY), folded=True),
        )
    )
    return Page(comparison.title, manifest.summary, sections, data=json.comparison(comparison, narrative))


def _answer(comparison: Comparison, narrative: Narrative, manifest: Manifest) -> Section:
    """The verdict in a sentence, the lesson, what was slow, why it changed and what is left."""
    optimized = comparison.row(comparison.optimized)
    word = optimized.verdict.word if optimized and optimized.verdict else ""
    section = verdict((narrative.sentence,), word, narrative.lesson, wide=True)
    unit = "" if manifest.kind != "commands" else "run" if manifest.unit == RUN else manifest.unit
    lines = (
        (label, text.replace("per iteration", f"per {unit}") if unit else text)
        for label, text in three_lines(comparison)
    )
    facts = tuple(Fact(label, text) for label, text in lines)
    above = (*section.above, *((Facts(facts),) if facts else ()))
    return replace(section, above=above)


def _has_content(section: Section) -> bool:
    return bool(section.above or section.figure or section.tables or section.parts or section.below)


def _colours(comparison: Comparison) -> dict[str, str]:
    names = dict.fromkeys([*(r.name for r in comparison.rows), *(p.variant for p in comparison.roofline.points)])
    return variant_colours(list(names), comparison.baseline)


def _variants(comparison: Comparison, narrative: Narrative) -> Section:
    table = tables.variants(comparison)
    limit = tables.limit(comparison)
    why = Bullets(tuple(Item(reason, detail="summary") for reason in narrative.reasons), "Why")
    return Section(
        "variants",
        "Variants",
        tables=(table,) if table.rows else (),
        below=(*((Paragraph(limit, "how"),) if limit else ()), *((why,) if why.items else ())),
        open="all",
    )


def _decided(comparison: Comparison) -> Section:
    note = "The interval of a typical round's speed-up decides, beside the baseline's own noise (docs/reference/verdict.md)."
    return section("decided", "What decided", note, None, (rounds.verdicts(comparison),))


def _proofs(comparison: Comparison) -> Iterator[Section]:
    table = tables.proofs(comparison)
    if table.rows:
        yield section("proofs", "Proofs", "What each variant's result was checked for.", None, (table,))


def _timelines(comparison: Comparison, sides: tuple[Side, ...]) -> Iterator[Section]:
    if not sides:
        return
    note = (
        "The traced iteration of median length of each variant, from its first operation on the GPU, on one scale. Launches that were "
        "made before it lie to the left: drag, or press A. Streams are lanes by what they do, a CUDA graph's branches by class."
    )
    figure = Drawing(side_by_side(sides, comparison.baseline, comparison.optimized, "timeline", "tl-iterations"), True)
    yield Section("timelines", _title_of_timelines(comparison, sides), note=note, figure=figure)


def _title_of_timelines(comparison: Comparison, sides: tuple[Side, ...]) -> str:
    names = [s.name for s in sides]
    if comparison.baseline in names and comparison.optimized in names:
        return f"One iteration of {comparison.baseline} over one of {comparison.optimized}"
    return f"One iteration of {' and of '.join(names[:2])}" if len(names) <= 2 else "One iteration of each variant"


def _kernels(capture: Capture, comparison: Comparison) -> Iterator[Section]:
    """The kernels of baseline and optimized variant side by side."""
    sides = tuple(capture.variant(name) for name in (comparison.baseline, comparison.optimized))
    compared = steps.compare(0, 0, *sides)
    if compared.kernels:
        left = len(compared.kernels) - MAX_KERNELS
        note = "Counts and times per iteration, the largest change first. Kernels are matched by name, then by launch shape and place."
        note += f" {left} more changed less." if left > 0 else ""
        names = (str(comparison.baseline), str(comparison.optimized))
        table = kernel_table("Kernels per iteration", names, compared.kernels[:MAX_KERNELS])
        yield replace(section("kernels", "Kernels side by side", note, None, (table,)), open="all")


def _all_kernels(capture: Capture) -> Iterator[Section]:
    shown = tables.kernels(capture)
    if shown:
        yield section("all-kernels", "Kernels of each variant", "", None, shown)


def _notes(comparison: Comparison) -> tuple[Section, ...]:
    return (notes(comparison.notes, "warning"),) if comparison.notes else ()


def _missing(comparison: Comparison) -> tuple[Section, ...]:
    """What the capture lacks and how to get it, in a line."""
    text = f"Not in this capture: {' '.join(comparison.roofline.missing)}"
    return (Section("missing", above=(Paragraph(text, "how"),)),) if comparison.roofline.missing else ()


def _matters(comparison: Comparison, part: Callable[[Row], int]) -> bool:
    """Whether a part takes at least WORTH_A_SECTION of a traced iteration of any variant."""
    return any(part(r) >= WORTH_A_SECTION * r.traced_ns for r in comparison.rows if r.traced_ns)


def _environment(captures: tuple[Capture, ...]) -> Section:
    parts = tuple(
        Section(
            "",
            above=(Paragraph(f"{c.folder.name}:", "how", shlex.join(c.manifest.argv)),),
            tables=(tables.environment(c), tables.commands(c)),
        )
        for c in captures
    )
    return Section("environment", "Environment and commands", parts=parts)


def _summary(narrative: Narrative) -> tuple[Section, ...]:
    text = Paragraph(" ".join(narrative.closing), "words", detail="summary")
    return (Section("words", "Summary", above=(text,)),) if narrative.closing else ()


def _ranks(capture: Capture) -> Iterator[Section]:
    table = rank_tables.timed(capture.manifest)
    note = "The median of each rank, with no profiler. The clock offset is measured between the rank's host and the first host."
    if table.rows:
        yield section("ranks", "Ranks", note, None, (table,), "summary")


def _waterfall(comparison: Comparison) -> tuple[Section, ...]:
    figure = bars.waterfall(comparison)
    largest = comparison.largest_step
    if figure is None or largest is None:
        return ()
    saved = units.signed_ms(comparison.traced_delta_ns)
    title = f"Where the time went: {saved} per iteration, mostly {largest.label} ({units.signed_ms(largest.delta_ns)})"
    note = "The traced iteration of median length of each variant. The bars are the changes; they sum exactly. Traced times include the profiler's overhead."
    return (section("waterfall", title, note, figure, (tables.waterfall(comparison),), "summary"),)


def _work(comparison: Comparison, colours: Mapping[str, str]) -> Iterator[Section]:
    shown = tables.work_tables(comparison)
    note = "Useful FLOPs and declared bytes over the clean time: padding, masked and dropped work do not count. ncu flushes the caches before each kernel, so its bytes are an upper bound."
    if shown:
        yield section("work", bars.title_of_work(comparison), note, bars.work(comparison, colours), shown, "summary")


def _series(comparison: Comparison, colours: Mapping[str, str]) -> Iterator[Section]:
    note = (
        "As counted by the variants: one bar per entry, the largest first. Variants with equal counts share their bars."
    )
    for number, (name, values) in enumerate(tables.series(comparison).items()):
        title = name[:1].upper() + name[1:]
        yield section(
            f"series-{number}", title, note, bars.series(name, values, colours), (tables.listed(name, values),)
        )


def _ledgers(comparison: Comparison, in_summary: bool) -> Iterator[Section]:
    figure = bars.ledgers(comparison)
    note = "Every nanosecond of an iteration has one owner, in this order: compute, communication, copy, migration, memset, idle."
    if figure is not None:
        shown = (tables.ledger(comparison),)
        detail: Detail = "summary" if in_summary else "page"
        yield section("ledgers", "The time ledger of each variant", note, figure, shown, detail)


def _overlap(comparison: Comparison) -> Iterator[Section]:
    figure = bars.overlap(comparison)
    note = "Copy time while kernels run is hidden. The rest is exposed; the table has the causes."
    if figure is not None and _matters(comparison, lambda row: row.copy_busy_ns):
        yield section(
            "overlap", bars.title_of_overlap(comparison.rows), note, figure, (tables.copies(comparison),), "report"
        )


def _link(comparison: Comparison, capture: Capture) -> Iterator[Section]:
    if comparison.roof is not None:  # work that no link bounds
        return
    ceiling = capture.manifest.link_ceiling_gb_per_s
    figure = bars.link(comparison, ceiling)
    note = "Bytes over the time in which at least one copy runs. The ceiling was measured in the same run with large copies only."
    title = "Link throughput" + (" against its measured ceiling" if ceiling else "")
    if figure is not None and _matters(comparison, lambda row: row.copy_busy_ns):
        yield section("link", title, note, figure, (tables.link(comparison, ceiling),))


def _launches(comparison: Comparison) -> Iterator[Section]:
    figure = bars.launches(comparison)
    note = "Host time inside CUDA calls, and the GPU's work (vertical mark). Between calls the host runs Python and the framework. If both together take longer than the work, the GPU waits."
    if figure is not None and _matters(comparison, lambda row: row.call_ns or 0):
        shown = (tables.launches(comparison), tables.calls(comparison))
        yield section("launch", "What launching costs the host", note, figure, shown)


def _findings(capture: Capture) -> Iterator[Section]:
    table = findings(capture)
    note = "Of each variant's trace by itself, numbered as the flags of its timeline. A gain is an upper bound. Gains overlap; do not add them (docs/reference/findings.md)."
    if table.rows:
        yield section("findings", "Findings per iteration", note, None, (table,))


def _times(capture: Capture, colours: Mapping[str, str]) -> Iterator[Section]:
    figure = rounds.samples(capture, colours)
    note = (
        "No profiler attached. Rounds interleave the variants and the baseline's twin (open marks) in shuffled order. The verdict counts "
        f"rounds, not samples. Samples of a round within 1/{rounds.CELLS} of the figure's height share a mark, which grows with their number; "
        "manifest.json has each. A cross is of a round that does not count."
    )
    if figure is not None:
        yield section("times", rounds.title(capture), note, figure, (rounds.times(capture),))


def _roofline(comparison: Comparison, colours: Mapping[str, str]) -> Iterator[Section]:
    points = comparison.roofline
    if not points.points:
        return
    title = roofline.title(points, comparison.optimized)
    note = (
        "Both axes come from hardware counters: FLOPs per pipe over DRAM bytes, and over ncu's duration of one kernel at a time with flushed "
        "caches. ‘declared’ FLOPs are the variant's own count. Circles are the longest kernels of a variant, diamonds whole iterations. Arrows lead from "
        "the baseline to the optimized variant. Lines are ceilings measured in this capture, or peaks reported by ncu."
    )
    figure = roofline.figure(points, comparison.baseline, comparison.optimized, colours)
    shown: tuple[Table, ...] = (roofline.table(points), roofline.roofs(points))
    yield section("roofline", title, note, figure, shown)


def _counted(comparison: Comparison) -> Iterator[Section]:
    counted = comparison.counted
    note = "From Nsight Compute. Means are weighted by the kernels' durations. Bytes are shown only if every kernel of the iteration was counted on both sides."
    if counted is not None:
        yield section("counted", counters.title(counted), note, None, (counters.compared(counted),), "summary")


def _counters(capture: Capture) -> Iterator[Section]:
    shown = counters.counters(capture)
    note = "From Nsight Compute, which serializes kernels and flushes caches. These are properties of a kernel, not its time in this run."
    if shown:
        yield section("counters", "Hardware counters of the kernels", note, None, shown)


def _stalls(capture: Capture) -> Iterator[Section]:
    states = of_study(capture)
    note = "The longest kernel of each variant that Nsight Compute counted. In every cycle a warp is in one state. ‘selected’ and ‘not_selected’ are not waits."
    title = "Why warps wait"
    fall = largest_fall(warp_states.steps(states))
    if fall is not None:
        title += f": {fall.state} falls from {units.percent(fall.share_before)} to {units.percent(fall.share_after)}, {fall.before} to {fall.after}"
    if states:
        yield section("stalls", title, note, None, counters.stalled(states))
