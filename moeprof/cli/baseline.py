"""``moeprof baseline``: captures that ``moeprof check`` compares with, by name."""

from __future__ import annotations

from pathlib import Path

import click

from moeprof.cli.options import force_option, json_option, print_document

FOLDER = "moeprof-baselines"
baselines_option = click.option(
    "-b",
    "--baselines",
    "folder",
    type=click.Path(path_type=Path),
    default=Path(FOLDER),
    show_default=True,
    help="The folder of named baselines.",
)


@click.group()
def baseline() -> None:
    """Save captures by name, to check against.

    moeprof check CAPTURE --against NAME compares with one.
    """


@baseline.command()
@click.argument("name")
@click.argument("capture", type=click.Path(path_type=Path))
@force_option
@baselines_option
def save(name: str, capture: Path, force: bool, folder: Path) -> None:
    """Save a copy of CAPTURE under NAME."""
    from moeprof.storage import baselines

    click.echo(f"Wrote {baselines.save(name, capture, folder, force)}")
    click.echo(f"Next: moeprof check CAPTURE --against {name} --fail-on 'step_time>3%'", err=True)


@baseline.command("list")
@json_option
@baselines_option
def list_command(as_json: bool, folder: Path) -> None:
    """List the baselines, the oldest capture first."""
    from moeprof.cli.outputs import BaselineList
    from moeprof.report.gate_formats import checked
    from moeprof.storage import baselines

    named = baselines.listed(folder)
    if as_json:
        print_document(BaselineList(str(folder), tuple(named)))
    else:
        click.echo(checked.baselines_text(named))


@baseline.command()
@click.argument("name", required=False)
@click.option("--none", "no_default", is_flag=True, help="Clear the default.")
@baselines_option
def use(name: str | None, no_default: bool, folder: Path) -> None:
    """Make NAME the default of `moeprof check --against`."""
    from moeprof.errors import UsageError
    from moeprof.storage import baselines

    if (name is None) != no_default:
        raise UsageError("give a name, or --none", "see: moeprof baseline list")
    baselines.use(name, folder)
    click.echo("No default" if name is None else f"Default: {name}")


@baseline.command()
@click.argument("name")
@baselines_option
def remove(name: str, folder: Path) -> None:
    """Remove the baseline NAME and its copy of the capture."""
    from moeprof.storage import baselines

    baselines.remove(name, folder)
    click.echo(f"Removed {name}")
