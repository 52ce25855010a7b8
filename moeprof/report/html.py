"""Capture and Diff -> one offline HTML page. The only user of jinja2. Same input, same bytes."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

import plotly
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

import moeprof
from moeprof.compare.variants import Diff, contrast
from moeprof.kernels.warp_states import of_study, steps
from moeprof.loaded.capture import Capture
from moeprof.report import counters as counted
from moeprof.report import format as fmt
from moeprof.report import ranklist, tables, timed, worktables
from moeprof.report.counters import counters, stalled
from moeprof.report.figures import bars, roofline
from moeprof.report.figures.timeline import is_heavy, lanes_of, timeline
from moeprof.report.glossary import GLOSSARY
from moeprof.report.judged import findings
from moeprof.resources import folder


@dataclass(frozen=True)
class Section:
    """A figure with the table of the same numbers. ``title`` states what it shows; ``note`` how to read it."""

    id: str
    title: str
    note: str
    figure: Markup | None
    tables: tuple[tables.Table, ...]


def render(study: Capture, diff: Diff) -> str:
    """The page that contrasts the variants of one capture."""
    return _page(diff, (study,), _contrast_sections(study, diff))


def render_single(study: Capture) -> str:
    """The page of one capture without the contrast: what each variant's trace shows."""
    diff = contrast(study)
    return _page(diff, (study,), [s for s in _contrast_sections(study, diff) if s.id != "waterfall"])


def render_pair(before: Capture, after: Capture, diff: Diff) -> str:
    """The page that contrasts two captures."""
    sections = [
        _waterfall(diff),
        _ledgers(diff),
        _overlap(diff),
        _link(diff, after),
        _launches(diff),
        _roofline(diff),
        _contrasted(diff),
    ]
    lines = [_timeline(before, "A: "), _timeline(after, "B: ")]
    return _page(diff, (before, after), [s for s in (*sections, *lines) if s is not None])


def _contrast_sections(study: Capture, diff: Diff) -> list[Section]:
    found = (
        _work(diff), *_series(diff), _waterfall(diff), _ledgers(diff), _overlap(diff), _link(diff, study), _launches(diff), _findings(study), _timeline(study),
        _times(study), _ranks(study), _roofline(diff), _contrasted(diff), _stalls(study), _counters(study),
    )  # fmt: skip
    return [section for section in found if section is not None]


def _ranks(study: Capture) -> Section | None:
    found = ranklist.table(study.manifest)
    note = "Each rank's own median, with no profiler. The clock offset is that of its host against the first one's."
    return section("ranks", "Ranks", note, None, (found,)) if found.rows else None


def _waterfall(diff: Diff) -> Section | None:
    figure = bars.waterfall(diff)
    if figure is None:
        return None
    saved = sum(b.delta_ns for b in diff.waterfall)
    biggest = (
        min(diff.waterfall, key=lambda b: b.delta_ns) if saved < 0 else max(diff.waterfall, key=lambda b: b.delta_ns)
    )
    title = f"Where the time went: {fmt.signed_ms(saved)} an iteration, most of it {biggest.label} ({fmt.signed_ms(biggest.delta_ns)})"
    note = "The traced iteration of median length of each; the steps sum exactly. Traced times carry the profiler's overhead."
    return section("waterfall", title, note, figure, (tables.waterfall(diff),))


def _work(diff: Diff) -> Section | None:
    found = worktables.tables(diff)
    if not found:
        return None
    note = "Useful FLOPs and declared bytes over the clean time: padding, masked and dropped work counts for nothing. ncu empties the caches before each kernel, so that its bytes are an upper bound."
    return section("work", bars.title_of_work(diff), note, bars.work(diff), found)


def _series(diff: Diff) -> list[Section]:
    note = "As the variants counted it; one bar an entry, the largest first. Variants that agree share one row of bars."
    return [
        section(
            f"series-{number}",
            name[:1].upper() + name[1:],
            note,
            bars.series(name, found),
            (worktables.listed(name, found),),
        )
        for number, (name, found) in enumerate(worktables.series(diff).items())
    ]


def _ledgers(diff: Diff) -> Section | None:
    figure = bars.ledgers(diff)
    note = "Every nanosecond of an iteration has one owner, in this order: compute, communication, copy, migration, memset, idle."
    return (
        None
        if figure is None
        else section("ledger", "The time ledger of each variant", note, figure, (tables.ledger(diff),))
    )


def _overlap(diff: Diff) -> Section | None:
    figure = bars.overlap(diff)
    note = "Copy time that runs while kernels run is hidden; the rest is exposed, with its cause in the table."
    return (
        None
        if figure is None
        else section("overlap", bars.title_of_overlap(diff.rows), note, figure, (tables.copies(diff),))
    )


def _link(diff: Diff, study: Capture) -> Section | None:
    if diff.roof is not None:  # work that no link bounds
        return None
    ceiling = study.manifest.link_ceiling_gb_per_s
    figure = bars.link(diff, ceiling)
    note = "Bytes over the time in which at least one copy runs; the ceiling was measured in the same run, with large copies alone."
    title = "Link throughput" + (" against its measured ceiling" if ceiling else "")
    return None if figure is None else section("link", title, note, figure, (tables.link(diff, ceiling),))


