"""``moeprof kernels``: which kernels cost an iteration its time."""

from __future__ import annotations

from pathlib import Path

import click

from moeprof.cli import completion as names
from moeprof.cli.options import echo_json, json_option


@click.command()
@click.argument("capture", type=click.Path(path_type=Path), shell_complete=names.captures)
@click.option("--range", "range_name", help="Only what starts in the instances of this NVTX range.")
@click.option("--variant", shell_complete=names.variants, help="Only this variant of a capture.")
@click.option("--device", type=int, help="Another GPU than the one with most of the work.")
@click.option(
    "--by",
    type=click.Choice(["time", "exposed", "gap", "launch"]),
    default="time",
    show_default=True,
    help="What to rank by.",
)
@click.option("--top", type=click.IntRange(min=1), default=12, show_default=True, help="Rows to print; --json has all.")
@json_option
def kernels(
    capture: Path, range_name: str | None, variant: str | None, device: int | None, by: str, top: int, as_json: bool
) -> None:
    """Rank kernels by their cost per iteration.

    CAPTURE is a capture folder or a trace. With ncu's counters, joined by name and launch shape: memory and SM throughput, occupancy and what limits it.
    """
    from moeprof.kernels.ranking import rankings
    from moeprof.report import kernels as report
    from moeprof.report import text

    by_variant = rankings(capture, range_name, variant, device, by)
    if as_json:
        variants = {name: ranking.to_json() for name, ranking in by_variant.items()}
        echo_json({"schema_version": 1, "by": by, "variants": variants})
        return
    click.echo(text.render(report.page(by_variant, by, top)))
