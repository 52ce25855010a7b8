"""``moeprof report``: a page of captures, of one trace, or of two."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprof.cli import completion as names
from moeprof.cli.options import echo_json, force_option, json_option, output_option
from moeprof.errors import UsageError, choices

if TYPE_CHECKING:
    from moeprof.compare.units import Wanted
    from moeprof.report.build import Written

UNITS = re.compile(r"A=(?P<a>\d+(\.\d+)?),\s*B=(?P<b>\d+(\.\d+)?)")


@click.command()
@click.argument(
    "captures", metavar="[X | A B]", nargs=-1, type=click.Path(path_type=Path), shell_complete=names.captures
)
@click.option("--diff", "contrast", is_flag=True, help="The contrast; never needed: A B asks for it, and X has it.")
@click.option(
    "--unit",
    metavar="NAME",
    help="Of two traces or programs: the range, family (step_#), REGEX or kernel that is a unit of work.",
)
@click.option("--range", "range_name", metavar="NAME", help="The same as --unit.")
@click.option("--units", metavar="A=N,B=N", help="How many units of work each of two traces contains.")
@click.option("--whole", is_flag=True, help="Two whole traces are the same work.")
@click.option(
    "--sample", shell_complete=names.samples, help="A recorded capture that ships, such as kv_transfer (one H200)."
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser.")
@output_option("The page.  [default: moeprof-out/NAME.html]")
@force_option
@json_option
def report(captures: tuple[Path, ...], contrast: bool, sample: str | None, open_page: bool, **options: Any) -> None:
    """Write one HTML page: what is slow, and why.

    X is a trace (nsys: .sqlite, .nsys-rep; torch.profiler: .json, .json.gz) or a capture folder; without X it is the
    newest capture in ./moeprof-out. A B contrasts two captures or two traces. The terminal shows the page's short form.

    \b
    moeprof report                            the newest capture
    moeprof report trace.sqlite               one trace
    moeprof report before.sqlite after.sqlite what the same work costs in each
    moeprof report --sample kv_transfer       recorded on one H200; needs no GPU
    """
    from moeprof.cli.progress import working
    from moeprof.report import text

    paths, recorded = _named(captures, sample)
    name = ", ".join(path.name for path in paths) or recorded or "the newest capture"
    with working(f"reading {name}"):
        written = _written(paths, recorded, contrast, options)
    if options["as_json"]:
        echo_json({"schema_version": 1, "page": str(written.path), "diff": written.page.data})
    else:
        click.echo(text.render(written.page))
        click.echo(f"Wrote {written.path}")
    if open_page:
        click.launch(written.path.resolve().as_uri())


def _named(captures: tuple[Path, ...], sample: str | None) -> tuple[tuple[Path, ...], str | None]:
    """The paths that exist, and the sample that is a capture; a recorded trace is unpacked, and is a path then."""
    from moeprof import resources
    from moeprof.report import build

    if sample is not None and captures:
        raise UsageError(f"--sample {sample} and {captures[0]} were both named", "name one of them")
    if sample in resources.trace_names():
        return (build.unpacked(sample),), None
    for path in captures:
        _existing(path)
    if len(captures) > 2:
        raise UsageError(f"a page shows one thing or contrasts two, found {len(captures)}", "name one or two")
    mixed = len({path.is_dir() for path in captures}) == 2
    return (tuple(map(build.side_of, captures)) if mixed else captures), sample


def _written(paths: tuple[Path, ...], sample: str | None, contrast: bool, options: dict[str, Any]) -> Written:
    """The page that the paths deserve: of a trace, of a capture, or of two of a kind."""
    from moeprof.report import build

    output, force, wanted = options["output"], options["force"], wanted_unit(options)
    if len({path.is_dir() for path in paths}) == 2:
        raise UsageError(
            f"{paths[0]} and {paths[1]} are a capture and a trace",
            "name two of a kind; a variant's trace is a file in the folder of its capture",
        )
    traces = bool(paths) and not paths[0].is_dir()
    if options["range_name"] is not None and not (traces and len(paths) == 2):
        raise UsageError("--range is for two traces", "of one trace: moeprof analyze TRACE --range NAME")
    if traces and len(paths) == 1 and contrast:
        raise UsageError("--diff needs two traces, found one", "name a second one, or leave --diff out")
    if traces and len(paths) == 2:
        return build.write_traces((paths[0], paths[1]), wanted, output, force)
    if traces:
        _no_unit(wanted)
        return build.write_trace(paths[0], output, force)
    studies = build.load(paths, sample)
    if not build.are_programs(studies):
        _no_unit(wanted)
    return build.write(studies, contrast or len(studies) == 2, output, force, wanted)


def _existing(path: Path) -> None:
    """Raises UsageError, with the nearest name in the same folder, where there is nothing at ``path``."""
    if path.exists():
        return
    folder = path.parent
    beside = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    near = choices(path.name, beside, "").partition("?")[0]
    hint = f"{near}?" if near.startswith("did you mean") else "give a capture folder or a trace that exists"
    raise UsageError(f"{path} does not exist", hint)


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
