"""``moeprof session``: an investigation as a log of predictions, trials and decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from moeprof.cli import completion as names
from moeprof.cli.options import (
    budget_option,
    force_option,
    json_option,
    output_option,
    print_document,
    rounds_option,
)

session_option = click.option(
    "--session",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("moeprof-session"),
    show_default=True,
    help="The session's folder.",
)

sample_option = click.option(
    "--sample", shell_complete=names.samples, help="The recorded session of that name, which ships with moeprof."
)


@click.group()
def session() -> None:
    """Log predictions, trials and decisions.

    \b
    moeprof session new "why is the range slow?" --workload router
    moeprof session try                       # measure the start
    moeprof session predict "fewer launches" --metric step_time --expect "<0.9x"
    (make the change)  moeprof session try  ;  moeprof session keep "because"
    moeprof session report
    """


@session.command()
@click.argument("question")
@click.option(
    "--workload",
    required=True,
    shell_complete=names.workloads,
    help="A name of `moeprof list`, or the path of a .py file.",
)
@click.option(
    "--variant", shell_complete=names.variants, help="The variant to measure; default: the workload's optimized one."
)
@session_option
def new(question: str, workload: str, variant: str | None, folder: Path) -> None:
    """Begin a session that answers QUESTION."""
    from moeprof.report import session as shown
    from moeprof.session import steps

    click.echo(shown.log(steps.begin(folder, question, workload, variant)))


@session.command()
@click.argument("text")
@click.option(
    "--metric",
    required=True,
    shell_complete=names.metrics,
    help="step_time, of_limit, exposed_copy, kernels, ...; kernel:REGEX; counter:NAME.",
)
@click.option("--expect", required=True, help="'<0.5x' or '<-20%': against the kept capture; '>0.9': the value itself.")
@session_option
def predict(text: str, metric: str, expect: str, folder: Path) -> None:
    """Predict in TEXT what the next change does, and what METRIC will show."""
    from moeprof.report import session as shown
    from moeprof.session import steps

    click.echo(shown.log(steps.predict(folder, text, metric, expect)))


@session.command("try")
@click.option("--preset", help="A parameter set of the workload.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Change one parameter.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="Default: cuda where there is a GPU.")
@click.option("--variants", help="Comma-separated; default: all.")
@click.option("--tools", help="Comma-separated: nsys, ncu, torch, none; default: the best available.")
@rounds_option
@budget_option
@session_option
def attempt(folder: Path, pairs: tuple[str, ...], variants: str | None, tools: str | None, **options: Any) -> None:
    """Capture the workload as it is now and compare it with the kept capture."""
    from moeprof.capture import Request
    from moeprof.cli.progress import terminal_progress
    from moeprof.report import session as shown
    from moeprof.report.narrative.sentences import verdict
    from moeprof.session import steps
    from moeprof.workload.model import pairs as parsed

    request = Request(
        overrides=parsed(pairs),
        variants=_words(variants),
        tools=_words(tools),
        argv=("moeprof", "session", "try"),
        **options,
    )
    click.echo(shown.log(steps.attempt(folder, request, terminal_progress(), verdict)))


def _words(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


def _decision(name: str, kept: bool) -> click.Command:
    @session.command(name, help=f"{name.capitalize()} the last change; WHY is the reason.")
    @click.argument("why", default="")
    @session_option
    def decide(why: str, folder: Path) -> None:
        from moeprof.report import session as shown
        from moeprof.session import steps

        click.echo(shown.log(steps.decide(folder, kept, why)))

    return decide


keep, revert = _decision("keep", True), _decision("revert", False)


@session.command()
@session_option
@sample_option
@json_option
def log(folder: Path, sample: str | None, as_json: bool) -> None:
    """Print all steps and the next command."""
    from moeprof.cli.outputs import SessionLog
    from moeprof.report import session as shown
    from moeprof.session import log, steps

    state = log.read(steps.place(folder, sample))
    print_document(SessionLog(state)) if as_json else click.echo(shown.log(state))


@session.command()
@click.argument("number", type=int)
@session_option
@sample_option
@json_option
def show(number: int, folder: Path, sample: str | None, as_json: bool) -> None:
    """Print one step: prediction, numbers, decision and the change itself."""
    from moeprof.cli.outputs import SessionStep
    from moeprof.errors import UsageError
    from moeprof.report import session as shown
    from moeprof.session import log, steps

    logged = log.read(steps.place(folder, sample)).steps
    if not 1 <= number <= len(logged):
        raise UsageError(
            f"there is no step {number}", f"steps: 1 to {len(logged)}" if logged else "no step was predicted yet"
        )
    step = logged[number - 1]
    print_document(SessionStep(step)) if as_json else click.echo(shown.show(step))


@session.command()
@output_option("The page.  [default: SESSION/session.html]")
@force_option
@session_option
@sample_option
def report(folder: Path, sample: str | None, output: Path | None, force: bool) -> None:
    """Write the session's page; for a recorded session to ./moeprof-out/NAME.html."""
    from moeprof.report import html
    from moeprof.report import session as shown
    from moeprof.session import log, steps
    from moeprof.storage.capture_folder import OUTPUT, refuse_existing
    from moeprof.storage.files import write_whole

    folder = steps.place(folder, sample)
    page = output or (OUTPUT / f"{sample}.html" if sample else folder / "session.html")
    if output is not None:
        refuse_existing(output, force)
    state = log.read(folder)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(page, html.render(shown.page(state, steps.seen(folder, state))))
    click.echo(f"Wrote {page}")
