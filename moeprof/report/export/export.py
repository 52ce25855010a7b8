"""What ``moeprof export`` does: the data of a capture in files that other tools read."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from moeprof.errors import CaptureError, ToolError, UsageError, choices
from moeprof.loaded import capture as study
from moeprof.loaded.capture import Capture, CapturedVariant
from moeprof.report import build, markdown
from moeprof.report.export import chrome
from moeprof.storage.capture_folder import refuse_existing
from moeprof.storage.files import whole
from moeprof.trace import Trace

TIMES = ("variant", "twin", "round", "position", "used", "sample", "time_ns")  # used: nothing disturbed the round
Writer = Callable[[Path], None]


def export(capture: Path, form: str, variant: str | None, folder: Path, force: bool) -> tuple[Path, ...]:
    """Write ``capture`` into files of ``folder``, each whole or not at all; which ones they are.

    Raises:
        UsageError: there is no such variant, or a file is there without ``force``.
        CaptureError: it is not a capture, or contains nothing of that form.
        ToolError: Parquet needs pyarrow.
    """
    loaded = study.load(capture)
    if variant is not None and loaded.variant(variant) is None:
        names = (v.record.name for v in loaded.variants)
        raise UsageError(f"{capture} has no variant {variant!r}", choices(variant, names, "its variants"))
    if form == "markdown" and variant is not None:
        raise UsageError("Markdown shows all variants", "leave --variant out")
    chosen = [v for v in loaded.variants if variant in (None, v.record.name)]
    files: dict[str, Writer] = {}
    for name, write in _files(loaded, chosen, form):
        files[_free(name, files)] = write
    if not files:
        raise CaptureError(f"{capture} holds no trace", "capture again with --tools nsys or torch")
    for name in files:
        refuse_existing(folder / name, force)
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in files.items():
        with whole(folder / name) as unfinished:
            write(unfinished)
    return tuple(folder / name for name in files)


def _files(capture: Capture, chosen: list[CapturedVariant], form: str) -> Iterator[tuple[str, Writer]]:
    if form == "markdown":
        yield "report.md", lambda path: _text(path, [markdown.render(build.page_of((capture,)))])
    elif form == "chrome-trace":
        for variant in chosen:
            if variant.trace is not None:
                yield f"{_safe(variant.record.name)}.json", partial(_trace, variant.trace)
    else:
        for name, table in _tables(chosen):
            yield f"{name}.{form}", _csv(table) if form == "csv" else _parquet(table)


def _tables(chosen: list[CapturedVariant]) -> Iterator[tuple[str, pd.DataFrame]]:
    """The clean times of all variants; operations, calls, ranges and counters of each."""
    times = [
        (v.record.name, twin, r.index, r.position, r.used, sample, time)
        for v in chosen
        for twin, rounds in ((False, v.record.rounds), (True, v.record.twin))
        for r in rounds
        for sample, time in enumerate(r.times_ns)
    ]
    if times:
        yield "times", pd.DataFrame(times, columns=list(TIMES))
    for variant in chosen:
        tables = (
            {}
            if variant.trace is None
            else {"ops": variant.trace.ops, "calls": variant.trace.calls, "ranges": variant.trace.ranges}
        )
        for name, table in (tables | ({} if variant.counters is None else {"counters": variant.counters})).items():
            yield f"{_safe(variant.record.name)}-{name}", table


def _safe(name: str) -> str:
    """A variant's name as part of a file's."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".")


def _free(name: str, taken: Collection[str]) -> str:
    """The name, numbered if another variant's file has the same name after unsafe characters were replaced."""
    stem, _, ending = name.rpartition(".")
    return next(n for n in (name, *(f"{stem}-{i}.{ending}" for i in range(2, len(taken) + 3))) if n not in taken)


def _trace(trace: Trace, path: Path) -> None:
    _text(path, chrome.lines(trace))


def _text(path: Path, lines: Iterator[str] | list[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(lines)


def _csv(table: pd.DataFrame) -> Writer:
    return lambda path: table.to_csv(path, index=False)


def _parquet(table: pd.DataFrame) -> Writer:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise ToolError("Parquet needs pyarrow, which is not installed", "pip install 'moeprof[fast]'") from error
    return lambda path: table.to_parquet(path, index=False, engine="pyarrow")
