"""Find moeprof's data folders (``cuda/``, ``reports/``, ``workloads/``) from a wheel and from a checkout."""

from __future__ import annotations

from pathlib import Path

from moeprof.errors import MoeprofError, UsageError, choices

PACKED = ".sqlite.xz"
PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """The data folder ``name``: beside the package's modules in a wheel, one level up in a checkout."""
    for candidate in (PACKAGE / name, PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise MoeprofError(f"moeprof's data folder {name!r} is missing from this installation", "reinstall moeprof")


def shipped(kind: str, name: str) -> Path:
    """The folder of a recording that ships with moeprof: a capture (``kind`` "samples") or a session ("sessions").

    Raises:
        UsageError: there is none of that name; the hint contains the existing names.
    """
    recorded = folder("reports") / kind / name
    if not recorded.is_dir():
        what = {"samples": "sample", "sessions": "recorded session"}[kind]
        known = names(kind) + (trace_names() if kind == "samples" else ())
        raise UsageError(f"there is no {what} {name!r}", choices(name, known, f"{what}s"))
    return recorded


def packed_trace(name: str) -> Path:
    """A recorded trace that ships with moeprof, packed with xz."""
    return folder("reports") / "traces" / f"{name}{PACKED}"


def trace_names() -> tuple[str, ...]:
    """The recorded traces that ship with moeprof."""
    return tuple(sorted(path.name.removesuffix(PACKED) for path in (folder("reports") / "traces").glob(f"*{PACKED}")))


def names(kind: str) -> tuple[str, ...]:
    """The recordings of a ``kind`` that ship with moeprof."""
    return tuple(sorted(path.name for path in (folder("reports") / kind).iterdir() if path.is_dir()))
