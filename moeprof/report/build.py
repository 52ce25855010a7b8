"""What ``moeprof report`` does: compare, build one page, and write it, whole or not at all."""

from __future__ import annotations

import lzma
from dataclasses import dataclass, replace
from pathlib import Path

from moeprof import resources
from moeprof.compare import captures as two
from moeprof.compare import programs, variants
from moeprof.compare import traces as two_traces
from moeprof.compare.units import Wanted
from moeprof.errors import CaptureError
from moeprof.loaded import analysed_trace, capture
from moeprof.loaded.analysed_trace import AnalysedTrace
from moeprof.loaded.capture import Capture
from moeprof.report import cpu, html, trace_page, traces
from moeprof.report import variants as report
from moeprof.report.figures.timeline_data import timeline_data
from moeprof.report.narrative import commands as of_commands
from moeprof.report.narrative.narrative import narrate
from moeprof.report.page import Page
from moeprof.storage import manifest as manifests
from moeprof.storage.capture_folder import OUTPUT, newest, refuse_existing
from moeprof.storage.files import PARTIAL, partial_of, write_whole


@dataclass(frozen=True)
class Written:
    """A page and the ``path`` of its HTML."""

    path: Path
    page: Page


def load(captures: tuple[Path, ...], sample: str | None) -> tuple[Capture, ...]:
    """The captures to show: those named, the sample, or the newest."""
    if sample is not None:
        return (capture.load(resources.shipped("samples", sample)),)
    if not captures:
        newest_capture = newest(OUTPUT)
        if newest_capture is None:
            raise CaptureError(
                "there is no capture in ./moeprof-out",
                "make one: moeprof capture -- PROGRAM; or see a recorded one: moeprof report --sample kv_transfer",
            )
        captures = (newest_capture,)
    return tuple(capture.load(folder) for folder in captures)


def side_of(path: Path) -> Path:
    """What is compared of ``path``: of the capture of a program its trace, else itself.

    Raises:
        CaptureError: the program was not traced.
    """
    if not (path / manifests.FILE).is_file():
        return path
    record = manifests.read(path)
    if record.kind != "program":
        return path
    traced = next((part for v in record.variants if (part := v.part("trace")) is not None), None)
    if traced is None:
        raise CaptureError(f"{path} contains no trace", "capture the program again with --tools nsys or torch")
    return path / traced.file


def write(
    captures: tuple[Capture, ...], contrast: bool, output: Path | None, force: bool, wanted: Wanted = Wanted()
) -> Written:
    """The page of ``captures`` (one, or two to compare), written to ``output`` or ``moeprof-out/NAME[-diff].html``.

    Raises:
        UsageError: the page exists and ``force`` is not given.
    """
    path = _path(output, _default(captures, contrast), force)
    return _written(path, page_of(captures, wanted=wanted))


def page_of(captures: tuple[Capture, ...], contrast: bool = True, wanted: Wanted = Wanted()) -> Page:
    """The page of one capture, or of two; ``contrast``: with the waterfall between the variants of one; ``wanted``: the unit of work of
    two programs."""
    if are_programs(captures):
        return _programs(captures[0], captures[1], wanted)
    if len(captures) == 2:
        comparison = two.compare(*captures)
        if any(map(cpu.is_functional, captures)):
            comparison = cpu.without_verdicts(comparison)
            return cpu.without_answer(report.two_captures(*captures, comparison, cpu.functional(comparison)))
        narrative = narrate(comparison, captures[-1].manifest.shows)
        return cpu.marked(report.two_captures(*captures, comparison, narrative), captures)
    manifest = captures[0].manifest
    if manifest.kind == "program":
        return _program(captures[0])
    comparison = variants.compare(captures[0])
    if cpu.is_functional(captures[0]):
        comparison = cpu.without_verdicts(comparison)
        page = report.one_capture(captures[0], comparison, cpu.functional(comparison), waterfall=False)
        return cpu.without_answer(page)
    if manifest.kind == "commands":
        return report.one_capture(captures[0], comparison, of_commands.narrate(manifest, comparison))
    narrative = narrate(comparison, manifest.shows)
    return cpu.marked(report.one_capture(captures[0], comparison, narrative, waterfall=contrast), captures)


