"""``moeprof analyze``: the numbers of a trace or a capture, or one table of every trace of a folder."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from moeprof.cli import completion as names
from moeprof.cli.options import echo_json, json_option, print_document
from moeprof.errors import ExitCode, UsageError


@click.command()
@click.argument("trace", type=click.Path(path_type=Path), shell_complete=names.captures)
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
@click.option("--all", "show_all", is_flag=True, help="All numbers, not only the first screen.")
@json_option
def analyze(trace: Path, show_all: bool, as_json: bool, **options: Any) -> None:
    """Print what is slow in a trace, and why.

    TRACE is an nsys export (.sqlite) or report (.nsys-rep), a torch.profiler trace (.json, .json.gz), a capture folder,
    or ncu's counters (.csv, .ncu-rep). The first screen has the answer, the time ledger and the findings. For a folder
    of many traces, one table has a row for each.
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
        _print_analyses(trace, show_all, options, as_json)


def _print_counters(counted: Any, as_json: bool) -> None:
    from moeprof.report import analysis, text

    if as_json:
        echo_json(counted.to_json())
    else:
        click.echo(text.render(analysis.counters_page(counted.path, counted.table, counted.rules)))


def _print_analyses(trace: Path, show_all: bool, options: dict[str, Any], as_json: bool) -> None:
    """Print one trace, or each variant of a capture."""
    from moeprof.cli.outputs import Analyses
    from moeprof.cli.progress import working
    from moeprof.findings import find
    from moeprof.loaded.trace import analysed
    from moeprof.report import analysis, text
    from moeprof.trace import classify

    own_rules = find.load(options["rules"]) if options["rules"] else ()
    classes = classify.communication(options["communication"]) if options["communication"] else classify.COMMUNICATION
    with working(f"reading and analysing {trace.name}"):
        analyses = analysed(trace, options["range_name"], options["device"], own_rules, classes)
    if as_json:
        documents = {name: of.analysis for name, of in analyses.items()}
        print_document(next(iter(documents.values())) if len(documents) == 1 else Analyses(documents))
        return
    shown = [analysis.Shown(name, of.analysis, of.devices) for name, of in analyses.items()]
    if show_all:
        click.echo("\n\n".join(text.render(analysis.everything(of)) for of in shown))
    else:
        command = shlex.join(("moeprof", *sys.argv[1:]))
        click.echo(text.render(analysis.summary(shown, command, shlex.quote(str(trace)))))


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
    from moeprof.cli.progress import counted
    from moeprof.loaded.folder import analyse_folder
    from moeprof.report import text, traces_table
    from moeprof.trace import classify

    if communication is not None:
        classify.communication(communication)  # a mistake in it is one error, not one a trace

    with counted("traces") as done:
        table = analyse_folder(folder, dask, results, communication, done)
    if as_json:
        print_document(table)
    else:
        click.echo(text.render(traces_table.page(table.folder, table.rows, table.traces)))
    if table.failed:
        click.echo(f"note: {table.failed} of {table.traces} traces have no numbers; the table reports why", err=True)
    if table.failed == table.traces:
        sys.exit(int(ExitCode.FAILED))
