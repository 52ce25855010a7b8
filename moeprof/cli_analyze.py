"""``moeprof analyze``: the numbers of a trace, a capture, a group of ranks, or every trace of a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprof.errors import ExitCode, UsageError
from moeprof.options import echo_json, json_option

if TYPE_CHECKING:
    from moeprof.trace import Trace
    from moeprof.trace.classify import Classes


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
    help="A folder's traces on Dask's workers: this machine's cores, or the scheduler at ADDRESS.",
)
@click.option("--cache", type=click.Path(path_type=Path), help="Where a folder's results are remembered.")
@json_option
def analyze(trace: Path, **options: Any) -> None:
    """Print the numbers and findings of TRACE: .sqlite, .nsys-rep, .json[.gz] (Kineto), a capture folder, or ncu's .csv, .ncu-rep.

    A folder whose traces are the ranks of one program: who waits for whom. Any other folder: one row for each trace below it.
    """
    from moeprof import analysing, grouping
    from moeprof.report import text

    counted = analysing.counters(trace)
    if counted is not None:
        if options["as_json"]:
            echo_json(counted.encoded())
        else:
            click.echo(text.counters_text(counted.path, counted.table, counted.rules))
        return
    spread = options["dask"] is not None or options["cache"] is not None
    if spread and not trace.is_dir():
        raise UsageError(f"{trace} is not a folder", "--dask and --cache are for a folder of traces")
    groups = grouping.groups(trace) if trace.is_dir() and not spread else ()
    if groups:
        _print_groups(groups, options)
    elif spread or (trace.is_dir() and not (trace / "manifest.json").is_file() and not _broken_capture(trace)):
        _print_folder(trace, options)
    else:
        _print_analyses(trace, options)


def _broken_capture(folder: Path) -> bool:
    """A folder without any trace is left to the message that says what a capture is."""
    from moeprof.many import units

    return not units(folder, None, None)


def _classes(options: dict[str, Any]) -> Classes:
    from moeprof.trace import classify

    path = options["communication"]
    return classify.communication(path) if path else classify.COMMUNICATION


def _print_analyses(trace: Path, options: dict[str, Any]) -> None:
    """Each variant of a capture, or one trace; below it the ranks that a trace of several processes or GPUs holds."""
    from moeprof import analysing, findings, grouping
    from moeprof.codec import encode
    from moeprof.report import ranks, text

    own = findings.load(options["rules"]) if options["rules"] else ()
    grouped = []

    def also(opened: Trace) -> None:
        if trace.is_file() and options["device"] is None:
            grouped.append(grouping.of_trace(opened, options["range_name"]))

    analyses = analysing.analyse(trace, options["range_name"], options["device"], own, _classes(options), also)
    of_ranks = [found[0] for found in grouped if found is not None]
    if options["as_json"]:
        documents = [encode(a) for a in analyses.values()]
        if of_ranks:
            documents[0]["ranks"] = encode(of_ranks[0])
        _echo_documents(dict(zip(analyses, documents, strict=True)))
        return
    for name, analysis in analyses.items():
        if len(analyses) > 1:
            click.echo(f"\n{name}")
        click.echo(text.analysis_text(analysis))
    for group in of_ranks:
        click.echo("\n" + ranks.text(group))


def _echo_documents(documents: dict[str, Any]) -> None:
    """One object as it is, several under the names of their variants."""
    single = next(iter(documents.values())) if len(documents) == 1 else None
    echo_json(single if single is not None else {"schema_version": 1, "variants": documents})


def _print_groups(groups: Any, options: dict[str, Any]) -> None:
    from moeprof import grouping
    from moeprof.codec import encode
    from moeprof.report import ranks

    if options["device"] is not None or options["rules"] is not None:
        raise UsageError("--device and --rules are for one trace", "analyze one rank's file")
    found = {}
    for number, group in enumerate(groups):
        with _bar("ranks") as step:
            analysis, _ = grouping.analyse_group(group, options["range_name"], _classes(options), step)
        found[group.variant or str(number)] = analysis
    if options["as_json"]:
        _echo_documents({name: encode(analysis) for name, analysis in found.items()})
        return
    click.echo("\n\n".join(ranks.text(analysis) for analysis in found.values()))


def _print_folder(folder: Path, options: dict[str, Any]) -> None:
    """The table; exit 1 only where every trace failed."""
    from moeprof import spreading
    from moeprof.codec import encode
    from moeprof.report import spread

    if options["range_name"] or options["device"] is not None or options["rules"]:
        raise UsageError(
            "--range, --device and --rules are for one trace or group of ranks", "analyze one of the files"
        )
    with _bar("traces") as step:
        found = spreading.analyse_folder(folder, options["dask"], options["cache"], options["communication"], step)
    if options["as_json"]:
        echo_json(encode(found))
    else:
        click.echo(spread.text(found.folder, found.rows, found.traces, found.failed))
    if found.failed == found.traces:
        sys.exit(int(ExitCode.FAILED))
    if found.failed:
        click.echo(f"note: {found.failed} of {found.traces} traces could not be analysed; the table says why", err=True)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, where that is a terminal: a function of how many are done, and of how many."""
    bars: list[Any] = []

    def step(done: int, of: int) -> None:
        if sys.stderr.isatty():
            bars[:] = bars or [click.progressbar(length=of, label=what, file=sys.stderr)]
            bars[0].update(done - bars[0].pos)

    yield step
    for bar in bars:
        bar.render_finish()