def _program(shown: Capture) -> Page:
    traced = next((v for v in shown.variants if v.trace is not None), None)
    if traced is None or traced.trace is None:
        return trace_page.program(shown, None)
    passes = None if traced.analysis is None else trace_page.passes_shown(traced.analysis)
    return trace_page.program(shown, timeline_data(traced.trace, traced.views, traced.findings, passes))


def write_trace(path: Path, output: Path | None, force: bool) -> Written:
    """The page of one trace, written to ``output`` or ``moeprof-out/NAME.html``.

    Raises:
        UsageError: the page exists and ``force`` is not given.
        TraceError: the trace cannot be read.
    """
    target = _path(output, OUTPUT / f"{_stem(path)}.html", force)
    shown = analysed_trace.load(path)
    passes = trace_page.passes_shown(shown.analysis)
    drawn = timeline_data(shown.trace, shown.views, shown.analysis.findings, passes)
    return _written(target, trace_page.page(shown.trace, shown.analysis, drawn, str(path)))


def unpacked(name: str, folder: Path = OUTPUT) -> Path:
    """The recorded trace of that name, which ships with moeprof, as a file in ``folder``."""
    target = folder / f"{name}.sqlite"
    folder.mkdir(parents=True, exist_ok=True)
    partial = partial_of(target)
    partial.write_bytes(lzma.decompress(resources.packed_trace(name).read_bytes()))
    partial.replace(target)
    return target


def write_page(path: Path, force: bool, page: Page) -> None:
    """Write a page whose path the user named; raises UsageError if it exists and ``force`` is not given."""
    _written(_path(path, path, force), page)


def _path(output: Path | None, default: Path, force: bool) -> Path:
    """Where the page goes: what the user named is not overwritten without ``force``."""
    if output is not None:
        refuse_existing(output, force)
    return output or default


def _written(path: Path, page: Page) -> Written:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, html.render(page))
    return Written(path, page)


def _default(captures: tuple[Capture, ...], contrast: bool) -> Path:
    stem = "-vs-".join(s.folder.name.removesuffix(PARTIAL) for s in captures)
    return OUTPUT / f"{stem}{'-diff' if contrast else ''}.html"


def write_traces(paths: tuple[Path, Path], wanted: Wanted, output: Path | None, force: bool) -> Written:
    """Compare two traces and write the page to ``output`` or ``moeprof-out/A-vs-B-diff.html``.

    Raises:
        UsageError: the page exists and ``force`` is not given, or a trace has no work or not that unit.
    """
    path = _path(output, OUTPUT / f"{'-vs-'.join(_stem(p) for p in paths)}-diff.html", force)
    before, after = analysed_trace.load_pair(*paths)
    return _written(path, traces.page(two_traces.compare(before, after, wanted), (before, after)))


def are_programs(captures: tuple[Capture, ...]) -> bool:
    """Whether these are two captures of programs, which are compared as traces are."""
    return len(captures) == 2 and all(c.manifest.kind == "program" for c in captures)


def _programs(before: Capture, after: Capture, wanted: Wanted) -> Page:
    """The page of two captures of programs."""
    wanted = replace(wanted, same_command=programs.same_command(before.manifest, after.manifest))
    apart = programs.unlike(before.manifest, after.manifest)
    sides = (_captured(before), _captured(after))
    return traces.page(two_traces.compare(*sides, wanted, apart), sides)


def _captured(shown: Capture) -> AnalysedTrace:
    """The trace of a program's capture."""
    traced = next((v for v in shown.variants if v.trace is not None), None)
    if traced is None or traced.trace is None or traced.analysis is None:
        raise CaptureError(f"{shown.folder} contains no trace", "capture again with nsys or torch.profiler")
    return AnalysedTrace(shown.folder.name, traced.trace, traced.views, traced.analysis)


def _stem(path: Path) -> str:
    return path.name.split(".")[0]
