"""``moeprof list``: workloads, variants, presets, and whether each variant runs on this machine."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from moeprof.cli.options import echo_json, json_option

if TYPE_CHECKING:
    from moeprof.workload.find import Listed
    from moeprof.workload.model import Machine, Variant

NO_TORCH = "needs torch (pip install 'moeprof[gpu]')"


@click.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """Show workloads, variants and presets, and whether each variant runs here."""
    from moeprof.machine.facts import facts
    from moeprof.workload.find import listing

    machine = facts()
    workloads = [_row(listed, machine) for listed in listing()]
    echo_json({"schema_version": 1, "workloads": workloads}) if as_json else click.echo(_text(workloads))


def _row(listed: Listed, machine: Machine) -> dict[str, Any]:
    """One workload in JSON. A variant's ``skip`` is the reason why it cannot run here, or None; ``ranks`` is the number of
    processes by default, or None for a workload without ranks."""
    workload = listed.workload
    if workload is None:
        return {"name": listed.name, "error": listed.reason, "variants": []}
    machine_of_variants = machine if workload.ranks else replace(machine, ranks=1)
    return {
        "name": listed.name,
        "summary": workload.summary,
        "shows": workload.shows,
        "baseline": workload.baseline,
        "optimized": workload.optimized,
        "ranks": machine.ranks if workload.ranks else None,
        "presets": {name: dict(params) for name, params in workload.presets.items()},
        "variants": [_variant(variant, machine_of_variants) for variant in workload.variants],
    }


def _variant(variant: Variant, machine: Machine) -> dict[str, Any]:
    has_torch = importlib.util.find_spec("torch") is not None
    return {
        "name": variant.name,
        "summary": variant.summary,
        "skip": variant.needs(machine) if has_torch else NO_TORCH,
    }


def _text(workloads: list[dict[str, Any]]) -> str:
    return "\n\n".join(_lines(row) for row in workloads) or "no workload is registered"


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
