"""The ``moeprof`` command: each command parses, calls one function of the library and prints.

Data goes to stdout, progress and messages to stderr. Heavy imports happen inside the commands, so that ``--help`` is
instant. Exit codes: docs/cli.md.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from moeprof.cli.analyze import analyze
from moeprof.cli.check import baseline, check
from moeprof.cli.export import export
from moeprof.cli.history import history
from moeprof.cli.inspect import inspect
from moeprof.cli.kernels import kernels
from moeprof.cli.options import (
    budget_option,
    dry_run_option,
    echo_json,
    force_option,
    json_option,
    ncu_option,
    output_option,
    rounds_option,
    timeout_option,
)
from moeprof.cli.ranks import ranks
from moeprof.cli.session import session
from moeprof.errors import ExitCode, MoeprofError, UsageError

if TYPE_CHECKING:
    from moeprof.capture.commands import Request

SIGNALLED = 128  # plus the signal's number, as shells report it
ENDING = (signal.SIGTERM, signal.SIGHUP)  # as good as Ctrl-C: a job's end, a terminal's end


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="moeprof", message="moeprof %(version)s")
def cli() -> None:
    """Profile mixture-of-experts inference: capture, analyse and compare CUDA workloads.

    \b
    moeprof capture kv_transfer      prove, time and profile every variant
    moeprof report --diff            what changed, by how much, why
    """


for command in (analyze, ranks, kernels, inspect, session, check, baseline, history, export):
    cli.add_command(command)


@cli.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """Show workloads, variants and presets, and whether each variant runs here."""
    from moeprof.machine import catalogue

    rows = catalogue.rows()
    echo_json({"schema_version": 1, "workloads": rows}) if as_json else click.echo(catalogue.text(rows))


@cli.command()
@json_option
@click.option("--nsys", type=click.Path(path_type=Path), help="Which nsys to use.")
@ncu_option
@output_option
@click.option("--ceilings", is_flag=True, help="Measure what this machine reaches at best; remembered for it.")
@click.option("--fresh", is_flag=True, help="Measure the ceilings anew.")
def doctor(
    as_json: bool, nsys: Path | None, ncu: Path | None, output: Path | None, ceilings: bool, fresh: bool
) -> None:
    """Say what this machine can do, what is missing, and how to mend it."""
    if ceilings or fresh:
        _print_ceilings(fresh, as_json)
        return
    from moeprof.machine import doctor as examination
    from moeprof.storage.capture_folder import OUTPUT
    from moeprof.storage.json import encode

    checks = examination.examine(nsys=nsys, ncu=ncu, output=output or OUTPUT)
    if as_json:
        echo_json({"schema_version": 1, "checks": encode(checks)})
    else:
        click.echo(examination.text(checks))


def _print_ceilings(fresh: bool, as_json: bool) -> None:
    from moeprof.machine import ceilings
    from moeprof.storage.json import encode

    found = ceilings.ceilings(fresh)
    echo_json({"schema_version": 1, **encode(found)}) if as_json else click.echo(ceilings.text(found))


@cli.command(context_settings={"ignore_unknown_options": False})
@click.argument("target", nargs=-1, type=click.UNPROCESSED)
@click.option("--variants", help="Comma-separated; default: all.")
@click.option("--preset", help="A parameter set; default: `default` on a GPU, `tiny` on a CPU.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Change one parameter.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="Default: cuda where there is a GPU.")
@click.option("--tools", help="Of nsys, ncu, torch, none; default: the best there is.")
@click.option(
    "--nproc",
    type=click.IntRange(min=1),
    help="Ranks of a workload that has ranks; default: all GPUs of this host, on a CPU 2.",
)
@rounds_option
@budget_option
@click.option("--iterations", type=click.IntRange(min=2), default=8, show_default=True, help="Iterations to trace.")
@click.option(
    "--ncu-kernels",
    type=click.IntRange(min=1),
    help="Kernels to count with ncu; default: as the workload says, else 3.",
)
@click.option("--nsys", type=click.Path(path_type=Path), help="Which nsys to use.")
@ncu_option
@timeout_option(300, "Seconds a process may take.")
@click.option("--keep-raw", is_flag=True, help="Keep the raw .nsys-rep: it holds the environment and the host's name.")
@dry_run_option
@output_option
@force_option
@json_option
def capture(target: tuple[str, ...], as_json: bool, dry_run: bool, **options: Any) -> None:
    """Prove, time and profile a WORKLOAD's variants, or profile a program: capture -- PROGRAM ARGS.

    WORKLOAD is a name of `moeprof list` or the path of a .py file that declares one.
    """
    from moeprof import capture as capturing

    request = make_request(target, options)
    said = capturing.elsewhere(request, os.environ, dry_run)
    if said is not None:
        click.echo(said, err=True)
        return
    if dry_run:
        click.echo(capturing.dry_run(request))
        return
    result = capturing.capture(request, capturing.terminal_progress())
    if as_json:
        echo_json(
            {
                "schema_version": 1,
                "folder": str(result.folder),
                "exit_code": int(result.exit_code),
                "message": result.message,
            }
        )
    else:
        click.echo(f"Wrote {result.folder}")
        click.echo(f"Next: moeprof report --diff {result.folder}", err=True)
    if result.message:
        click.echo(result.message, err=True)
    sys.exit(int(result.exit_code))


def make_request(target: tuple[str, ...], options: dict[str, Any]) -> Request:
    """The capture request of a command line; a word after ``--`` makes it a program."""
    from moeprof.capture.commands import Request
    from moeprof.workload.model import pairs

    words = sys.argv[1:]
    is_program = "--" in words and list(target) == words[words.index("--") + 1 :]
    if not target:
        raise UsageError(
            "nothing to capture", "give a workload (see moeprof list), or: moeprof capture -- python train.py"
        )
    if not is_program and len(target) > 1:
        raise UsageError(
            f"one workload at a time, found {' '.join(target)}", "to capture a program: moeprof capture -- PROGRAM ARGS"
        )
    return Request(
        workload=None if is_program else target[0],
        program=tuple(target) if is_program else (),
        overrides=pairs(options.pop("pairs")),
        variants=split(options.pop("variants")),
        tools=split(options.pop("tools")),
        argv=("moeprof", *words),
        **options,
    )


def split(text: str | None) -> tuple[str, ...] | None:
    """Comma-separated words; None where the option was not given."""
    return None if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


@cli.command()
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
    """Write an HTML page of the newest capture, or of those named; the terminal shows its short form."""
    from moeprof.report import build, text

    if captures and not any(path.is_dir() for path in captures):
        if len(captures) != 2 or not contrast:
            raise UsageError("a trace alone has no report", "contrast two: report --diff A B; or see moeprof analyze")
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


def main() -> NoReturn:
    """Run the command; a failure is one clear line (or one JSON object) and the exit code of its kind."""
    received = _interrupted_by(ENDING)
    try:
        status = cli.main(prog_name="moeprof", standalone_mode=False)
    except MoeprofError as error:
        fail(error.message, error.hint, int(error.exit_code))
    except click.exceptions.Exit as leaving:
        sys.exit(leaving.exit_code)
    except click.ClickException as error:
        fail(error.format_message(), usage_hint(error), int(ExitCode.USAGE))
    except (KeyboardInterrupt, click.exceptions.Abort) as error:
        cause = error.__cause__ or error  # click wraps the interrupt, whose argument says what was kept
        fail(str(cause.args[0]) if cause.args else "interrupted", "", SIGNALLED + (received or [signal.SIGINT])[0])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(int(ExitCode.OK))
    except OSError as error:
        fail(
            f"{error.strerror or error}: {error.filename or ''}".rstrip(": "),
            "check the path, its rights and the free space",
            1,
        )
    sys.exit(status if isinstance(status, int) else int(ExitCode.OK))


def _interrupted_by(signals: tuple[signal.Signals, ...]) -> list[int]:
    """From now on these signals interrupt the command, so that it ends its processes and keeps what was finished; those that came.
    One that is ignored (nohup) stays so."""
    received: list[int] = []

    def interrupt(number: int, frame: object) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    for number in signals:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, interrupt)
    return received


def usage_hint(error: click.ClickException) -> str:
    """Where to read how the command is used."""
    context = getattr(error, "ctx", None)
    return f"see: {context.command_path} --help" if context else "see: moeprof --help"


def fail(message: str, hint: str, code: int) -> NoReturn:
    """Say what failed and what to do, on stderr, or as JSON on stdout where that was asked for."""
    if "--json" in sys.argv[1:]:
        echo_json({"error": message, "hint": hint, "code": code})
    else:
        click.echo(f"error: {message}", err=True)
        if hint:
            click.echo(f"hint: {hint}", err=True)
    sys.exit(code)
