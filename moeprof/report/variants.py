"""The page of a comparison: the variants of one capture, or the same variants in two captures."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from moeprof import units
from moeprof.compare.variants import Comparison
from moeprof.kernels.warp_states import largest_fall, of_study, steps
from moeprof.loaded.capture import Capture
from moeprof.report import counters, json, rank_tables, rounds, tables
from moeprof.report.figures import bars, roofline
from moeprof.report.figures.timeline import is_heavy, lanes_of, timeline
from moeprof.report.findings import findings
from moeprof.report.glossary import GLOSSARY
from moeprof.report.narrative.narrative import Narrative
from moeprof.report.page import (
    Bullets,
    Detail,
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


def one_capture(capture: Capture, comparison: Comparison, narrative: Narrative, waterfall: bool = True) -> Page:
    """The page of one capture: its variants compared, or without the ``waterfall`` what each variant's trace shows."""
    where = _waterfall(comparison) if waterfall else ()
    parts = (
        _work(comparison), _series(comparison), where, _ledgers(comparison, not where), _overlap(comparison), _link(comparison, capture),
        _launches(comparison), _findings(capture), _timeline(capture), _times(capture), _ranks(capture), _roofline(comparison), _counted(comparison),
        _stalls(capture), _counters(capture),
    )  # fmt: skip
    return _page(comparison, narrative, (capture,), tuple(s for part in parts for s in part))


def two_captures(before: Capture, after: Capture, comparison: Comparison, narrative: Narrative) -> Page:
    """The page of two captures."""
    where = _waterfall(comparison)
    parts = (
        where, _ledgers(comparison, not where), _overlap(comparison), _link(comparison, after), _launches(comparison), _roofline(comparison),
        _counted(comparison), _timeline(before, "A: "), _timeline(after, "B: "),
    )  # fmt: skip
    return _page(comparison, narrative, (before, after), tuple(s for part in parts for s in part))


def _page(
    comparison: Comparison, narrative: Narrative, captures: tuple[Capture, ...], parts: tuple[Section, ...]
) -> Page:
    manifest = captures[-1].manifest
    optimized = comparison.row(comparison.optimized)
    word = optimized.verdict.word if optimized and optimized.verdict else ""
    sections = (
        *unlike("These two captures are unlike", (n.text for n in comparison.unlike)),
        verdict((narrative.sentence,), word, narrative.lesson),
        _variants(comparison, narrative),
        *parts,
        notes(comparison.notes, "warning"),
        _environment(captures),
        *_summary(narrative),
        glossary(GLOSSARY),
    )
    return Page(comparison.title, manifest.summary, sections, data=json.comparison(comparison, narrative))


def _variants(comparison: Comparison, narrative: Narrative) -> Section:
    shown = (tables.variants(comparison), rounds.verdicts(comparison))
    limit = tables.limit(comparison)
    why = Bullets(tuple(Item(reason, detail="summary") for reason in narrative.reasons), "Why")
    return Section(
        "variants",
        "Variants",
        tables=tuple(t for t in shown if t.rows),
        below=(*((Paragraph(limit, "how"),) if limit else ()), *((why,) if why.items else ())),
        open="all",
    )


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
    note = "The traced iteration of median length of each variant. The steps sum exactly. Traced times include the profiler's overhead."
    return (section("waterfall", title, note, figure, (tables.waterfall(comparison),), "summary"),)


def _work(comparison: Comparison) -> Iterator[Section]:
    shown = tables.work_tables(comparison)
    note = "Useful FLOPs and declared bytes over the clean time: padding, masked and dropped work do not count. ncu flushes the caches before each kernel, so its bytes are an upper bound."
    if shown:
        yield section("work", bars.title_of_work(comparison), note, bars.work(comparison), shown, "summary")


