"""``moeprof capture``: profile the variants of a workload, or a program."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprof.cli import completion as names
from moeprof.cli.help import GroupedOptions
from moeprof.cli.options import (
    budget_option,
    dry_run_option,
    force_option,
    json_option,
    ncu_option,
    output_option,
    print_document,
    rounds_option,
)
from moeprof.errors import UsageError

if TYPE_CHECKING:
    from moeprof.capture.command_set import CommandSet
    from moeprof.capture.request import Request
    from moeprof.capture.run import Result

SECONDS = click.FloatRange(min=0, min_open=True)


SECTIONS = {
    "What runs": ("variants", "preset", "pairs", "device", "nproc"),
    "Commands as variants": ("commands", "unit", "time", "check", "check_file", "tolerance"),
    "Timing without a profiler, of a workload": ("rounds", "budget_s"),
    "A window of a program": ("start_after", "start_on", "steps", "duration", "end_program"),
    "Profiling": ("tools", "iterations", "ncu_kernels", "nsys", "ncu", "nsys_args", "fork_before_exec"),
    "Output": ("output", "force", "keep_raw", "as_json"),
    "Control": ("timeout_s", "dry_run", "help"),
}


@click.command(cls=GroupedOptions, sections=SECTIONS)
@click.argument(
    "target",
    nargs=-1,
    metavar="-- PROGRAM [ARGS]... | WORKLOAD",
    type=click.UNPROCESSED,
    shell_complete=names.workloads,
)
@click.option(
    "--variants",
    metavar="A,B|FILE",
    shell_complete=names.variants,
    help="Variants of the workload  [default: all]; without a WORKLOAD a TOML file of commands.",
)
@click.option(
    "--variant", "commands", multiple=True, metavar="NAME=COMMAND", help="Compare commands: give two or more."
)
@click.option(
    "--unit", metavar="NAME", help="Time each region of that name (moeprof.region).  [default: the whole run]"
)
@click.option("--time", metavar="REGEX", help="Time what the commands print: groups `value` and `unit`.")
@click.option("--check", metavar="COMMAND", help="Ends with 0 if both did the same work.")
@click.option("--check-file", metavar="FILE", help="The result that each run writes below {out}.")
@click.option("--tolerance", metavar="RATIO", type=float, help="Of --check-file, for numbers.  [default: equal]")
@click.option(
    "--preset",
    metavar="NAME",
    shell_complete=names.presets,
    help="A parameter set.  [default: `default` on a GPU, `tiny` on a CPU]",
)
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Change one parameter; may be repeated.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="[default: cuda if there is a GPU]")
@click.option("--tools", metavar="LIST", help="Of nsys, ncu, torch, none.  [default: the best there is]")
@click.option(
    "--nproc",
    metavar="N",
    type=click.IntRange(min=1),
    help="Ranks of a workload that has ranks.  [default: all GPUs of this host; 2 on a CPU]",
)
@rounds_option
@budget_option
@click.option(
    "--iterations", metavar="N", type=click.IntRange(min=2), default=8, show_default=True, help="Iterations to trace."
)
@click.option(
    "--ncu-kernels",
    metavar="N",
    type=click.IntRange(min=1),
    help="Kernels to count with ncu.  [default: as many as the workload requests, else 3]",
)
@click.option(
    "--nsys",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="The nsys to use.  [default: MOEPROF_NSYS, then PATH]",
)
@ncu_option
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.IntRange(min=1),
    help="Seconds that one process may take.  [default: 300 of a workload, no limit of a program]",
)
@click.option("--start-after", type=SECONDS, help="Record from S seconds after the start of the program.", metavar="S")
@click.option("--start-on", metavar="REGEX", help="Keep what follows the first NVTX range of a matching name.")
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Keep N of the ranges of --start-on.")
@click.option("--duration", type=SECONDS, metavar="S", help="Record S seconds; the program goes on.")
@click.option("--end-program", is_flag=True, help="With --duration: end the program after it, as by Ctrl-C.")
@click.option("--nsys-args", default="", metavar="OPTIONS", help="More options of nsys profile.")
@click.option(
    "--trace-fork-before-exec",
    "fork_before_exec",
    is_flag=True,
    help="Trace children that are forked and never call exec.",
)
@click.option(
    "--keep-raw", is_flag=True, help="Save the raw .nsys-rep, which contains the environment and the host's name."
)
@dry_run_option
@output_option("The capture's folder.  [default: moeprof-out/NAME-NNN]")
@force_option
@json_option
def capture(target: tuple[str, ...], as_json: bool, dry_run: bool, **options: Any) -> None:
    """Profile a program, or a workload's variants.

    \b
    moeprof capture -- python train.py          any program
    moeprof capture router                      a workload of `moeprof list`
    moeprof capture ./mine.py --variants a,b    a workload of your own
    moeprof capture --variant a='CMD' --variant b='CMD'   any two commands

    The variants of a workload are proved to do the same work, timed without a profiler, and profiled.
    """
    from moeprof import capture as capturing
    from moeprof.cli.outputs import Captured
    from moeprof.cli.progress import Lines, terminal_progress

    request = make_request(target, options, as_json)
    message = capturing.elsewhere(request, os.environ, dry_run)
    if message is not None:
        click.echo(message, err=True)
        return
    if dry_run:
        click.echo(capturing.dry_run(request))
        return
    result = capturing.capture(request, Lines() if request.program else terminal_progress())
    if as_json:
        print_document(Captured(str(result.folder), int(result.exit_code), result.message))
    else:
        _print_result(result)
    if result.message:
        click.echo(result.message, err=True)
    sys.exit(int(result.exit_code))


def _print_result(result: Result) -> None:
    """Where the capture is and what comes next; a capture that is not whole has no page."""
    from moeprof.storage.files import PARTIAL

    whole = result.folder.exists() and not result.folder.name.endswith(PARTIAL)
    if whole:
        click.echo(f"Wrote {result.folder}")
    following = f"Next: moeprof report {shlex.quote(str(result.folder))}" if whole else ""
    if result.next or following:
        click.echo(result.next or following, err=True)


def make_request(target: tuple[str, ...], options: dict[str, Any], as_json: bool = False) -> Request:
    """The capture request of a command line; a word after ``--`` makes it a program, whose output does not mix with JSON.

    Raises:
        UsageError: there is no target, more than one workload, or a script that declares no workload.
    """
    from moeprof.capture.program import nsys_options
    from moeprof.capture.program.window import Window
    from moeprof.capture.request import WORKLOAD_TIMEOUT_S, Request
    from moeprof.workload.find import declares_workload
    from moeprof.workload.model import pairs

    words = sys.argv[1:]
    is_program = "--" in words and list(target) == words[words.index("--") + 1 :]
    commands = make_commands(target, options)
    if not target and commands is None:
        raise UsageError(
            "nothing to capture", "give a workload (see moeprof list), or: moeprof capture -- python train.py"
        )
    if not is_program and len(target) > 1:
        raise UsageError(
            f"one workload at a time, found {' '.join(target)}", "to capture a program: moeprof capture -- PROGRAM ARGS"
        )
    script = Path(target[0] if target else "")
    if not is_program and script.suffix == ".py" and script.is_file() and not declares_workload(script):
        raise UsageError(
            f"{script} declares no WORKLOAD: it is a program", f"moeprof capture -- python {shlex.quote(target[0])}"
        )
    limit_s = options.pop("timeout_s")
    window = Window(
        options.pop("start_after"),
        options.pop("start_on"),
        options.pop("steps"),
        options.pop("duration"),
        options.pop("end_program"),
    )
    return Request(
        workload=None if is_program or commands is not None else target[0],
        commands=commands,
        program=tuple(target) if is_program else (),
        overrides=pairs(options.pop("pairs")),
        variants=split(options.pop("variants")),
        tools=split(options.pop("tools")),
        argv=("moeprof", *words),
        timeout_s=limit_s or WORKLOAD_TIMEOUT_S,
        limit_s=limit_s,
        window=window,
        nsys_args=nsys_options.parsed(options.pop("nsys_args")),
        stdout_to=2 if as_json else 1,
        **options,
    )


NOT_OF_COMMANDS = (
    "preset", "pairs", "nproc", "ncu_kernels", "start_after", "start_on", "steps", "duration", "nsys_args", "fork_before_exec",
)  # fmt: skip


OPTION_OF = {"pairs": "--set", "fork_before_exec": "--trace-fork-before-exec"}


def make_commands(target: tuple[str, ...], options: dict[str, Any]) -> CommandSet | None:
    """The commands to compare; None for a workload or a program. Takes their options out of ``options``.

    Raises:
        UsageError: options of commands beside a workload or a program, or the other way round.
    """
    from moeprof.capture.command_set import Given, from_options, read

    given = Given(
        options.pop("commands"), *(options.pop(name) for name in ("unit", "time", "check", "check_file", "tolerance"))
    )
    file = options["variants"] if not target and str(options["variants"]).endswith(".toml") else None
    if file is None and not given.any:
        return None
    if target or (options["variants"] is not None and file is None):
        raise UsageError(
            "--variant, --unit, --time, --check, --check-file and --tolerance are for commands, not for a workload or a program",
            "compare two: moeprof capture --variant baseline=COMMAND --variant optimized=COMMAND",
        )
    if file is not None and given.any:
        raise UsageError(f"{file} and --variant, --unit, --time or --check exclude each other", f"write it into {file}")
    for name in NOT_OF_COMMANDS:
        if options[name]:
            option = OPTION_OF.get(name, f"--{name.replace('_', '-')}")
            raise UsageError(f"{option} is not for commands", "each command has words of its own")
    if "ncu" in (split(options["tools"]) or ()):
        raise UsageError("ncu counts no commands that are compared", "count one: moeprof inspect -- PROGRAM ARGS")
    options["variants"] = None
    return read(Path(file)) if file is not None else from_options(given)


def split(text: str | None) -> tuple[str, ...] | None:
    """Comma-separated words; None where the option was not given."""
    return None if text is None else tuple(word.strip() for word in text.split(",") if word.strip())
