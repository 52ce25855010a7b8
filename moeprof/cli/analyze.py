"""``moeprof analyze``: the numbers of a trace or a capture, or one table of every trace of a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from moeprof.cli.options import echo_json, json_option
from moeprof.errors import ExitCode, UsageError


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--range", "range_name", help="One window for each instance of this NVTX range.")
@click.option("--device", type=int, help="Only this GPU.")
@click.option("--rules", type=click.Path(path_type=Path), help="Your own rules: a .py file with a list RULES.")
@click.option(
    "--communication", type=click.Path(path_type=Path), help="Your own classes of communication: a .toml file."
)
@click.option(
    "--dask",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help="Analyse a folder on Dask's workers: on this machine, or those of the scheduler at ADDRESS.",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the rows of a folder are cached; default: DIR/.moeprof-analysis.",
)
@json_option
def analyze(trace: Path, as_json: bool, **options: Any) -> None:
    """Print the numbers and findings of TRACE: .sqlite, .nsys-rep, .json[.gz] (Kineto), a capture folder, or ncu's .csv, .ncu-rep.

    For any other folder, print one table of all captures and traces below it.
    """
    from moeprof.storage import manifest
    from moeprof.trace.ncu.open import read_ncu

    of_folder = options["dask"] is not None or options["results"] is not None
    if of_folder and not trace.is_dir():
        raise UsageError(f"{trace} is not a folder", "--dask and --results are for a folder of traces")
    if of_folder or (trace.is_dir() and not (trace / manifest.FILE).exists()):
        _print_folder(trace, as_json, **options)
        return
    counted = read_ncu(trace)
    if counted is not None:
        _print_counters(counted, as_json)
    else:
        _print_analyses(trace, options, as_json)


def _print_counters(counted: Any, as_json: bool) -> None:
    from moeprof.report import analysis, text

    if as_json:
        echo_json(counted.to_json())
    else:
        click.echo(text.render(analysis.counters_page(counted.path, counted.table, counted.rules)))


def _print_analyses(trace: Path, options: dict[str, Any], as_json: bool) -> None:
    """Print one trace, or each variant of a capture."""
    from moeprof.findings import find
    from moeprof.loaded.trace import analyse
    from moeprof.report import text
    from moeprof.report.analysis import page
    from moeprof.storage.json import encode
    from moeprof.trace import classify

    own = find.load(options["rules"]) if options["rules"] else ()
    classes = classify.communication(options["communication"]) if options["communication"] else classify.COMMUNICATION
    analyses = analyse(trace, options["range_name"], options["device"], own, classes)
    if as_json:
        documents = {name: encode(analysis) for name, analysis in analyses.items()}
        several = {"schema_version": 1, "variants": documents}
        echo_json(next(iter(documents.values())) if len(documents) == 1 else several)
        return
    for name, analysis in analyses.items():
        if len(analyses) > 1:
            click.echo(f"\n{name}")
        click.echo(text.render(page(analysis)))


def _print_folder(
    folder: Path,
    as_json: bool,
    dask: str | None,
    results: Path | None,
    communication: Path | None,
    **of_one: Any,
) -> None:
    """Print one table of all traces; exit with 1 if none has numbers."""
    if any(value is not None for value in of_one.values()):
        raise UsageError("--range, --device and --rules are for one trace or capture", "analyze one of the folder's")
    from moeprof.loaded.folder import analyse_folder
    from moeprof.report import text, traces_table
    from moeprof.storage.json import encode
    from moeprof.trace import classify

    if communication is not None:
        classify.communication(communication)  # a mistake in it is one error, not one a trace
    from moeprof.cli.progress import counted

    with counted("traces") as done:
        table = analyse_folder(folder, dask, results, communication, done)
    if as_json:
        echo_json(encode(table))
    else:
        click.echo(text.render(traces_table.page(table.folder, table.rows, table.traces)))
    if table.failed:
        click.echo(f"note: {table.failed} of {table.traces} traces have no numbers; the table says why", err=True)
    if table.failed == table.traces:
        sys.exit(int(ExitCode.FAILED))
