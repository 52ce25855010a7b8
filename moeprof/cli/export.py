"""``moeprof export``: a capture's data for other tools."""

from __future__ import annotations

from pathlib import Path

import click

from moeprof.cli import completion as names
from moeprof.cli.options import force_option, json_option, print_document


@click.command()
@click.argument("capture", type=click.Path(path_type=Path), shell_complete=names.captures)
@click.option(
    "--format",
    "form",
    type=click.Choice(["chrome-trace", "csv", "parquet", "markdown"]),
    required=True,
    help="Timelines for ui.perfetto.dev, tables, or the report's text.",
)
@click.option("--variant", shell_complete=names.variants, help="Only this variant.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder; default: moeprof-out/CAPTURE-FORMAT.",
)
@force_option
@json_option
def export(capture: Path, form: str, variant: str | None, output: Path | None, force: bool, as_json: bool) -> None:
    """Write a capture's data for other tools.

    The files go into a folder, each whole or not at all.
    """
    from moeprof.cli.outputs import Exported
    from moeprof.report.export import export as exporting
    from moeprof.storage.capture_folder import OUTPUT

    folder = output or OUTPUT / f"{capture.resolve().name}-{form}"
    written = exporting.export(capture, form, variant, folder, force)
    if as_json:
        print_document(Exported(tuple(map(str, written))))
    else:
        for path in written:
            click.echo(f"Wrote {path}")
