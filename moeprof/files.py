"""Files that are whole or not there: written beside their name and renamed."""

from __future__ import annotations

from pathlib import Path

PARTIAL = ".partial"  # ends the name of what is not whole yet


def write_whole(target: Path, text: str) -> None:
    """Write ``text`` under ``target``; a full disk leaves what was there before and no half file."""
    partial = target.with_name(target.name + PARTIAL)
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
