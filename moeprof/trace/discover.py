"""The traces of a folder and of all folders below it: those that captures name, and files by their names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moeprof.errors import CaptureError
from moeprof.storage import manifest
from moeprof.storage.files import PARTIAL
from moeprof.storage.manifest import VariantRecord

ENDINGS = (".sqlite", ".nsys-rep", ".json", ".json.gz")
HEAD_BYTES = 1 << 16
KINETO_WORDS = (b'"traceEvents"', b'"schemaVersion"', b'"deviceProperties"', b'"distributedInfo"')


@dataclass(frozen=True)
class TraceFile:
    """One trace to analyse, or why there is none. ``label`` is its path below the folder."""

    path: Path
    label: str
    variant: str | None = None
    error: str | None = None


def below(folder: Path) -> tuple[TraceFile, ...]:
    """All traces of the folder, folder by folder; hidden folders and unfinished captures are left out.

    A capture gives one for each of its variants, in its own order; a variant without a trace says why there is none.
    """
    top = folder.resolve()
    traces: list[TraceFile] = []
    for here, folders, files in os.walk(top):
        place = Path(here)
        if manifest.FILE in files:
            folders.clear()
            traces += _of_capture(place, top)
            continue
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not f.endswith(PARTIAL))
        traces += [TraceFile(p, str(p.relative_to(top))) for p in _traces(place, sorted(files))]
    return tuple(traces)


def _of_capture(capture: Path, top: Path) -> Iterator[TraceFile]:
    try:
        records = manifest.read(capture).variants
    except CaptureError as error:
        path = capture / manifest.FILE
        yield TraceFile(path, str(path.relative_to(top)), error=error.message)
        return
    for record in records:
        part = record.part("trace")
        path = capture / (part.file if part else manifest.FILE)
        yield TraceFile(path, str(path.relative_to(top)), record.name, None if part else _why_none(record))


def _why_none(record: VariantRecord) -> str:
    status = record.status + (f": {record.reason}" if record.reason else "")
    return f"the capture holds no trace of this variant ({status})"


def _traces(place: Path, files: list[str]) -> list[Path]:
    """An export takes the place of the report that it is of."""
    paths = [place / name for name in files if _is_trace(place / name)]
    return [p for p in paths if p.suffix != ".nsys-rep" or p.with_suffix(".sqlite") not in paths]


def _is_trace(path: Path) -> bool:
    """By its name; a plain JSON file must hold a word of a torch.profiler trace near its start."""
    if path.name.startswith(".") or not path.name.endswith(ENDINGS):
        return False
    if not path.name.endswith(".json"):
        return True
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return True  # its row will say why it cannot be read
    return any(word in head for word in KINETO_WORDS)
