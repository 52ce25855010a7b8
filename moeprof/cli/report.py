"""``moeprof report``: a page of captures, of one trace, or of two."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprof.cli.options import echo_json, force_option, json_option, output_option
from moeprof.errors import UsageError

if TYPE_CHECKING:
    from moeprof.compare.units import Wanted

UNITS = re.compile(r"A=(?P<a>\d+(\.\d+)?),\s*B=(?P<b>\d+(\.\d+)?)")


@click.command()
@click.argument("captures", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--diff",
    "contrast",
    is_flag=True,
    help="Contrast baseline and optimized; two captures or traces A B are always contrasted.",
)
@click.option("--unit", help="Of two traces or programs: a range, a family such as step_#, a REGEX, or a kernel.")
@click.option("--range", "range_name", help="The same as --unit.")
@click.option("--units", metavar="A=N,B=N", help="How many units of work each of two traces contains.")
@click.option("--whole", is_flag=True, help="Two whole traces are the same work.")
@click.option("--sample", help="Use the recorded capture of that name, which ships with moeprof.")
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser.")
@output_option
@force_option
@json_option
def report(captures: tuple[Path, ...], contrast: bool, sample: str | None, open_page: bool, **options: Any) -> None:
    """Write an HTML page of the newest capture, or of those named: captures or traces; the terminal shows its short form."""
    from moeprof.report import build, text

    traces = bool(captures) and not any(path.is_dir() for path in captures)
    if options["range_name"] is not None and not (traces and len(captures) == 2):
        raise UsageError("--range is for two traces", "of one trace: moeprof analyze TRACE --range NAME")
    wanted = wanted_unit(options)
    if traces and len(captures) == 1:
        if contrast:
            raise UsageError("--diff needs two traces, found one", "name a second one, or leave --diff out")
        _no_unit(wanted)
        written = build.write_trace(captures[0], options["output"], options["force"])
    elif traces:
        if len(captures) != 2:
            raise UsageError(f"{len(captures)} traces were named", "contrast two: moeprof report A B")
        pair = (captures[0], captures[1])
        written = build.write_traces(pair, wanted, options["output"], options["force"])
    else:
        studies = build.load(captures, sample)
        if not build.are_programs(studies):
            _no_unit(wanted)
        written = build.write(studies, contrast or len(studies) == 2, options["output"], options["force"], wanted)
    if options["as_json"]:
        echo_json({"schema_version": 1, "page": str(written.path), "diff": written.page.data})
    else:
        click.echo(text.render(written.page))
        click.echo(f"Wrote {written.path}")
    if open_page:
        click.launch(written.path.resolve().as_uri())


def wanted_unit(options: dict[str, Any]) -> Wanted:
    """What the options say of the unit of work.

    Raises:
        UsageError: they exclude each other, or --units is not A=N,B=N.
    """
    from moeprof.compare.units import Wanted

    name, counts = options["unit"] or options["range_name"], options["units"]
    given = [text for text, value in (("--unit", name), ("--units", counts), ("--whole", options["whole"])) if value]
    if len(given) > 1 or (options["unit"] and options["range_name"]):
        raise UsageError(
            f"{' and '.join(given or ['--unit', '--range'])} exclude each other", "say one thing of the unit of work"
        )
    if counts is None:
        return Wanted(name, whole=options["whole"])
    match = UNITS.fullmatch(counts)
    values = (float(match["a"]), float(match["b"])) if match else (0.0, 0.0)
    if not all(values):
        raise UsageError(f"--units {counts!r} is not A=N,B=N", "for example --units A=40,B=40: both contain 40 steps")
    return Wanted(counts=values)


def _no_unit(wanted: Wanted) -> None:
    if wanted.name is not None or wanted.counts is not None or wanted.whole:
        raise UsageError(
            "--unit, --units and --whole are for two traces or two captures of programs",
            "the unit of a workload is its iteration, that of commands is given to capture",
        )
