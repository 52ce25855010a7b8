"""``moeprof list``: the workloads, and whether each variant runs here."""

from __future__ import annotations

import click

from moeprof.cli.options import echo_json, json_option


@click.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """Show workloads, variants and presets, and whether each variant runs here."""
    from moeprof.machine import catalogue

    rows = catalogue.rows()
    echo_json({"schema_version": 1, "workloads": rows}) if as_json else click.echo(catalogue.text(rows))