def _launches(diff: Diff) -> Section | None:
    figure = bars.launches(diff)
    note = "Host time inside CUDA calls against the GPU's work (the upright mark); between calls the host runs Python and the framework. Where both together take longer than the work, the GPU starves."
    return (
        None
        if figure is None
        else section(
            "launch", "What launching costs the host", note, figure, (tables.launches(diff), tables.calls(diff))
        )
    )


def _findings(study: Capture) -> Section | None:
    found = findings(study)
    note = "Each trace judged alone. A gain is an upper bound over all traced passes; gains overlap and must not be added (docs/reference/findings.md)."
    return section("findings", "What the rules find", note, None, (found,)) if found.rows else None


def _timeline(study: Capture, prefix: str = "") -> Section | None:
    lanes = lanes_of(study)
    if not lanes:
        return None
    note = "Drag to zoom, double-click to reset. One traced iteration of median length of each variant, all from zero."
    if is_heavy(lanes):
        note += " So many events are drawn as the exact share of busy time in each of 2,000 cells."
    name = f"timeline-{prefix[0].lower()}" if prefix else "timeline"
    return section(name, f"{prefix}One iteration of each variant", note, timeline(lanes), tables.kernels(study))


def _times(study: Capture) -> Section | None:
    figure = timed.samples(study)
    note = "No profiler attached. Rounds interleave the variants and the baseline's twin in shuffled orders; the verdict counts rounds. A cross is a sample of a round that does not count."
    return None if figure is None else section("times", timed.title(study), note, figure, (timed.times(study),))


def _roofline(diff: Diff) -> Section | None:
    found = diff.roofline
    if not found.points and not found.missing:
        return None
    if not found.points:
        note = "A point needs the FLOPs, the DRAM bytes and the duration of a kernel, all by Nsight Compute."
        return section("roofline", roofline.title(found, diff.optimized), note, None, (roofline.missing(found),))
    note = (
        "Both axes by hardware counters: FLOPs by pipe over DRAM bytes, and over ncu's own duration, for which it runs one kernel at a time on flushed "
        "caches; ‘declared’ FLOPs are the variant's own count. Circles are a variant's longest kernels, diamonds whole iterations; arrows lead from the "
        "baseline to the optimized variant. Lines are ceilings measured in this capture, or peaks by ncu where it says so."
    )
    figure = roofline.figure(found, diff.baseline, diff.optimized)
    shown = (roofline.table(found), roofline.roofs(found), roofline.missing(found))
    return section("roofline", roofline.title(found, diff.optimized), note, figure, shown)


def _contrasted(diff: Diff) -> Section | None:
    found = diff.counted
    if found is None:
        return None
    note = "From Nsight Compute. Means are weighted by the kernels' durations; bytes stand only where every kernel of the iteration was counted on both sides."
    return section("counted", counted.title(found), note, None, (counted.contrasted(found),))


def _counters(study: Capture) -> Section | None:
    found = counters(study)
    note = "From Nsight Compute, which serialises kernels and flushes caches: read these as properties of a kernel, never as its time here."
    return section("counters", "Hardware counters of the kernels", note, None, found) if found else None


def _stalls(study: Capture) -> Section | None:
    found = of_study(study)
    note = "Each variant's longest kernel that Nsight Compute counted. A warp is in one state in every cycle of its life; ‘selected’ and ‘not_selected’ are no waits."
    shrunk = steps(found)
    title = "Why warps wait"
    if shrunk:
        most = max(shrunk, key=lambda step: step.share_before - step.share_after)
        title += f": {most.state} falls from {fmt.percent(most.share_before)} to {fmt.percent(most.share_after)}, {most.before} to {most.after}"
    return section("stalls", title, note, None, stalled(found)) if found else None


def section(id: str, title: str, note: str, figure: go.Figure | None, found: tuple[tables.Table, ...]) -> Section:
    return Section(id, title, note, None if figure is None else _json(figure), tuple(t for t in found if t.rows))


def _json(figure: go.Figure) -> Markup:
    """The figure as JSON that may stand inside a script element."""
    figure.update_layout(template=None)
    text = json.dumps(json.loads(plotly.io.to_json(figure, engine="json")), sort_keys=True, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _page(diff: Diff, studies: tuple[Capture, ...], sections: list[Section]) -> str:
    optimized = diff.row(diff.optimized)
    return filled(
        "report.html.j2",
        title=diff.title,
        diff=diff,
        word=optimized.verdict.word if optimized and optimized.verdict else "",
        variants=tables.variants(diff),
        verdicts=timed.verdicts(diff),
        limit=worktables.limit(diff) or tables.limit(diff),
        sections=sections,
        environments=[
            (s.folder.name, tables.environment(s), tables.commands(s), shlex.join(s.manifest.argv)) for s in studies
        ],
        summary=studies[-1].manifest,
    )


def filled(template: str, **values: Any) -> str:
    """A page from a template, with the style, the script and plotly inside."""
    templates = folder("reports") / "templates"
    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        **values,
        glossary=GLOSSARY,
        version=moeprof.__version__,
        css=_file(templates, "style.css"),
        script=_file(templates, "page.js"),
        plotlyjs=Markup(get_plotlyjs().replace("</script", "<\\/script")),
    )


def _file(templates: Any, name: str) -> Markup:
    return Markup((templates / name).read_text(encoding="utf-8"))
