"""Read the source page of Nsight Compute (``--page source --csv``): SASS instructions and source lines with their stall samples.

There are two views of one page. ``--print-source sass``: a block per launch, ``Kernel Name``, then a header with Address and Source.
``--print-source cuda,sass``: a block a file and launch, ``File Path`` and ``Function Name``, then a header with Line No and a second
Source column; a line of source is followed by its instructions. Columns vary from version to version and are looked for by name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from moeprof.errors import TraceError
from moeprof.trace.tables import table

# One row an instruction, or a line that stands without instructions.
#   block     ordinal of the block (a launch, or a launch and file) in the page
#   file, line  where the compiler says it comes from: "" and -1 in the view that has no lines
#   address   "" for a line; text: the instruction, or the line; source: the line's text
#   samples   warps that were found there; executed: warp instructions, -1 where the column is missing
#   stall     the state that most of the samples are in, as ncu's counters spell it, and its samples
SOURCE: dict[str, str] = {
    "kernel": "category", "block": "int64", "file": "category", "line": "int64", "source": "object", "address": "object",
    "text": "object", "samples": "int64", "executed": "int64", "stall": "category", "stall_samples": "int64",
}  # fmt: skip
SAMPLES = ("Warp Stall Sampling (All Samples)", "Sampling Data (All)", "# Samples")  # newest name first
EXECUTED = ("Instructions Executed", "# Instructions Executed")
NAMES = ("Kernel Name", "Function Name")
PATH = "File Path"
STALL, NOT_ISSUED = "stall_", "(Not Issued)"
SPELLED = {  # the page's short name of a state -> the counters' name
    "long_sb": "long_scoreboard", "short_sb": "short_scoreboard", "math": "math_pipe_throttle", "mio": "mio_throttle", "lg": "lg_throttle",
    "tex": "tex_throttle", "imc": "imc_miss", "no_inst": "no_instruction", "branch_resolve": "branch_resolving",
    "dispatch": "dispatch_stall", "sleep": "sleeping", "warpgroup_arrive": "gmma",
}  # fmt: skip
BLANK = ("", "-", "...")


def is_source(path: Path) -> bool:
    """Whether the file looks like a source page: its first line names a kernel or a file."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        first = next((row for row in csv.reader(_said(file)) if row), [])
    return bool(first) and first[0] in (*NAMES, PATH)


def read_source(path: Path) -> pd.DataFrame:
    """The SOURCE table of a source page; empty where the report has no instruction (no SourceCounters section).

    Raises:
        TraceError: the file is no CSV, or has instructions but no column of samples that is known here.
    """
    columns: dict[str, list[Any]] = {name: [] for name in SOURCE}
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            for row in _rows(csv.reader(_said(file)), path):
                for name, value in row.items():
                    columns[name].append(value)
    except csv.Error as error:
        raise TraceError(f"{path} is a damaged CSV: {error}", "import the report again with ncu") from error
    return table(SOURCE, columns)


def _said(lines: Iterator[str]) -> Iterator[str]:
    """Without the tool's own lines."""
    return (line for line in lines if not line.startswith("=="))


@dataclass(frozen=True)
class _Header:
    """Where the columns of a block are."""

    line: int | None
    source: int | None  # a line's text
    address: int | None
    text: int  # an instruction
    samples: int
    executed: int | None
    stalls: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class _Place:
    """The block that is being read, and the line that the next instructions belong to."""

    kernel: str = ""
    block: int = -1
    file: str = ""
    line: int = -1
    source: str = ""


def _rows(reader: Iterator[list[str]], path: Path) -> Iterator[dict[str, Any]]:
    place, header, waiting = _Place(), None, None
    for row in reader:
        if len(row) < 2:
            continue
        if row[0] in (*NAMES, PATH):
            yield from _lonely(waiting)
            place, waiting = _entered(place, row, header is not None), None
            header = None
        elif "Source" in row and not _is_number(row[0]):
            header = _header(row, path)
        elif header is not None and header.line is not None and row[header.line] not in BLANK:
            yield from _lonely(waiting)
            place = replace(place, line=int(_number(row[header.line])), source=_cell(row, header.source))
            waiting = _measured(place, header, row, "", place.source)
        elif header is not None and len(row) > header.text and _cell(row, header.address) not in BLANK:
            waiting = None  # the line has instructions: they hold its samples
            yield _measured(place, header, row, _cell(row, header.address), _cell(row, header.text))
    yield from _lonely(waiting)


def _entered(place: _Place, row: list[str], is_new: bool) -> _Place:
    """A line that names the block; the first one after a table, or at the start, begins it."""
    block = place.block + (is_new or place.block < 0)
    if row[0] == PATH:
        return replace(place, file=row[1], block=block, line=-1, source="")
    return replace(place, kernel=row[1], block=block, line=-1, source="", file="" if is_new else place.file)


def _lonely(waiting: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if waiting is not None:
        yield waiting


def _header(names: list[str], path: Path) -> _Header:
    def at(*wanted: str) -> int | None:
        return next((names.index(name) for name in wanted if name in names), None)

    sources = [index for index, name in enumerate(names) if name == "Source"]
    samples = at(*SAMPLES)
    if samples is None:
        raise TraceError(
            f"{path} has no column of samples (expected one of: {', '.join(SAMPLES)})",
            "count with --section SourceCounters",
        )
    line = at("Line No")
    stalls = tuple((i, n) for i, n in enumerate(names) if n.startswith(STALL) and not n.endswith(NOT_ISSUED))
    return _Header(
        line, sources[0] if line is not None else None, at("Address"), sources[-1], samples, at(*EXECUTED), stalls
    )


def _measured(place: _Place, header: _Header, row: list[str], address: str, text: str) -> dict[str, Any]:
    waits = [(_number(_cell(row, index)), name) for index, name in header.stalls]
    most, name = max(waits, key=lambda wait: wait[0], default=(0.0, ""))
    short = name.removeprefix(STALL) if most else ""
    return {
        "kernel": place.kernel, "block": place.block, "file": place.file, "line": place.line, "source": place.source, "address": address,
        "text": text, "samples": int(_number(_cell(row, header.samples))),
        "executed": -1 if header.executed is None else int(_number(_cell(row, header.executed))),
        "stall": SPELLED.get(short, short), "stall_samples": int(most),
    }  # fmt: skip


def _cell(row: list[str], index: int | None) -> str:
    return row[index].strip() if index is not None and index < len(row) else ""


def _is_number(text: str) -> bool:
    return text.replace(",", "").strip().isdigit()


def _number(text: str) -> float:
    """A count, 0 where the cell is blank."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return 0.0
