"""The ``moeprof`` command: the group of all commands, and how a failure ends.

Each command stands in a file of its name: it parses, calls the library and prints. Data goes to stdout, progress and
messages to stderr. Heavy imports happen inside the commands, so that ``--help`` is instant. Exit codes: docs/reference/cli.md.
"""

from __future__ import annotations

import importlib.metadata
import os
import signal
import sys
from typing import NoReturn

import click

from moeprof.cli.analyze import analyze
from moeprof.cli.baseline import baseline
from moeprof.cli.capture import capture
from moeprof.cli.check import check
from moeprof.cli.completion import completion
from moeprof.cli.doctor import doctor
from moeprof.cli.export import export
from moeprof.cli.help import GroupedCommands
from moeprof.cli.history import history
from moeprof.cli.inspect import inspect
from moeprof.cli.join import join
from moeprof.cli.kernels import kernels
from moeprof.cli.list import list_command
from moeprof.cli.options import echo_json
from moeprof.cli.ranks import ranks
from moeprof.cli.report import report
from moeprof.cli.session import session
from moeprof.errors import ExitCode, MoeprofError

SIGNALLED = 128  # plus the signal's number, as shells report it
ENDING = (signal.SIGTERM, signal.SIGHUP)  # as good as Ctrl-C: a job's end, a terminal's end


class Moeprof(GroupedCommands):
    """All commands, by what they are for."""

    sections = {  # noqa: RUF012 - one table for the class
        "Measure": ("capture", "join", "doctor", "list"),
        "Read": ("report", "analyze", "kernels", "ranks", "inspect"),
        "Keep": ("check", "baseline", "history", "session", "export"),
    }
    wrong_names = {  # noqa: RUF012 - one table for the class
        "profile": "capture", "record": "capture", "run": "capture", "trace": "capture", "show": "report", "view": "report", "open": "report",
        "stats": "analyze", "diff": "report", "compare": "report", "workloads": "list", "devices": "doctor", "info": "doctor", "test": "check",
        "completions": "completion",
    }  # fmt: skip


@click.group(
    cls=Moeprof,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(package_name="moeprof", message="moeprof %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Why a GPU program is slow, and whether a change made it faster.

    \b
    moeprof capture -- python train.py  profile your own program
    moeprof report                      its page: what is slow, why, what to try
    moeprof report trace.sqlite         the page of a trace: nsys, torch.profiler
    moeprof report before after         what changed between two
    moeprof capture router              a workload that ships: proof, verdict
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@click.command("help", hidden=True)
@click.argument("words", nargs=-1)
@click.pass_context
def help_command(context: click.Context, words: tuple[str, ...]) -> None:
    """Print the help of moeprof, or of a command."""
    shown, command = context.find_root(), context.find_root().command
    for word in words:
        if not isinstance(command, click.Group):
            raise click.UsageError(f"{shown.command_path!r} has no commands.", shown)
        name, subcommand, _ = command.resolve_command(shown, [word])
        assert subcommand is not None  # a name that does not exist raises
        shown, command = click.Context(subcommand, info_name=name, parent=shown), subcommand
    click.echo(command.get_help(shown))


@click.command("version", hidden=True)
def version_command() -> None:
    """Print the version."""
    click.echo(f"moeprof {importlib.metadata.version('moeprof')}")


for command in (
    list_command,
    doctor,
    capture,
    analyze,
    report,
    ranks,
    join,
    kernels,
    inspect,
    session,
    check,
    baseline,
    history,
    export,
    completion,
    help_command,
    version_command,
):
    cli.add_command(command)


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
    """From now on these signals interrupt the command, so that it ends its processes and saves what was finished; returns those received.
    A signal that is ignored (nohup) stays ignored."""
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
    """Report what failed and what to do, on stderr, or with --json as JSON on stdout."""
    if "--json" in sys.argv[1:]:
        echo_json({"error": message, "hint": hint, "code": code})
    else:
        click.echo(f"error: {message}", err=True)
        if hint:
            click.echo(f"hint: {hint}", err=True)
    sys.exit(code)