def _series(comparison: Comparison) -> Iterator[Section]:
    note = (
        "As counted by the variants: one bar per entry, the largest first. Variants with equal counts share their bars."
    )
    for number, (name, values) in enumerate(tables.series(comparison).items()):
        title = name[:1].upper() + name[1:]
        yield section(f"series-{number}", title, note, bars.series(name, values), (tables.listed(name, values),))


def _ledgers(comparison: Comparison, in_summary: bool) -> Iterator[Section]:
    figure = bars.ledgers(comparison)
    note = "Every nanosecond of an iteration has one owner, in this order: compute, communication, copy, migration, memset, idle."
    if figure is not None:
        shown = (tables.ledger(comparison),)
        detail: Detail = "summary" if in_summary else "page"
        yield section("ledger", "The time ledger of each variant", note, figure, shown, detail)


def _overlap(comparison: Comparison) -> Iterator[Section]:
    figure = bars.overlap(comparison)
    note = "Copy time while kernels run is hidden. The rest is exposed; the table has the causes."
    if figure is not None:
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
    if figure is not None:
        yield section("link", title, note, figure, (tables.link(comparison, ceiling),))


def _launches(comparison: Comparison) -> Iterator[Section]:
    figure = bars.launches(comparison)
    note = "Host time inside CUDA calls, and the GPU's work (vertical mark). Between calls the host runs Python and the framework. If both together take longer than the work, the GPU waits."
    if figure is not None:
        shown = (tables.launches(comparison), tables.calls(comparison))
        yield section("launch", "What launching costs the host", note, figure, shown)


def _findings(capture: Capture) -> Iterator[Section]:
    table = findings(capture)
    note = "Findings of each trace by itself. A gain is an upper bound over all traced passes. Gains overlap; do not add them (docs/reference/findings.md)."
    if table.rows:
        yield section("findings", "What the rules find", note, None, (table,))


def _timeline(capture: Capture, prefix: str = "") -> Iterator[Section]:
    lanes = lanes_of(capture)
    if not lanes:
        return
    note = (
        "Drag to zoom, double-click to reset. The traced iteration of median length of each variant; all start at zero."
    )
    if is_heavy(lanes):
        note += " There are too many events to draw: each of 2,000 cells shows its exact share of busy time."
    name = f"timeline-{prefix[0].lower()}" if prefix else "timeline"
    yield section(name, f"{prefix}One iteration of each variant", note, timeline(lanes), tables.kernels(capture))


def _times(capture: Capture) -> Iterator[Section]:
    figure = rounds.samples(capture)
    note = "No profiler attached. Rounds interleave the variants and the baseline's twin in shuffled order. The verdict counts rounds, not samples. A cross is a sample of a round that does not count."
    if figure is not None:
        yield section("times", rounds.title(capture), note, figure, (rounds.times(capture),))


def _roofline(comparison: Comparison) -> Iterator[Section]:
    points = comparison.roofline
    if not points.points and not points.missing:
        return
    title = roofline.title(points, comparison.optimized)
    if not points.points:
        note = "A point needs the FLOPs, the DRAM bytes and the duration of a kernel, all by Nsight Compute."
        yield section("roofline", title, note, None, (roofline.missing(points),))
        return
    note = (
        "Both axes come from hardware counters: FLOPs per pipe over DRAM bytes, and over ncu's duration of one kernel at a time with flushed "
        "caches. ‘declared’ FLOPs are the variant's own count. Circles are the longest kernels of a variant, diamonds whole iterations. Arrows lead from "
        "the baseline to the optimized variant. Lines are ceilings measured in this capture, or peaks reported by ncu."
    )
    figure = roofline.figure(points, comparison.baseline, comparison.optimized)
    shown: tuple[Table, ...] = (roofline.table(points), roofline.roofs(points), roofline.missing(points))
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
    fall = largest_fall(steps(states))
    if fall is not None:
        title += f": {fall.state} falls from {units.percent(fall.share_before)} to {units.percent(fall.share_after)}, {fall.before} to {fall.after}"
    if states:
        yield section("stalls", title, note, None, counters.stalled(states))
