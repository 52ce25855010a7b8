"""Files that are whole or not there: written beside their name and renamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"  # ends the name of what is not whole yet


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Where to write what becomes ``target`` when the block ends well; otherwise nothing changes."""
    partial = target.with_name(target.name + PARTIAL)
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(target: Path, text: str) -> None:
    """Write ``text`` under ``target``; a full disk leaves what was there before and no half file."""
    with whole(target) as partial:
        partial.write_text(text, encoding="utf-8")


def of_rank(path: Path, rank: int) -> Path:
    """The file that belongs to ``rank``: rank 0 has ``path`` itself, rank 1 of ``a/b.json`` has ``a/b.rank1.json``."""
    return path if rank == 0 else path.with_name(f"{path.stem}.rank{rank}{path.suffix}")


def lines_of(log: Path) -> list[str]:
    """The lines of a log that say something, stripped; none where it is not there."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return [line for part in text.splitlines() if (line := part.strip())]
