"""The state of a git checkout: its commit, and its changes."""

from __future__ import annotations

import subprocess
from pathlib import Path

TIMEOUT_S = 20


def commit(folder: Path) -> str | None:
    """The commit that ``folder`` is at, "+dirty" if tracked files have changes; None outside of a checkout."""
    head = _git(folder, "rev-parse", "--short=12", "HEAD")
    if head is None:
        return None
    return head.strip() + ("+dirty" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def changes(folder: Path) -> str:
    """The changes of tracked files against the commit, as a diff; empty outside of a checkout."""
    return _git(folder, "diff", "HEAD") or ""


def _git(folder: Path, *words: str) -> str | None:
    """The output of a git command; None if it failed or git is missing."""
    command = ["git", "-C", str(folder), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
