"""The metrics that an ncu offers on this machine's chip, queried once and cached for the version of ncu and the GPU."""

from __future__ import annotations

import re
import subprocess
from typing import Any

from moeprof.machine import ncu_metrics, nvml
from moeprof.machine.command import Command
from moeprof.machine.tools import Tool
from moeprof.notes import Note, note
from moeprof.storage import cache

CACHE = "ncu"
QUERY_TIMEOUT_S = 120
NAME = re.compile(r'^"?([a-z][a-z0-9]*__[a-z0-9_]+)', re.MULTILINE)  # a line of the list begins with a base name


def roofline_metrics(ncu: Tool) -> tuple[tuple[str, ...], tuple[Note, ...]]:
    """The metrics of FLOPs and peaks to request from ``ncu``, and a note if there are none."""
    available = names(ncu)
    metrics = ncu_metrics.roofline_metrics(available)
    if metrics:
        return metrics, ()
    why = "its list for this chip has none of their counters" if available else "ncu --query-metrics gave no list"
    return (), (note("no-flops", version=ncu.version, why=why),)


def names(ncu: Tool) -> frozenset[str]:
    """The base names of the metrics that ``ncu`` offers on this machine's chip; empty if it does not list them."""
    cache_name = _cache_name(ncu)
    listed = _valid(cache.read(CACHE, cache_name))
    if not listed:
        listed = _listed(ncu)
        if listed:
            cache.write(CACHE, cache_name, listed)
    return frozenset(listed)


def query(ncu: Tool) -> Command:
    """The command that lists the metrics."""
    return Command((str(ncu.path), "--query-metrics"), None, QUERY_TIMEOUT_S)


def _cache_name(ncu: Tool) -> str:
    """A version of ncu offers other metrics on another chip."""
    gpus = nvml.gpus()
    chip = f"{gpus[0].name}-{gpus[0].compute_capability}" if gpus else "none"
    return re.sub(r"[^\w.-]+", "_", f"{ncu.version}-{chip}")


def _valid(cached: Any) -> list[str]:
    return cached if isinstance(cached, list) and all(isinstance(name, str) for name in cached) else []


def _listed(ncu: Tool) -> list[str]:
    """The base names that ncu prints; empty if it fails."""
    try:
        child = subprocess.run(query(ncu).argv, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return sorted(set(NAME.findall(child.stdout))) if child.returncode == 0 else []
