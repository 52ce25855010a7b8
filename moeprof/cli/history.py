"""``moeprof history``: one variant over many captures."""

from __future__ import annotations

from pathlib import Path

import click

from moeprof.cli import completion as names
from moeprof.cli.options import echo_json, force_option, json_option, output_option


@click.command()
@click.argument("captures", nargs=-1, type=click.Path(path_type=Path), shell_complete=names.captures)
@click.option("-b", "--baselines", "folder", type=click.Path(path_type=Path), help="Add all baselines of this folder.")
@click.option(
    "--variant",
    help="The variant; default: the newest capture's optimized one, or its last.",
    shell_complete=names.variants,
)
@click.option(
    "--metric",
    default="step_time",
    show_default=True,
    help="Any metric of `moeprof check`.",
    shell_complete=names.metrics,
)
@output_option("A page to write too.")
@force_option
@json_option
def history(
    captures: tuple[Path, ...],
    folder: Path | None,
    variant: str | None,
    metric: str,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Show one metric over many captures.

    Changes are marked. -o writes a page too.
    """
    from moeprof.gate import history as histories
    from moeprof.report import build, text
    from moeprof.report import history as report
    from moeprof.storage import baselines

    baseline_folders = () if folder is None else tuple(folder / b.name for b in baselines.listed(folder))
    history_ = histories.history((*captures, *baseline_folders), variant, metric)
    page = report.page(history_)
    if output is not None:
        build.write_page(output, force, page)
    echo_json(page.data) if as_json else click.echo(text.render(page))
    if output is not None:
        click.echo(f"Wrote {output}", err=as_json)
