"""Recorded traces, unpacked once a test session."""

from __future__ import annotations

import functools
import lzma
import tempfile
from pathlib import Path

from paths import RECORDED

from moeprof.analysis.device import views
from moeprof.findings.steady_state import focus
from moeprof.findings.what_if import Scene
from moeprof.trace import Trace, read

FOLDER = RECORDED
FAULTS = FOLDER / "faults"
_SCRATCH = tempfile.TemporaryDirectory()


def names(*forms: str) -> list[str]:
    """The recordings of some forms ("faulty", "mended-whole", ...)."""
    found = [p.name.removesuffix(".sqlite.xz") for p in sorted(FAULTS.glob("*.xz"))]
    return [name for name in found if name.endswith(forms)]


@functools.cache
def path(name: str) -> Path:
    """The unpacked export."""
    packed = FAULTS / f"{name}.sqlite.xz"
    packed = packed if packed.exists() else FOLDER / f"{name}.sqlite.xz"
    target = Path(_SCRATCH.name) / f"{name}.sqlite"
    target.write_bytes(lzma.decompress(packed.read_bytes()))
    return target


@functools.cache
def trace(name: str) -> Trace:
    """The trace of a recording."""
    return read(path(name))


def scene(trace: Trace) -> Scene:
    """What the rules judge on the trace's first device."""
    view = views(trace)[0]
    return Scene(trace, view, focus(trace, view))
