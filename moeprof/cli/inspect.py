"""``moeprof inspect``: one kernel's counters, stalls and hottest lines."""

from __future__ import annotations

import shlex
from typing import Any

import click

from moeprof.cli.options import (
    dry_run_option,
    echo_json,
    force_option,
    json_option,
    ncu_option,
    output_option,
    timeout_option,
)
from moeprof.errors import UsageError

PROGRAM = "moeprof.program"


class Dashed(click.Command):
    """A command in which the words after ``--`` are a program's own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take them out before the options are read."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[PROGRAM], args = tuple(args[at + 1 :]), args[:at]
        return super().parse_args(ctx, args)


@click.command(cls=Dashed)
@click.argument("targets", nargs=-1)
@click.option("--kernel", required=True, metavar="REGEX", help="Found anywhere in the demangled name.")
@click.option("--variant", help="Of a workload or a capture; default: the optimized one.")
@click.option("--range", "range_name", help="Only in this NVTX range; ncu's own spelling too, as Domain@Range/.")
@click.option("--counters", default="full", show_default=True, metavar="full|basic|METRICS", help="What ncu counts.")
@click.option("--preset", help="A parameter set of the workload.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Change one parameter of the workload.")
@click.option("--launches", type=click.IntRange(min=1), default=3, show_default=True, help="Launches to count.")
@click.option("--skip", type=click.IntRange(min=0), default=0, help="Launches of the kernel to pass over first.")
@ncu_option
@timeout_option(600, "Seconds that ncu may take.")
@click.option("--keep-raw", is_flag=True, help="Keep the .ncu-rep: it holds the environment and the host's name.")
@dry_run_option
@output_option
@force_option
@json_option
@click.pass_context
def inspect(ctx: click.Context, as_json: bool, dry_run: bool, pairs: tuple[str, ...], **options: Any) -> None:
    """Count one kernel with ncu: speed of light, roofline, memory, occupancy, stalls, hottest lines.

    \b
    moeprof inspect WORKLOAD[/VARIANT] --kernel REGEX      one iteration in our measured range
    moeprof inspect CAPTURE --kernel REGEX                 again, as captured; and what its trace says
    moeprof inspect raw.csv details.csv --kernel REGEX     pages or an .ncu-rep of ncu: no GPU needed
    moeprof inspect --kernel REGEX -- PROGRAM ARGS         a program of your own
    """
    from moeprof.kernels import inspect as inspecting
    from moeprof.kernels.target import Wish
    from moeprof.report import inspection, text

    wish = Wish(program=ctx.meta.get(PROGRAM, ()), overrides=_parameters(pairs), **options)
    if dry_run:
        click.echo(inspecting.dry_run(wish))
        return
    found = inspecting.inspect(wish)
    if as_json:
        echo_json(inspecting.encoded(found))
        return
    click.echo(text.render(inspection.page(found)))
    if found.folder is not None:
        click.echo(f"Wrote {found.folder}")
        click.echo(f"Next: moeprof inspect {found.folder} --kernel {shlex.quote(wish.kernel)}", err=True)


def _parameters(pairs: tuple[str, ...]) -> dict[str, str]:
    from moeprof.workload.model import pairs as parsed

    for word in pairs:
        if "=" not in word:
            raise UsageError(
                f"--set {word!r} is not KEY=VALUE: it changes a workload's parameter",
                f"for what ncu counts: --counters {word}",
            )
    return parsed(pairs)
