"""Options that several commands share, and how a command prints JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object in place of text.")
force_option = click.option("-f", "--force", is_flag=True, help="Overwrite an existing output.")
rounds_option = click.option(
    "--rounds",
    metavar="N",
    type=click.IntRange(min=1),
    help="Rounds of clean timing.  [default: as many as the verdicts need]",
)
budget_option = click.option(
    "--budget",
    "budget_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds of clean timing to reach clear verdicts.  [default: 40]",
)
ncu_option = click.option(
    "--ncu", metavar="PATH", type=click.Path(path_type=Path), help="The ncu to use.  [default: MOEPROF_NCU, then PATH]"
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Print the commands and run nothing.")


def output_option(text: str) -> Callable[[Command], Command]:
    """``-o, --output`` with what it writes and where by default."""
    return click.option("-o", "--output", metavar="PATH", type=click.Path(path_type=Path), help=text)


def timeout_option(default_s: int, text: str) -> Callable[[Command], Command]:
    """``--timeout``, as ``timeout_s``."""
    seconds = click.IntRange(min=1)
    return click.option(
        "--timeout", "timeout_s", metavar="SECONDS", type=seconds, default=default_s, show_default=True, help=text
    )


def echo_json(value: Any) -> None:
    """Print one JSON object to stdout."""
    click.echo(json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False))


def print_document(document: Any) -> None:
    """Print a frozen type of ``moeprof.cli.outputs`` as one JSON object."""
    from moeprof.storage.json import encode

    echo_json(encode(document))
