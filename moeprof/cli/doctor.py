"""``moeprof doctor``: what this machine can do, what is missing, and how to fix it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from moeprof.cli.options import json_option, ncu_option, print_document

if TYPE_CHECKING:
    from moeprof.machine.ceilings import Ceilings
    from moeprof.machine.doctor import Check

STATUS_WIDTH = 9
UNITS = {"_gb_per_s": "GB/s", "_tflop_per_s": "TFLOP/s", "_us": "µs"}


@click.command()
@json_option
@click.option("--nsys", type=click.Path(path_type=Path), help="The nsys to check.")
@ncu_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The folder whose disk is checked.  [default: moeprof-out]"
)
@click.option("--ceilings", is_flag=True, help="Measure bandwidths and GEMM rates of this machine; then cached.")
@click.option("--fresh", is_flag=True, help="Measure them again.")
def doctor(
    as_json: bool, nsys: Path | None, ncu: Path | None, output: Path | None, ceilings: bool, fresh: bool
) -> None:
    """Check GPU, torch, nsys and ncu, with fixes.

    Nothing is changed, and nothing runs on the GPU. A line reports OK, DEGRADED or MISSING, or – where there is nothing
    to check; the line below reports how to fix it. --ceilings measures what this machine reaches at best.
    """
    from moeprof.cli import outputs
    from moeprof.cli.progress import working
    from moeprof.machine import ceilings as machine_ceilings
    from moeprof.machine.doctor import examine
    from moeprof.storage.capture_folder import OUTPUT

    if ceilings or fresh:
        with working("measuring the ceilings of this machine"):
            measured = machine_ceilings.ceilings(fresh)
        print_document(outputs.Ceilings(**vars(measured))) if as_json else click.echo(_ceilings_text(measured))
        return
    with working("checking this machine") as progress:
        checks = examine(nsys, ncu, output or OUTPUT, lambda what: progress(f"checking {what}"))
    print_document(outputs.Doctor(checks)) if as_json else click.echo(_checks_text(checks))


def _checks_text(checks: tuple[Check, ...]) -> str:
    """One line for each check, followed by how to fix it; a dash where there is nothing to check."""
    from moeprof.report.text import width
    from moeprof.report.text_layout import wrap
    from moeprof.units import DASH

    name_width = max(len(check.name) for check in checks)
    indent = " " * (STATUS_WIDTH + 1 + name_width + 2)
    lines = []
    for check in checks:
        status = DASH if check.status == "absent" else check.status.upper()
        lines += wrap(check.found, width(), indent, f"{status:<{STATUS_WIDTH}} {check.name:<{name_width}}  ")
        if check.mend and check.status in ("degraded", "missing"):
            lines += wrap(check.mend, width(), indent + "   ", indent + "-> ")
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
