"""``moeprof check`` and ``moeprof baseline``: the gate and what it compares with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import click

from moeprof.cli.options import echo_json, force_option, json_option
from moeprof.errors import ExitCode

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


def _report(form: str, what: str) -> Any:
    return click.option(
        f"--{form}",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help=f"Write {what}; replaces an earlier one.",
    )


@click.command()
@click.argument("capture", type=click.Path(path_type=Path))
@click.option(
    "--against",
    metavar="NAME|PATH",
    help="A baseline or a capture; default: the default baseline, else the capture's own.",
)
@click.option(
    "--fail-on",
    "rules",
    multiple=True,
    required=True,
    metavar="RULE",
    help="'step_time>3%', 'step_time>1.05x', 'launches>+0', 'copy_overlap<0.9'; may be repeated.",
)
@click.option("--variant", help="The variant to judge; default: the optimized one, or the last.")
@click.option(
    "--on-unclear",
    type=click.Choice(["pass", "fail"]),
    default="pass",
    show_default=True,
    help="Whether an UNCLEAR rule passes or fails the gate. It is always reported.",
)
@_report("markdown", "Markdown, for a step's summary")
@_report("junit", "JUnit XML")
@_report("sarif", "SARIF 2.1.0")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write what --json prints; replaces an earlier one.",
)
@baselines_option
@json_option
def check(
    capture: Path,
    rules: tuple[str, ...],
    on_unclear: Literal["pass", "fail"],
    folder: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Exit with 3 if the evidence shows that a RULE holds for CAPTURE, compared with a baseline.

    \b
    moeprof check CAPTURE --against main --fail-on 'step_time>3%' --fail-on 'launches>+0'
    """
    from moeprof.gate.gate import GateRequest, run
    from moeprof.report.gate_formats import checked, write
    from moeprof.storage.json import encode

    result = run(GateRequest(capture, rules, options["against"], options["variant"], on_unclear, folder))
    targets = [(form, options[form]) for form in write.FORMS if options[form] is not None]
    echo_json(encode(result)) if as_json else click.echo(checked.text(result))
    write.write(result, targets)
    for _, path in targets:
        click.echo(f"Wrote {path}", err=True)
    sys.exit(int(ExitCode.GATE if result.failed else ExitCode.OK))


@click.group()
def baseline() -> None:
    """Save captures under a name, for `moeprof check --against NAME`."""


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
    from moeprof.report.gate_formats import checked
    from moeprof.storage import baselines
    from moeprof.storage.json import encode

    named = baselines.listed(folder)
    if as_json:
        echo_json({"schema_version": 1, "folder": str(folder), "baselines": encode(named)})
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
