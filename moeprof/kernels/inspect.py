"""What ``moeprof inspect`` does: one kernel of a workload, a capture, a report or a program, counted by ncu and read.

Where ncu cannot count a capture's kernel, the capture's trace and its own few counters show what they can.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from moeprof.errors import CaptureError, MoeprofError, UsageError, choices
from moeprof.kernels import ncu, target
from moeprof.kernels.inspection import BASIC, WANTED, Inspection, InspectResult, Traced, inspections
from moeprof.kernels.ranking import Ranking, function, rankings
from moeprof.kernels.target import InspectRequest
from moeprof.machine import ncu_query, tools
from moeprof.machine.tools import Tool
from moeprof.notes import Note, note
from moeprof.storage import manifest
from moeprof.storage.capture_folder import numbered, refuse_existing
from moeprof.storage.files import whole_folder, write_whole
from moeprof.storage.json import dumps
from moeprof.trace.ncu import report as ncu_report
from moeprof.trace.ncu.counters import read_counters
from moeprof.trace.ncu.pages import Pages

DATA = "inspect.json"
NAME = "inspect"  # of the folders: moeprof-out/inspect-001, ...
SAME_DRAM_PERCENT = 0.5  # points by which ncu's share and its definition may differ
NAMED_KERNELS = 3  # the most costly ones of each variant, which an error suggests


def inspect(request: InspectRequest) -> InspectResult:
    """Count the kernel or read its report, whichever the target allows.

    Raises:
        UsageError: no such kernel, target or parameter.
        MoeprofError: nothing could be counted, and no trace shows the kernel.
    """
    try:
        re.compile(request.kernel)
    except re.error as error:
        raise UsageError(
            f"--kernel {request.kernel!r} is no regular expression: {error}",
            "quote it; escape ( and [ with a backslash",
        ) from error
    kind = target.kind_of(request)
    result = {"report": _report, "capture": _capture}.get(kind, _counted)(request)
    if not result.kernels and not result.traced:
        raise UsageError(
            f"no kernel matches {request.kernel!r} in {result.source}",
            "list them: moeprof kernels, moeprof analyze",
        )
    return replace(result, notes=result.notes + tuple(_dram_notes(result.kernels)))


def dry_run(request: InspectRequest) -> str:
    """The commands, one a line. A workload's parameters are as requested, not calibrated."""
    kind = target.kind_of(request)
    tool = tools.find("ncu", request.ncu) or Tool("ncu", Path("ncu"), "")
    folder = output_folder(request.output, True)
    if kind == "report":
        reports = [Path(t) for t in request.targets if Path(t).is_file() and ncu_report.is_report(Path(t))]
        commands = [command for report in reports for command in ncu.pages(tool, report).values()]
    else:
        counted = target.ncu_request(_with_variant(request) if kind == "capture" else request)
        counted = replace(counted, metrics=target.metrics(request.counters))
        pages = ncu.pages(tool, folder / ncu.REPORT)
        commands = [ncu_query.query(tool), ncu.count(counted, tool, folder), *pages.values()]
    return "\n".join(str(command) for command in commands)


def _report(request: InspectRequest) -> InspectResult:
    """The pages that ncu wrote earlier."""
    pages, notes = ncu.open_pages([Path(path) for path in request.targets], request.ncu, os.environ)
    return InspectResult(" ".join(request.targets), "report", inspections(pages, request.kernel, WANTED), notes=notes)


def _capture(request: InspectRequest) -> InspectResult:
    """The kernel in the capture's traces, and counted again. Where ncu cannot count: the capture's counters, and why."""
    folder = Path(request.targets[0])
    chosen = _with_variant(request)
    traced = _traced(folder, request)
    try:
        result = _counted(chosen)
    except MoeprofError as error:
        kernels = _recorded_counters(folder, chosen)
        if not traced and not kernels:
            raise
        why = f"{error.message} ({error.hint})"
        notes = (note("recorded-counters", why=why),) if kernels else (note("no-ncu", why=why),)
        return InspectResult(str(folder), "capture", kernels, traced, notes)
    return replace(result, source=str(folder), kind="capture", traced=traced)


def _with_variant(request: InspectRequest) -> InspectRequest:
    """The request for one variant of a capture: the named one, else the optimized one, else the baseline.

    Raises:
        UsageError: the capture has no such variant.
    """
    stored = manifest.read(Path(request.targets[0]))
    names = [v.name for v in stored.variants]
    variant = request.variant or stored.optimized or stored.baseline or names[0]
    if variant not in names:
        raise UsageError(f"{request.targets[0]} has no variant {variant!r}", choices(variant, names, "its variants"))
    return replace(request, variant=variant)


