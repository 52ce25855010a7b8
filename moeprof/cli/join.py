"""``moeprof join``: one capture of the parts that several hosts kept."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from moeprof.cli.options import force_option, json_option, output_option, print_document


@click.command()
@click.argument("parts", nargs=-1, required=True, type=click.Path(path_type=Path))
@output_option("The joined capture.  [default: moeprof-out/NAME-NNN]")
@force_option
@json_option
def join(parts: tuple[Path, ...], output: Path | None, force: bool, as_json: bool) -> None:
    """Join the parts that several hosts saved.

    PARTS are the folders NAME, NAME.host1 and so on of one capture.
    """
    from moeprof.capture import join as joining
    from moeprof.cli.outputs import Joined
    from moeprof.storage.capture_folder import choose

    name = next(iter(joining.read_parts(parts).values())).name
    folder = choose(name, output, force)
    joining.join(parts, folder)
    if as_json:
        print_document(Joined(str(folder)))
        return
    click.echo(f"Wrote {folder}")
    click.echo(f"Next: moeprof report {shlex.quote(str(folder))}", err=True)
