"""``moeprof doctor``: what this machine can do and what is missing."""

from __future__ import annotations

from pathlib import Path

import click

from moeprof.cli.options import echo_json, json_option, ncu_option, output_option


@click.command()
@json_option
@click.option("--nsys", type=click.Path(path_type=Path), help="Which nsys to use.")
@ncu_option
@output_option
@click.option("--ceilings", is_flag=True, help="Measure what this machine reaches at best; remembered for it.")
@click.option("--fresh", is_flag=True, help="Measure the ceilings anew.")
def doctor(
    as_json: bool, nsys: Path | None, ncu: Path | None, output: Path | None, ceilings: bool, fresh: bool
) -> None:
    """Say what this machine can do, what is missing, and how to mend it."""
    if ceilings or fresh:
        _print_ceilings(fresh, as_json)
        return
    from moeprof.machine import doctor as examination
    from moeprof.storage.capture_folder import OUTPUT
    from moeprof.storage.json import encode

    checks = examination.examine(nsys=nsys, ncu=ncu, output=output or OUTPUT)
    if as_json:
        echo_json({"schema_version": 1, "checks": encode(checks)})
    else:
        click.echo(examination.text(checks))


def _print_ceilings(fresh: bool, as_json: bool) -> None:
    from moeprof.machine import ceilings
    from moeprof.storage.json import encode

    found = ceilings.ceilings(fresh)
    echo_json({"schema_version": 1, **encode(found)}) if as_json else click.echo(ceilings.text(found))
