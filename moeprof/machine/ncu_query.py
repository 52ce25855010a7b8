"""Which counters an ncu knows on this machine's chip: asked once, remembered for its version and the GPU.

The memory is ``$XDG_CACHE_HOME/moeprof/ncu`` (``~/.cache`` by default); it may be deleted at any time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path

from moeprof.machine import ncu_metrics, tools
from moeprof.machine.command import Command
from moeprof.machine.tools import Tool
from moeprof.notes import Note, note
from moeprof.storage.files import write_whole

QUERY_TIMEOUT_S = 120
NAME = re.compile(
    r'^"?([a-z][a-z0-9]*__[a-z0-9_]+)', re.MULTILINE
)  # a line of the list: a base name, then what it means


def roofline_metrics(ncu: Tool) -> tuple[tuple[str, ...], tuple[Note, ...]]:
    """The counters of FLOPs and peaks to ask ``ncu`` for, and a note where its list could not be had."""
    here = names(ncu)
    found = ncu_metrics.roofline_metrics(here)
    if found:
        return found, ()
    why = "ncu --query-metrics gave no list" if not here else "its list for this chip has none of their counters"
    return (), (note("no-flops", version=ncu.version, why=why),)


def names(ncu: Tool) -> frozenset[str]:
    """The base names of the counters that ``ncu`` has on this machine's chip; none where it does not say."""
    path = _path(ncu)
    return frozenset(_remembered(path) or _asked(ncu, path))


def query(ncu: Tool) -> Command:
    """What lists them."""
    return Command((str(ncu.path), "--query-metrics"), None, QUERY_TIMEOUT_S)


def _path(ncu: Tool) -> Path:
    """Where the list is kept: a version of ncu knows other names on another chip."""
    gpus = tools.gpus()
    chip = f"{gpus[0].name}-{gpus[0].compute_capability}" if gpus else "none"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "moeprof" / "ncu" / (re.sub(r"[^\w.-]+", "_", f"{ncu.version}-{chip}") + ".json")


def _remembered(path: Path) -> list[str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) and all(isinstance(name, str) for name in found) else []


def _asked(ncu: Tool, path: Path) -> list[str]:
    """The base names that ncu lists for the chip of this machine; none where it fails."""
    try:
        ran = subprocess.run(query(ncu).argv, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = sorted(set(NAME.findall(ran.stdout))) if ran.returncode == 0 else []
    if found:
        with suppress(OSError):  # a memory that cannot be written is asked again next time
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(found))
    return found