def _traced(folder: Path, request: InspectRequest) -> tuple[Traced, ...]:
    """The kernel in the capture's traces; nothing where it has no trace.

    Raises:
        UsageError: there are traces, and none contains such a kernel.
    """
    # a trace has no range that is spelled as ncu spells them
    plain = None if set("@/") & set(request.range_name or "") else request.range_name
    try:
        by_variant = rankings(folder, plain, request.variant, None, "time")
    except CaptureError:
        return ()
    traced = tuple(t for name, ranking in by_variant.items() for t in _matching(name, ranking, request.kernel))
    if not traced:
        most = dict.fromkeys(function(k.name) for r in by_variant.values() for k in r.kernels[:NAMED_KERNELS])
        escape = "; it is a regular expression: give a part of the name, or write \\( for ("
        raise UsageError(
            f"no kernel matches {request.kernel!r} in {folder}",
            f"the most costly ones: {', '.join(most)}{escape if '(' in request.kernel else ''}",
        )
    return traced


def _matching(variant: str, ranking: Ranking, pattern: str) -> Iterator[Traced]:
    """The kernels of a ranking by time whose name the regular expression finds."""
    for place, cost in enumerate(ranking.kernels, 1):
        if re.search(pattern, cost.name):
            share = cost.time_ns / ranking.span_ns if ranking.span_ns else None
            yield Traced(variant, place, len(ranking.kernels), share, cost)


def _recorded_counters(folder: Path, request: InspectRequest) -> tuple[Inspection, ...]:
    """The kernel from the counters that the capture recorded of the variant; nothing where it has none."""
    record = manifest.read(folder).variant(request.variant or "")
    part = record.part("counters") if record else None
    if part is None:
        return ()
    return inspections(Pages(read_counters(folder / part.file)), request.kernel, {})


def _counted(request: InspectRequest) -> InspectResult:
    """One run of ncu; its pages stay in the output folder."""
    tool = target.ncu_tool(request.ncu)
    counted = target.ncu_request(request)
    final = output_folder(request.output, request.force)
    with whole_folder(final) as partial:
        counted = target.resolved(counted, partial)
        counted, notes = target.checked(counted, request.counters, tool)
        ncu.profile(ncu.count(counted, tool, partial), partial)
        missing = ncu.write_pages(tool, partial / ncu.REPORT, partial, os.environ)
        kernels = inspections(ncu.pages_in(partial), request.kernel, *_wanted(request.counters))
        if counted.target is not None:
            kernels = tuple(replace(k, compiled=target.compiled(function(k.kernel))) for k in kernels)
        source = " ".join(request.targets or request.program)
        all_notes = (*notes, *ncu.missing_notes(missing))
        result = InspectResult(source, target.kind_of(request), kernels, notes=all_notes, folder=final)
        write_whole(partial / DATA, dumps(result.to_json()))
        for name in (ncu.LOG, ncu.RESULT, *(() if request.keep_raw else (ncu.REPORT,))):
            (partial / name).unlink(missing_ok=True)
    return result


def _wanted(counters: str) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """(section -> counters whose absence is reported, counters that the user named)."""
    if counters in ("full", "basic"):
        return (WANTED if counters == "full" else BASIC), ()
    named = target.metrics(counters)
    return {"asked for": named}, named


def _dram_notes(kernels: tuple[Inspection, ...]) -> Iterator[Note]:
    for kernel in kernels:
        given, formula = kernel.speed.dram_percent, kernel.speed.dram_formula_percent
        if given is not None and formula is not None and abs(given - formula) > SAME_DRAM_PERCENT:
            yield note("dram-differs", kernel=function(kernel.kernel), given=given, formula=formula)


def output_folder(output: Path | None, force: bool) -> Path:
    """Where the pages go: ``output``, or the next free moeprof-out/inspect-NNN.

    Raises:
        UsageError: it exists and ``force`` is not given, or it is no folder of an inspection.
    """
    if output is None:
        return numbered(NAME)
    refuse_existing(output, force)
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not (output / ncu.RAW).is_file())):
        raise UsageError(f"{output} is no inspection: it is not replaced", "choose another -o")
    return output
