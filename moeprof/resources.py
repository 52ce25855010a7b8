"""Find moeprof's data folders (``cuda/``, ``reports/``, ``workloads/``) from a wheel and from a checkout."""

from __future__ import annotations

from pathlib import Path

from moeprof.errors import MoeprofError

PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """The data folder ``name``: beside the package's modules in a wheel, one level up in a checkout."""
    for candidate in (PACKAGE / name, PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise MoeprofError(f"moeprof's data folder {name!r} is missing from this installation", "reinstall moeprof")
