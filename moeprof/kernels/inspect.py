"""What ``moeprof inspect`` does: one kernel of a workload, a capture, a report or a program, counted and read.

A capture shows what its trace alone says of the kernel also where ncu cannot count: then its own few counters stand in.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from moeprof.errors import CaptureError, MoeprofError, UsageError
from moeprof.kernels import ncu as inspection
from moeprof.kernels import rankings as investigating
from moeprof.kernels import target as countable
from moeprof.kernels.inspection import BASIC, WANTED, Found, Inspection, Traced, inspections
from moeprof.kernels.ranking import Ranking, function
from moeprof.kernels.target import Wish
from moeprof.machine import ncu_query, tools
from moeprof.machine.tools import Tool
from moeprof.notes import Note, note
from moeprof.storage import manifest
from moeprof.storage.files import whole_folder, write_whole
from moeprof.storage.json import dumps, encode
from moeprof.trace.ncu import report as ncurep
from moeprof.trace.ncu.counters import read_counters
from moeprof.trace.ncu.pages import Pages, read_pages

SCHEMA_VERSION = 1
DATA = "inspect.json"
SAME_DRAM_PERCENT = 0.5  # points; two ways of saying one share


def inspect(wish: Wish) -> Found:
    """Count or read, whichever the target allows.

    Raises:
        UsageError: no such kernel, target or parameter.
        MoeprofError: nothing could be counted, and there is no trace that shows the kernel without.
    """
    try:
        re.compile(wish.kernel)
    except re.error as error:
        raise UsageError(
            f"--kernel {wish.kernel!r} is no regular expression: {error}", "quote it; escape ( and [ with a backslash"
        ) from error
    kind = sort(wish)
    found = {"report": _report, "capture": _capture}.get(kind, _counted)(wish)
    if not found.kernels and not found.traced:
        raise UsageError(
            f"no kernel matches {wish.kernel!r} in {found.source}",
            "see which there are: moeprof kernels, moeprof analyze",
        )
    return replace(found, notes=found.notes + tuple(_dram_notes(found.kernels)))


def sort(wish: Wish) -> str:
    """What kind of target it is: "program", "capture", "report" or "workload"."""
    if wish.program:
        return "program"
    if not wish.targets:
        raise UsageError(
            "nothing to inspect",
            "give a workload, a capture, ncu's .csv or .ncu-rep, or: moeprof inspect --kernel K -- PROGRAM",
        )
    paths = [Path(target) for target in wish.targets]
    if paths[0].is_dir():
        return "report" if (paths[0] / inspection.RAW).is_file() else "capture"
    if paths[0].is_file() and paths[0].suffix != ".py":
        return "report"
    if len(paths) > 1:
        raise UsageError(
            f"one target at a time, found {' '.join(wish.targets)}",
            "to inspect a program: moeprof inspect --kernel K -- PROGRAM",
        )
    return "workload"


def dry_run(wish: Wish) -> str:
    """The commands, one a line; a workload's parameters are still as asked for, not calibrated."""
    kind = sort(wish)
    tool = tools.find("ncu", wish.ncu) or Tool("ncu", Path("ncu"), "")
    folder = countable.choose(wish.output, True)
    if kind == "report":
        reports = [Path(t) for t in wish.targets if Path(t).is_file() and ncurep.is_report(Path(t))]
        commands = [c for report in reports for c in inspection.pages(tool, report).values()]
    else:
        ask = countable.ask(_recorded(wish) if kind == "capture" else wish)
        ask = replace(ask, metrics=countable.metrics(wish.counters))
        report = folder / inspection.REPORT
        commands = [
            ncu_query.query(tool),
            inspection.count(ask, tool, folder),
            *inspection.pages(tool, report).values(),
        ]
    return "\n".join(str(command) for command in commands)


def _report(wish: Wish) -> Found:
    source = " ".join(wish.targets)
    pages, notes = _opened([Path(target) for target in wish.targets], wish.ncu)
    return Found(source, "report", inspections(pages, wish.kernel, WANTED), notes=notes)


def _opened(paths: list[Path], ncu: Path | None) -> tuple[Pages, tuple[Note, ...]]:
    """The pages in CSV files or in a folder of an earlier inspection; a raw report's by ncu, or by the package ncu-report."""
    if paths[0].is_dir():
        return read_pages(paths[0] / file for file in inspection.PAGES if (paths[0] / file).is_file()), ()
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UsageError(f"there is no file {missing[0]}", "give the pages that ncu --import wrote")
    if not ncurep.is_report(paths[0]):
        return read_pages(paths), ()
    tool = tools.find("ncu", ncu)
    if tool is None:
        why = "it needs ncu (the package ncu-report does not give it)"
        return Pages(ncurep.read_report(paths[0]), tuple(ncurep.read_rules(paths[0]))), (
            note("no-page", page="source page", why=why),
        )
    with tempfile.TemporaryDirectory() as scratch:
        lacking = inspection.write_pages(tool, paths[0], Path(scratch), os.environ)
        return _pages_in(Path(scratch)), _lacking(lacking)


def _pages_in(folder: Path) -> Pages:
    return read_pages(folder / file for file in inspection.PAGES if (folder / file).is_file())


def _lacking(lacking: dict[str, str]) -> tuple[Note, ...]:
    return tuple(note("no-page", page=file.removesuffix(".csv") + " page", why=why) for file, why in lacking.items())


