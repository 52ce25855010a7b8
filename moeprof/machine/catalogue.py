"""What ``moeprof list`` shows: workloads, variants, presets, and whether each variant runs on this machine."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from typing import Any

from moeprof.machine import tools
from moeprof.machine.launcher import RANKS_ON_CPU
from moeprof.workload.find import Listed, listing
from moeprof.workload.model import Machine, Variant

NO_TORCH = "needs torch (pip install 'moeprof[gpu]')"


def facts() -> Machine:
    """This machine as NVML sees it: no torch is imported to list workloads."""
    gpus = tools.gpus()
    first = gpus[0] if gpus else None
    return Machine(
        cuda=bool(gpus),
        gpus=len(gpus),
        gpu_name=first.name if first else None,
        compute_capability=first.compute_capability if first else None,
        linked=tools.linked(),
        cpus=os.cpu_count() or 1,
        ranks=len(gpus) or RANKS_ON_CPU,
    )


def rows() -> list[dict[str, Any]]:
    """One object a workload: name, summary, presets, parameters, variants with ``skip`` (None: it runs here), and as how many
    ``ranks`` it runs here unless told otherwise (None: it has none)."""
    machine = facts()
    return [_row(listed, machine) for listed in listing()]


def _row(listed: Listed, machine: Machine) -> dict[str, Any]:
    workload = listed.workload
    if workload is None:
        return {"name": listed.name, "error": listed.reason, "variants": []}
    return {
        "name": listed.name,
        "summary": workload.summary,
        "shows": workload.shows,
        "baseline": workload.baseline,
        "optimized": workload.optimized,
        "ranks": machine.ranks if workload.ranks else None,
        "presets": {name: dict(params) for name, params in workload.presets.items()},
        "variants": [_variant(v, machine if workload.ranks else replace(machine, ranks=1)) for v in workload.variants],
    }


def _variant(variant: Variant, machine: Machine) -> dict[str, Any]:
    missing = importlib.util.find_spec("torch") is None
    return {"name": variant.name, "summary": variant.summary, "skip": NO_TORCH if missing else variant.needs(machine)}


def text(listed: list[dict[str, Any]]) -> str:
    """The list as lines for a terminal."""
    return "\n\n".join(_lines(row) for row in listed) or "no workload is registered"


def _lines(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['name']}\n  does not load: {row['error']}"
    lines = [f"{row['name']}: {row['summary']}"]
    for variant in row["variants"]:
        state = f"  SKIPPED: {variant['skip']}" if variant["skip"] else ""
        lines.append(f"  {variant['name']:<12} {variant['summary']}{state}")
    lines.append(f"  presets: {', '.join(row['presets'])}")
    if row["ranks"]:
        lines.append(f"  ranks: {row['ranks']} here (capture --nproc N)")
    return "\n".join(lines)
