"""Files and folders that are complete or absent: written beside their name, then renamed. The lock of a file."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"  # ends the name of an incomplete file or folder


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """The path to write to; the file becomes ``target`` when the block ends without an error. Otherwise nothing changes."""
    partial = partial_of(target)
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """An empty folder that becomes ``target`` when the block ends without an error. Otherwise nothing changes."""
    partial = partial_of(target)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        replace_folder(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_folder(source: Path, target: Path) -> Path:
    """Rename ``source`` to ``target``, which it returns. An earlier ``target`` is removed last."""
    earlier = target.with_name(f"{target.name}.old{PARTIAL}")
    shutil.rmtree(earlier, ignore_errors=True)
    if target.exists():
        target.rename(earlier)
    source.rename(target)
    shutil.rmtree(earlier, ignore_errors=True)
    return target


def partial_of(target: Path) -> Path:
    """The name of ``target`` until it is complete."""
    return target.with_name(target.name + PARTIAL)


def write_whole(target: Path, text: str) -> None:
    """Write ``text`` to ``target``; on an error, such as a full disk, the earlier file remains."""
    with whole(target) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def locked(path: Path) -> Iterator[BinaryIO]:
    """The file at ``path``, open to read and append, in one process at a time; created if it does not exist."""
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def of_rank(path: Path, rank: int) -> Path:
    """The file that belongs to ``rank``: rank 0 has ``path`` itself, rank 1 of ``a/b.json`` has ``a/b.rank1.json``."""
    return path if rank == 0 else path.with_name(f"{path.stem}.rank{rank}{path.suffix}")


def lines_of(log: Path) -> list[str]:
    """The lines of a log that are not blank, stripped; empty if there is no file."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return [line for part in text.splitlines() if (line := part.strip())]
