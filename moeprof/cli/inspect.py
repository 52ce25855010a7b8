"""``moeprof inspect``: one kernel's counters, stalls and hottest lines."""

from __future__ import annotations

import shlex
from typing import Any

import click

from moeprof.cli import completion as names
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
    """A command in which the words after ``--`` are the command line of a program."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take these words out before click reads the options."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[PROGRAM], args = tuple(args[at + 1 :]), args[:at]
        return super().parse_args(ctx, args)


@click.command(cls=Dashed)
@click.argument("targets", nargs=-1, shell_complete=names.workloads)
@click.option("--kernel", required=True, metavar="REGEX", help="Found anywhere in the demangled name of a kernel.")
@click.option(
    "--variant", shell_complete=names.variants, help="Of a workload or a capture.  [default: the optimized one]"
)
@click.option("--range", "range_name", help="Only in this NVTX range; also as ncu spells it: Domain@Range/.")
@click.option("--counters", default="full", show_default=True, metavar="full|basic|METRICS", help="What ncu counts.")
@click.option("--preset", shell_complete=names.presets, help="A parameter set of the workload.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Change one parameter of the workload.")
@click.option(
    "--launches", metavar="N", type=click.IntRange(min=1), default=3, show_default=True, help="Launches to count."
)
@click.option(
    "--skip",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Launches of the kernel to skip first.",
)
@ncu_option
@timeout_option(600, "Seconds that ncu may take.")
@click.option("--keep-raw", is_flag=True, help="Save the .ncu-rep, which contains the environment and the host's name.")
@dry_run_option
@output_option("The inspection's folder.  [default: moeprof-out/inspect-NNN]")
@force_option
@json_option
@click.pass_context
def inspect(ctx: click.Context, as_json: bool, dry_run: bool, pairs: tuple[str, ...], **options: Any) -> None:
    """Count one kernel with Nsight Compute.

    Speed of light, roofline, memory, occupancy, warp states, and the hottest lines.

    \b
    moeprof inspect --kernel REGEX -- PROGRAM     your own program
    moeprof inspect router/fused --kernel REGEX   a workload's variant
    moeprof inspect CAPTURE --kernel REGEX        as captured; with its trace
    moeprof inspect raw.csv --kernel REGEX        pages of ncu; needs no GPU
    """
    from moeprof.kernels.inspect import dry_run as commands
    from moeprof.kernels.inspect import inspect as inspect_kernel
    from moeprof.kernels.target import InspectRequest
    from moeprof.report import inspection, text

    request = InspectRequest(program=ctx.meta.get(PROGRAM, ()), overrides=_parameters(pairs), **options)
    if dry_run:
        click.echo(commands(request))
        return
    result = inspect_kernel(request)
    if as_json:
        echo_json(result.to_json())
        return
    click.echo(text.render(inspection.page(result)))
    if result.folder is not None:
        click.echo(f"Wrote {result.folder}")
        click.echo(f"Next: moeprof inspect {result.folder} --kernel {shlex.quote(request.kernel)}", err=True)


def _parameters(pairs: tuple[str, ...]) -> dict[str, str]:
    from moeprof.workload.model import pairs as parsed

    for word in pairs:
        if "=" not in word:
            raise UsageError(
                f"--set {word!r} is not KEY=VALUE: it changes a workload's parameter",
                f"for what ncu counts: --counters {word}",
            )
    return parsed(pairs)
