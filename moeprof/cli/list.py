"""``moeprof list``: workloads, variants, presets, and whether each variant runs on this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from moeprof.cli.options import json_option, print_document

if TYPE_CHECKING:
    from moeprof.cli.outputs import BrokenWorkload, ListedVariant, ListedWorkload
    from moeprof.workload.find import Listed
    from moeprof.workload.model import Machine, Variant

MARKED, MARK = "- ", 2  # before a variant that does not run here
NO_TORCH = "needs torch (pip install 'moeprof[gpu]')"


@click.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List workloads, variants and presets.

    A variant that cannot run on this machine is named with the reason.
    """
    from moeprof.cli.outputs import WorkloadList
    from moeprof.machine.facts import facts
    from moeprof.workload.find import listing

    machine = facts()
    workloads = tuple(_row(listed, machine) for listed in listing())
    print_document(WorkloadList(workloads)) if as_json else click.echo(_text(workloads))


def _row(listed: Listed, machine: Machine) -> ListedWorkload | BrokenWorkload:
    from moeprof.cli.outputs import BrokenWorkload, ListedWorkload

    workload = listed.workload
    if workload is None:
        return BrokenWorkload(listed.name, listed.reason, ())
    machine_of_variants = machine if workload.ranks else replace(machine, ranks=1)
    return ListedWorkload(
        listed.name,
        workload.summary,
        workload.shows,
        workload.baseline,
        workload.optimized,
        machine.ranks if workload.ranks else None,
        {name: dict(params) for name, params in workload.presets.items()},
        tuple(_variant(variant, machine_of_variants) for variant in workload.variants),
    )


def _variant(variant: Variant, machine: Machine) -> ListedVariant:
    from moeprof.cli.outputs import ListedVariant

    has_torch = importlib.util.find_spec("torch") is not None
    return ListedVariant(variant.name, variant.summary, variant.needs(machine) if has_torch else NO_TORCH)


def _text(workloads: Sequence[ListedWorkload | BrokenWorkload]) -> str:
    """Each workload with its variants; the reasons why some do not run here stand once, below."""
    from moeprof.cli.outputs import BrokenWorkload

    blocks = [_broken(row) if isinstance(row, BrokenWorkload) else _lines(row) for row in workloads]
    reasons: dict[str, int] = {}
    for row in workloads:
        for variant in row.variants:
            if variant.skip:
                reasons[variant.skip] = reasons.get(variant.skip, 0) + 1
    marks = [
        line
        for reason, count in reasons.items()
        for line in _wrap(f"{reason}: {count} variant{'s' * (count != 1)}", MARK * 2, MARKED)
    ]
    listed = "\n\n".join("\n".join(block) for block in [*blocks, marks] if block)
    return listed or "no workload is registered"


def _broken(row: BrokenWorkload) -> list[str]:
    return [row.name, *_wrap(f"does not load: {row.error}", 4, "  ")]


def _lines(row: ListedWorkload) -> list[str]:
    """A workload: what it is, a line for each variant, its presets."""
    width = max(len(variant.name) for variant in row.variants)
    lines = [row.name, *_wrap(row.summary, 2, "  ")]
    for variant in row.variants:
        lead = f"{MARKED if variant.skip else ' ' * MARK}  {variant.name:<{width}}  "
        lines += _wrap(variant.summary, len(lead), lead)
    lines += _wrap(", ".join(row.presets), 13, "    presets: ")
    if row.ranks:
        lines.append(f"    ranks: {row.ranks} here (capture --nproc N)")
    return lines


def _wrap(text: str, indent: int, first: str) -> list[str]:
    from moeprof.report.text import width
    from moeprof.report.text_layout import wrap

    return wrap(text, width(), " " * indent, first)
