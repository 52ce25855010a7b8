"""``moeprof join``: one capture of the parts that several hosts kept."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from moeprof.cli.options import echo_json, force_option, json_option, output_option


@click.command()
@click.argument("parts", nargs=-1, required=True, type=click.Path(path_type=Path))
@output_option
@force_option
@json_option
def join(parts: tuple[Path, ...], output: Path | None, force: bool, as_json: bool) -> None:
    """Make one capture of the PARTS that the hosts of a capture kept: NAME, NAME.host1, and so on."""
    from moeprof.capture import join as joining
    from moeprof.storage.capture_folder import choose

    name = next(iter(joining.read_parts(parts).values())).name
    folder = choose(name, output, force)
    whole = joining.join(parts, folder)
    if as_json:
        echo_json({"schema_version": 1, "folder": str(folder)})
        return
    click.echo(f"Wrote {folder}")
    diff = "--diff " if whole.baseline and whole.optimized else ""
    click.echo(f"Next: moeprof report {diff}{shlex.quote(str(folder))}", err=True)