def _capture(wish: Wish) -> Found:
    """Its trace, and its kernel counted again; where that cannot be, its own counters, and why."""
    folder = Path(wish.targets[0])
    chosen = _recorded(wish)
    traced = _traced(folder, wish)
    try:
        found = _counted(chosen)
    except MoeprofError as error:
        kernels = _own_counters(folder, chosen)
        if not traced and not kernels:
            raise
        why = f"{error.message} ({error.hint})"
        notes = (note("recorded-counters", why=why),) if kernels else (note("no-ncu", why=why),)
        return Found(str(folder), "capture", kernels, traced, notes)
    return replace(found, source=str(folder), kind="capture", traced=traced)


def _traced(folder: Path, wish: Wish) -> tuple[Traced, ...]:
    """The kernel in the capture's traces; none where it has no trace.

    Raises:
        UsageError: there are traces, and no kernel of that name in any of them.
    """
    plain = (
        wish.range_name if not set("@/") & set(wish.range_name or "") else None
    )  # ncu's own spelling names no range of a trace
    try:
        rankings = investigating.rankings(folder, plain, wish.variant, None, "time")
    except CaptureError:
        return ()
    found = tuple(t for name, ranking in rankings.items() for t in ranked(name, ranking, wish.kernel))
    if not found:
        most = dict.fromkeys(function(k.name) for ranking in rankings.values() for k in ranking.kernels[:3])
        raise UsageError(
            f"no kernel matches {wish.kernel!r} in {folder}", f"the most costly ones: {', '.join(most)}{_escaped(wish)}"
        )
    return found


def _escaped(wish: Wish) -> str:
    return "; it is a regular expression: give a part of the name, or write \\( for (" if "(" in wish.kernel else ""


def ranked(variant: str, ranking: Ranking, pattern: str) -> tuple[Traced, ...]:
    """The kernels of a ranking by time whose name the regular expression finds."""
    return tuple(
        Traced(variant, place, len(ranking.kernels), cost.time_ns / ranking.span_ns if ranking.span_ns else None, cost)
        for place, cost in enumerate(ranking.kernels, 1)
        if re.search(pattern, cost.name)
    )


def _own_counters(folder: Path, wish: Wish) -> tuple[Inspection, ...]:
    """Those that the capture recorded of the variant that would have been counted."""
    record = manifest.read(folder).variant(wish.variant or "")
    part = record.part("counters") if record else None
    if part is None:
        return ()
    return inspections(Pages(read_counters(folder / part.file)), wish.kernel, {})


def _recorded(wish: Wish) -> Wish:
    """The wish with what the capture recorded: its workload or program and a variant; its parameters are read in ``countable``.

    Raises:
        UsageError: the capture has no such variant.
    """
    found = manifest.read(Path(wish.targets[0]))
    names = [v.name for v in found.variants]
    variant = wish.variant or found.optimized or found.baseline or names[0]
    if variant not in names:
        raise UsageError(f"{wish.targets[0]} has no variant {variant!r}", f"its variants: {', '.join(names)}")
    return replace(wish, variant=variant)


def _counted(wish: Wish) -> Found:
    """One run of ncu, its pages kept in a folder."""
    tool = countable.tool(wish.ncu)
    ask = countable.ask(wish)
    with _folder(wish) as (partial, final):
        ask = countable.resolved(ask, partial)
        ask, notes = countable.checked(ask, wish.counters, tool)
        command = inspection.count(ask, tool, partial)
        inspection.profile(command, partial)
        lacking = inspection.write_pages(tool, partial / inspection.REPORT, partial, os.environ)
        wanted, named = asked(wish.counters)
        kernels = inspections(_pages_in(partial), wish.kernel, wanted, named)
        if ask.target is not None:
            kernels = tuple(replace(k, compiled=countable.compiled(function(k.kernel))) for k in kernels)
        source = " ".join(wish.targets or wish.program)
        found = Found(source, sort(wish), kernels, notes=(*notes, *_lacking(lacking)), folder=final)
        write_whole(partial / DATA, dumps(encoded(found)))
    return found


def asked(counters: str) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """(section -> counters whose absence is told, counters that the user named)."""
    if counters in ("full", "basic"):
        return (WANTED if counters == "full" else BASIC), ()
    named = countable.metrics(counters)
    return {"asked for": named}, named


@contextmanager
def _folder(wish: Wish) -> Iterator[tuple[Path, Path]]:
    """(where the pages are written, where they will be): under the final name once all is whole, else gone."""
    final = countable.choose(wish.output, wish.force)
    with whole_folder(final) as partial:
        yield partial, final
        for name in (inspection.LOG, inspection.RESULT, *(() if wish.keep_raw else (inspection.REPORT,))):
            (partial / name).unlink(missing_ok=True)


def _dram_notes(kernels: tuple[Inspection, ...]) -> Iterator[Note]:
    for kernel in kernels:
        given, formula = kernel.speed.dram_percent, kernel.speed.dram_formula_percent
        if given is not None and formula is not None and abs(given - formula) > SAME_DRAM_PERCENT:
            yield note("dram-differs", kernel=function(kernel.kernel), given=given, formula=formula)


def encoded(found: Found) -> dict[str, object]:
    """As JSON."""
    return {
        "schema_version": SCHEMA_VERSION,
        "source": {"path": found.source, "kind": found.kind},
        "folder": None if found.folder is None else str(found.folder),
        "kernels": [encode(kernel) for kernel in found.kernels],
        "traced": [encode(traced) for traced in found.traced],
        "notes": [encode(n) for n in found.notes],
    }
