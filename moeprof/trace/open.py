"""Which reader fits a file: sniffed from its first bytes, never from its name alone. A raw report of nsys is exported first."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from moeprof.errors import ToolError, TraceError
from moeprof.machine import tools
from moeprof.trace.classify import COMMUNICATION, Classes
from moeprof.trace.kineto.reader import GZIP_MAGIC, read_kineto
from moeprof.trace.ncu.report import NCU_MAGIC
from moeprof.trace.nsys.reader import read_nsys
from moeprof.trace.tables import Trace

SQLITE_MAGIC = b"SQLite format 3\x00"
REPORT_HEADER = re.compile(rb"Profiler Report (\d{4})@(\d+)@(\d+)")  # .nsys-rep and .qdrep name their producer


@contextmanager
def open_trace(path: Path, classes: Classes = COMMUNICATION) -> Iterator[Trace]:
    """The trace at ``path``, as ``read`` returns it; a raw report of nsys is exported to a temporary folder first.

    Raises:
        TraceError: as ``read``.
        ToolError: the installed nsys cannot export the report.
    """
    with tempfile.TemporaryDirectory() as scratch:
        yield replace(read(_exported(path, Path(scratch)), classes), path=path)


def read(path: Path, classes: Classes = COMMUNICATION) -> Trace:
    """The trace at ``path``: an nsys SQLite export, or a torch.profiler (Kineto) JSON, plain or gzipped.

    ``classes`` name the kernels that move data between GPUs (``classify.communication`` reads a user's).

    Raises:
        TraceError: there is no such file, or it is something else; says what, and what to do.
    """
    if path.is_dir():
        raise TraceError(
            f"{path} is a folder, not a trace", "a capture folder holds a manifest.json; this one does not"
        )
    if not path.is_file():
        raise TraceError(f"there is no trace at {path}", "check the path")
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(SQLITE_MAGIC):
        return read_nsys(path, classes=classes)
    if head.startswith(GZIP_MAGIC) or head.lstrip()[:1] in (b"{", b"["):
        return read_kineto(path, classes)
    raise _other(path, head)


def report_version(path: Path) -> str | None:
    """The version of the nsys that wrote the raw report at ``path`` ("2024.6.1"); None for any other file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        header = REPORT_HEADER.search(file.read(4096))
    return ".".join(part.decode() for part in header.groups()) if header else None


def _exported(path: Path, scratch: Path) -> Path:
    """The export of a raw nsys report, by the installed nsys. The path itself for other files, and without nsys.

    Raises:
        ToolError: nsys fails; where it is older than the report, the message names both versions.
    """
    version = report_version(path)
    nsys = tools.find("nsys") if version else None
    if nsys is None or version is None:
        return path
    try:
        return tools.export_report(nsys, path, scratch / f"{path.stem}.sqlite")
    except ToolError as error:
        if _numbers(nsys.version or "") >= _numbers(version):
            raise
        raise ToolError(
            f"{path} was written by nsys {version}; the nsys here is {nsys.version}, too old to export it",
            "set MOEPROF_NSYS to an nsys of that version or newer, or give the exported .sqlite",
        ) from error


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def _other(path: Path, head: bytes) -> TraceError:
    version = report_version(path)
    if version:
        return TraceError(
            f"{path} is a raw report of nsys {version}",
            f"export it with that nsys or a newer one: nsys export --type sqlite {path.name}",
        )
    if head.startswith(NCU_MAGIC):
        return TraceError(
            f"{path} is a raw report of Nsight Compute", f"export it: ncu --import {path.name} --csv --page raw"
        )
    if not head:
        return TraceError(f"{path} is empty", "capture again")
    return TraceError(
        f"{path} is no trace that moeprof reads", "give an nsys .sqlite export or a torch.profiler .json[.gz]"
    )
