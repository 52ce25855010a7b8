"""``moeprof report``: a page of captures, of one trace, or of two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from moeprof.cli.options import echo_json, force_option, json_option, output_option
from moeprof.errors import UsageError


@click.command()
@click.argument("captures", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--diff", "contrast", is_flag=True, help="Contrast baseline and optimized, or two captures or traces A B."
)
@click.option("--range", "range_name", help="With two traces: the NVTX range whose instances are compared.")
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
    if traces and len(captures) == 1:
        if contrast:
            raise UsageError("--diff needs two traces, found one", "name a second one, or leave --diff out")
        written = build.write_trace(captures[0], options["output"], options["force"])
    elif traces:
        if len(captures) != 2 or not contrast:
            raise UsageError(f"{len(captures)} traces were named", "contrast two: moeprof report --diff A B")
        pair = (captures[0], captures[1])
        written = build.write_traces(pair, options["range_name"], options["output"], options["force"])
    else:
        studies = build.load(captures, sample)
        written = build.write(studies, contrast, options["output"], options["force"])
    if options["as_json"]:
        echo_json({"schema_version": 1, "page": str(written.path), "diff": written.page.data})
    else:
        click.echo(text.render(written.page))
        click.echo(f"Wrote {written.path}")
    if open_page:
        click.launch(written.path.resolve().as_uri())
