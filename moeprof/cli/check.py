"""``moeprof check``: the gate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import click

from moeprof.cli import completion as names
from moeprof.cli.baseline import baselines_option
from moeprof.cli.options import json_option, print_document
from moeprof.errors import ExitCode


def _report(form: str, what: str) -> Any:
    return click.option(
        f"--{form}",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help=f"Write {what}; replaces an earlier one.",
    )


@click.command()
@click.argument("capture", type=click.Path(path_type=Path), shell_complete=names.captures)
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
@click.option(
    "--variant", shell_complete=names.variants, help="The variant to judge; default: the optimized one, or the last."
)
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
    """Fail on a regression, on evidence only.

    The exit code is 3 if a RULE holds for CAPTURE, compared with a baseline, and the evidence is clear.

    \b
    moeprof check CAPTURE --against main --fail-on 'step_time>3%'
    moeprof check CAPTURE --fail-on 'launches>+0' --fail-on 'copy_overlap<0.9'
    """
    from moeprof.gate.gate import GateRequest, run
    from moeprof.report.gate_formats import checked, write

    result = run(GateRequest(capture, rules, options["against"], options["variant"], on_unclear, folder))
    targets = [(form, options[form]) for form in write.FORMS if options[form] is not None]
    print_document(result) if as_json else click.echo(checked.text(result))
    write.write(result, targets)
    for _, path in targets:
        click.echo(f"Wrote {path}", err=True)
    sys.exit(int(ExitCode.GATE if result.failed else ExitCode.OK))
