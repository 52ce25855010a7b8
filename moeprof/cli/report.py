"""``moeprof report``: a page of captures, of one trace, or of two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprof.cli import completion as names
from moeprof.cli.options import echo_json, force_option, json_option, output_option
from moeprof.errors import UsageError, choices

if TYPE_CHECKING:
    from moeprof.report.build import Written


@click.command()
@click.argument(
    "captures", metavar="[X | A B]", nargs=-1, type=click.Path(path_type=Path), shell_complete=names.captures
)
@click.option("--diff", "contrast", is_flag=True, help="The contrast; never needed: A B asks for it, and X has it.")
@click.option("--range", "range_name", help="With two traces: the NVTX range whose instances are compared.")
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
        written = _written(
            paths, recorded, contrast, **{key: options[key] for key in ("range_name", "output", "force")}
        )
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
    return (tuple(map(build.side_of, captures)) if len(captures) == 2 else captures), sample


def _written(
    paths: tuple[Path, ...],
    sample: str | None,
    contrast: bool,
    range_name: str | None,
    output: Path | None,
    force: bool,
) -> Written:
    """The page that the paths deserve: of a trace, of a capture, or of two of a kind."""
    from moeprof.report import build

    if len({path.is_dir() for path in paths}) == 2:
        raise UsageError(
            f"{paths[0]} and {paths[1]} are a capture and a trace",
            "name two of a kind; a variant's trace is a file in the folder of its capture",
        )
    traces = bool(paths) and not paths[0].is_dir()
    if range_name is not None and not (traces and len(paths) == 2):
        raise UsageError("--range is for two traces", "of one trace: moeprof analyze TRACE --range NAME")
    if traces and len(paths) == 1 and contrast:
        raise UsageError("--diff needs two traces, found one", "name a second one, or leave --diff out")
    if not traces:
        return build.write(build.load(paths, sample), contrast, output, force)
    if len(paths) == 1:
        return build.write_trace(paths[0], output, force)
    return build.write_traces((paths[0], paths[1]), range_name, output, force)


def _existing(path: Path) -> None:
    """Raises UsageError, with the nearest name in the same folder, where there is nothing at ``path``."""
    if path.exists():
        return
    folder = path.parent
    beside = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    near = choices(path.name, beside, "").partition("?")[0]
    hint = f"{near}?" if near.startswith("did you mean") else "give a capture folder or a trace that exists"
    raise UsageError(f"{path} does not exist", hint)
