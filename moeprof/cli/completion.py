"""``moeprof completion``: names at the press of a key. Also what completes the names of workloads, samples and captures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

VARIABLE = "_MOEPROF_COMPLETE"
LOADING = {
    "bash": 'add to ~/.bashrc: eval "$(moeprof completion bash)"',
    "zsh": 'add to ~/.zshrc: eval "$(moeprof completion zsh)"',
    "fish": "moeprof completion fish > ~/.config/fish/completions/moeprof.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(tuple(LOADING)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash  add to ~/.bashrc: eval "$(moeprof completion bash)"
    zsh   add to ~/.zshrc: eval "$(moeprof completion zsh)"
    fish  moeprof completion fish > ~/.config/fish/completions/moeprof.fish
    """
    complete = get_completion_class(shell)
    assert complete is not None  # click has the three shells of the choice
    click.echo(complete(context.find_root().command, {}, "moeprof", VARIABLE).source())


def workloads(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of registered workloads; files where there is none, since a workload may be a file."""
    from moeprof.workload.find import registered

    items = _starting(registered(), incomplete)
    return items or [CompletionItem(incomplete, type="file")]


def variants(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Variants of the workload or the capture on the command line, after the last comma."""
    done, comma, last = incomplete.rpartition(",")
    return _starting((f"{done}{comma}{name}" for name in _variant_names(ctx)), f"{done}{comma}{last}")


def presets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Presets of the workload on the command line."""
    workload = _workload(ctx)
    return _starting(() if workload is None else workload.presets, incomplete)


def samples(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Recordings that ship with moeprof: captures, or sessions for the commands of a session."""
    from moeprof import resources

    is_session = ctx.parent is not None and ctx.parent.info_name == "session"
    known = resources.names("sessions") if is_session else (*resources.names("samples"), *resources.trace_names())
    return _starting(known, incomplete)


def metrics(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Metrics of the gate."""
    from moeprof.gate.metrics import NAMES

    return _starting(NAMES, incomplete)


def captures(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Captures in ./moeprof-out, and any file: a trace."""
    from moeprof.storage.capture_folder import OUTPUT
    from moeprof.storage.manifest import FILE

    folders = sorted(str(path.parent) for path in OUTPUT.glob(f"*/{FILE}"))
    return [*_starting(folders, incomplete), CompletionItem(incomplete, type="file")]


def _starting(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _variant_names(ctx: click.Context) -> tuple[str, ...]:
    from moeprof.errors import MoeprofError
    from moeprof.storage import manifest

    path = ctx.params.get("capture") or ctx.params.get("path") or next(iter(ctx.args), None)
    try:
        if path is not None and (Path(path) / manifest.FILE).is_file():
            return tuple(record.name for record in manifest.read(Path(path)).variants)
    except (MoeprofError, OSError):
        return ()
    workload = _workload(ctx)
    return () if workload is None else tuple(variant.name for variant in workload.variants)


def _workload(ctx: click.Context) -> Any:
    """The workload that the command line names; None where it names none that loads."""
    from moeprof.errors import MoeprofError
    from moeprof.workload.find import load

    # an option that still lacks its value leaves the arguments before it unparsed, in ctx.args
    target = ctx.params.get("target") or ctx.params.get("targets") or ctx.params.get("workload") or ctx.args
    name = target[0] if isinstance(target, (tuple, list)) and target else target
    if not isinstance(name, str):
        return None
    try:
        return load(name.partition("/")[0] if not name.endswith(".py") else name)
    except MoeprofError:
        return None
