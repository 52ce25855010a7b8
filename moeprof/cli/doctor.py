"""``moeprof doctor``: what this machine can do, what is missing, and how to fix it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from moeprof.cli.options import echo_json, json_option, ncu_option, output_option

if TYPE_CHECKING:
    from moeprof.machine.ceilings import Ceilings
    from moeprof.machine.doctor import Check

UNITS = {"_gb_per_s": "GB/s", "_tflop_per_s": "TFLOP/s", "_us": "us"}


@click.command()
@json_option
@click.option("--nsys", type=click.Path(path_type=Path), help="Which nsys to use.")
@ncu_option
@output_option
@click.option("--ceilings", is_flag=True, help="Measure the fastest that this machine reaches, once; then cached.")
@click.option("--fresh", is_flag=True, help="Measure the ceilings again.")
def doctor(
    as_json: bool, nsys: Path | None, ncu: Path | None, output: Path | None, ceilings: bool, fresh: bool
) -> None:
    """Report what this machine can do, what is missing, and how to fix it."""
    from moeprof.machine import ceilings as machine_ceilings
    from moeprof.machine.doctor import examine
    from moeprof.storage.capture_folder import OUTPUT
    from moeprof.storage.json import encode

    if ceilings or fresh:
        measured = machine_ceilings.ceilings(fresh)
        echo_json({"schema_version": 1, **encode(measured)}) if as_json else click.echo(_ceilings_text(measured))
        return
    checks = examine(nsys=nsys, ncu=ncu, output=output or OUTPUT)
    echo_json({"schema_version": 1, "checks": encode(checks)}) if as_json else click.echo(_checks_text(checks))


def _checks_text(checks: tuple[Check, ...]) -> str:
    """One line a check, followed by how to fix it."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.status.upper():<9} {check.name:<{width}}  {check.found}")
        if check.mend and check.status != "ok":
            lines.append(f"{'':<9} {'':<{width}}  -> {check.mend}")
    return "\n".join(lines)


def _ceilings_text(measured: Ceilings) -> str:
    """One line a ceiling."""
    before, after = measured.clock_before_mhz, measured.clock_after_mhz
    clocks = f", SM clock {before} to {after} MHz" if after else ""
    heading = f"{measured.device}, driver {measured.driver}, torch {measured.torch}, measured {measured.at}{clocks}"
    values = [f"  {name:28s} {value:10.4g} {_unit(name)}" for name, value in measured.values.items()]
    return "\n".join([heading, *values])


def _unit(name: str) -> str:
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")
